"""Tables of images and their labels: CSV files of ``path,label;label`` rows."""

import csv
import io
from collections.abc import Iterator, Sequence

import numpy as np

from tresnet_downstream.errors import UserError
from tresnet_downstream.formats.labelled_images import LabelledImages
from tresnet_downstream.text_files import File, read_text, refuse_duplicates, same_file_name

# What other tools call the column of images.
_HEADERS = {"image", "images", "image_id", "image_path", "img", "file", "files", "file_name", "filename", "name", "id"}


def read_table(file: File, classes: Sequence[str] | None = None, others: bool = False) -> LabelledImages:
    """Reads a table of ``path,label;label`` rows, with ``label;label`` of unknown state in a third column.

    The encoding is UTF-8, with or without byte order mark. A first row that begins with ``path`` is a header,
    and then names the third column, if there is one, ``unknown``. Cells with commas are quoted. Labels of the
    third column are unknown: unverified, as OpenImages has them. A row that lists no label in
    either column is an image without annotation.

    Args:
        file: the CSV file.
        classes: the class names in the order wanted; without them the sorted labels of the file.
        others: whether labels may be further ones, which then follow in alphabetical order.

    Raises:
        UserError: the file is missing or malformed, or has a label outside ``classes``, without ``others``.
    """
    refuse_duplicates(file, "name in `classes`", classes or ())
    wanted = set(classes or ())
    first: dict[str, tuple[int, str]] = {}
    labels: list[str] = []
    rows: list[int] = []
    unverified: list[bool] = []
    for line, (path, *cells) in _csv_rows(file):
        spelling = same_file_name(path)
        if spelling in first:
            before, known_path = first[spelling]
            as_other = "" if known_path == path else f" as {known_path!r}"
            raise UserError(f"{file}: line {line} lists {path!r} again, which line {before} has already{as_other}")
        first[spelling] = line, path
        known, unknown = ({label.strip() for label in cell.split(";")} - {""} for cell in (*cells, "")[:2])
        if known & unknown:
            label = min(known & unknown)
            raise UserError(f"{file}: line {line} has the label {label!r} both as present and as unknown")
        if classes is not None and not others and not known | unknown <= wanted:
            label = min((known | unknown) - wanted)
            known_labels = ", ".join(classes[:5]) + (", ..." if len(classes) > 5 else "")
            raise UserError(
                f"{file}: line {line} has the label {label!r}, which is not among the {len(classes)} classes "
                f"of the training data: {known_labels}"
            )
        rows += [len(first) - 1] * (len(known) + len(unknown))
        unverified += [False] * len(known) + [True] * len(unknown)
        labels += [*known, *unknown]
    names = [*(classes or ()), *sorted(set(labels) - wanted)]
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
    """Gives the line number and the cells of each row that is neither header nor blank."""
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
