"""Reads tables of images and their labels: CSV files with rows ``path,label;label``."""

import csv
import io
from collections.abc import Iterator, Sequence

import numpy as np

from tresnet_downstream.errors import UserError
from tresnet_downstream.formats.labelled_images import LabelledImages
from tresnet_downstream.text_files import File, read_text, refuse_duplicates, same_file_name

# Names of the column of images in files of other tools.
_HEADERS = {"image", "images", "image_id", "image_path", "img", "file", "files", "file_name", "filename", "name", "id"}


def read_table(file: File, classes: Sequence[str] | None = None, others: bool = False) -> LabelledImages:
    """Reads a table with rows ``path,label;label`` and an optional third column of unknown labels.

    The encoding is UTF-8, with or without a byte order mark. If the first row begins with ``path``, it is a header, and
    its third column, if any, must be ``unknown``. Cells with commas must be quoted. The labels in the third column are
    unverified, as in OpenImages. A row without labels is an image without annotation.

    Args:
        file: the CSV file.
        classes: class names, in order; None for the sorted labels of the file.
        others: whether further labels are allowed. Their classes follow ``classes`` in alphabetical order.

    Raises:
        UserError: if the file is missing or malformed, or if it has a label that is not in ``classes`` and ``others``
            is False.
    """
    refuse_duplicates(file, "name in `classes`", classes or ())
    known_classes = set(classes or ())
    first: dict[str, tuple[int, str]] = {}
    labels: list[str] = []
    rows: list[int] = []
    unverified: list[bool] = []
    for line, (path, *cells) in _csv_rows(file):
        spelling = same_file_name(path)
        if spelling in first:
            first_line, first_path = first[spelling]
            as_other = "" if first_path == path else f" as {first_path!r}"
            raise UserError(f"{file}: line {line} lists {path!r} again, which line {first_line} has already{as_other}")
        first[spelling] = line, path
        known, unknown = ({label.strip() for label in cell.split(";")} - {""} for cell in (*cells, "")[:2])
        if known & unknown:
            label = min(known & unknown)
            raise UserError(f"{file}: line {line} has the label {label!r} both as present and as unknown")
        if classes is not None and not others and not known | unknown <= known_classes:
            label = min((known | unknown) - known_classes)
            known_labels = ", ".join(classes[:5]) + (", ..." if len(classes) > 5 else "")
            raise UserError(
                f"{file}: line {line} has the label {label!r}, which is not among the {len(classes)} classes "
                f"of the training data: {known_labels}"
            )
        rows += [len(first) - 1] * (len(known) + len(unknown))
        unverified += [False] * len(known) + [True] * len(unknown)
        labels += [*known, *unknown]
    names = [*(classes or ()), *sorted(set(labels) - known_classes)]
    place = {name: number for number, name in enumerate(names)}
    return LabelledImages(
        names=[path for _, path in first.values()],
        classes=tuple(names),
        image_of=np.array(rows, np.int64),
        class_of=np.array([place[label] for label in labels], np.int64),
        unknown=np.array(unverified, bool),
        difficult=np.zeros(len(rows), bool),
    )


def _csv_rows(file: File) -> Iterator[tuple[int, list[str]]]:
    """Yields the line number and the cells of each row that is not a header and not blank."""
    reader = csv.reader(io.StringIO(read_text(file), newline=""), strict=True)
    allowed: tuple[int, ...] = (2, 3)
    try:
        for number, cells in enumerate(filter(None, reader)):
            if number == 0 and cells[0].strip() == "path":
                allowed = (len(cells),)
                if len(cells) not in (2, 3) or [cell.strip() for cell in cells[2:]] not in ([], ["unknown"]):
                    raise UserError(f"{file}: the header is `{','.join(cells)}`, not path,label[,unknown]")
                continue
            if number == 0 and cells[0].strip().lower() in _HEADERS:
                raise UserError(
                    f"{file}: line 1 is the header `{','.join(cells)}`; write path,label[,unknown], or no header"
                )
            if len(cells) not in allowed:
                numbers = " or ".join(map(str, allowed))
                raise UserError(
                    f"{file}: line {reader.line_num} has {len(cells)} columns, not {numbers}; a row is "
                    "path,label;label[,unknown;unknown], and a cell with a comma is quoted"
                )
            if not cells[0]:
                raise UserError(f"{file}: line {reader.line_num} has no path")
            yield reader.line_num, cells
    except csv.Error as error:
        raise UserError(f"{file}: line {reader.line_num}: {error}") from error
