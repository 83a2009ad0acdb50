"""Multi-label annotations: which image shows which classes, read from COCO, CSV or VOC files.

They are held in a handful of numpy arrays, since a forked worker copies every page on which it touches the
reference count of a Python object.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from tresnet_downstream.coco_files import File, read_coco_file, read_text, refuse_duplicates, same_file_name
from tresnet_downstream.errors import UserError
from tresnet_downstream.formats.class_folders import read_class_folders
from tresnet_downstream.formats.voc import read_voc_file

DIFFICULT = ("unknown", "positive")


@dataclass(frozen=True, eq=False)
class MultilabelAnnotations:
    """The labels of N images in C classes, as compact arrays that forked workers share.

    A target is 1 where the image shows the class, -1 where nobody has verified it, and 0 elsewhere. Row ``i``
    of the sparse targets is ``indices[indptr[i]:indptr[i + 1]]`` with the values beside it.

    Attributes:
        classes: the C class names, in the order of the targets' columns.
        name_bytes: the image names in UTF-8, one after the other, uint8.
        name_offsets: where each name begins and, last, where all end, int64 of shape (N + 1,).
        indptr: where each image's labels begin and, last, where all end, int64 of shape (N + 1,).
        indices: the class of each label, int32, ascending within an image.
        values: 1 or -1 for each label, int8.
        unlabelled_bytes: the names of the images without annotation, which the file lists and this leaves out, as
            ``name_bytes``.
        unlabelled_offsets: where each of them begins and, last, where all end, as ``name_offsets``.
    """

    classes: tuple[str, ...]
    name_bytes: np.ndarray
    name_offsets: np.ndarray
    indptr: np.ndarray
    indices: np.ndarray
    values: np.ndarray
    unlabelled_bytes: np.ndarray
    unlabelled_offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def path(self, index: int) -> str:
        """Give the name of image ``index`` as the file has it, relative to the folder of images."""
        return self.name_bytes[self.name_offsets[index] : self.name_offsets[index + 1]].tobytes().decode()

    def paths(self) -> list[str]:
        """Give the names of all images; quicker than one by one."""
        return _decoded(self.name_bytes, self.name_offsets)

    @property
    def num_unlabelled(self) -> int:
        """How many images without annotation are left out."""
        return len(self.unlabelled_offsets) - 1

    def unlabelled(self) -> list[str]:
        """Give the names of the images without annotation that are left out."""
        return _decoded(self.unlabelled_bytes, self.unlabelled_offsets)

    def target(self, index: int) -> np.ndarray:
        """Give the target of image ``index``: int8 of shape (C,) with values -1, 0 and 1."""
        row = slice(self.indptr[index], self.indptr[index + 1])
        target = np.zeros(len(self.classes), np.int8)
        target[self.indices[row]] = self.values[row]
        return target

    def targets(self) -> np.ndarray:
        """Give all targets: int8 of shape (N, C) with values -1, 0 and 1."""
        targets = np.zeros((len(self), len(self.classes)), np.int8)
        targets[np.repeat(np.arange(len(self)), np.diff(self.indptr)), self.indices] = self.values
        return targets

    def positives_per_class(self) -> np.ndarray:
        """Count the images that show each class: int64 of shape (C,)."""
        return np.bincount(self.indices[self.values == 1], minlength=len(self.classes))

    def unknown_per_class(self) -> np.ndarray:
        """Count the images of which nobody knows whether they show each class: int64 of shape (C,)."""
        return np.bincount(self.indices[self.values == -1], minlength=len(self.classes))


def joined(several: Sequence[MultilabelAnnotations]) -> MultilabelAnnotations:
    """One after the other; all have the classes of the first."""

    def ends(each: list[np.ndarray]) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(np.concatenate([np.diff(offsets) for offsets in each]))]).astype(np.int64)

    return MultilabelAnnotations(
        classes=several[0].classes,
        name_bytes=np.concatenate([each.name_bytes for each in several]),
        name_offsets=ends([each.name_offsets for each in several]),
        indptr=ends([each.indptr for each in several]),
        indices=np.concatenate([each.indices for each in several]),
        values=np.concatenate([each.values for each in several]),
        unlabelled_bytes=np.concatenate([each.unlabelled_bytes for each in several]),
        unlabelled_offsets=ends([each.unlabelled_offsets for each in several]),
    )


def read_annotations(
    file: File, classes: Sequence[str] | None = None, keep_empty: bool = False, difficult: str = "unknown"
) -> MultilabelAnnotations:
    """Read a COCO file (``.json``), a table (``.csv``) or a list of PASCAL VOC (``.txt``).

    Args:
        file: the file to read.
        classes: the class names that the targets' columns must have, in this order.
        keep_empty: whether images without annotation stay.
        difficult: what objects that VOC marks as difficult say of their image: ``unknown`` or ``positive``.

    Raises:
        UserError: the file is missing, malformed or empty, or its classes are not ``classes``.
    """
    suffix = Path(file).suffix.lower()
    if suffix == ".csv":
        return read_csv(file, classes, keep_empty)
    if suffix == ".txt":
        return read_voc(file, classes, keep_empty, difficult)
    if suffix != ".json":
        raise UserError(
            f"{file}: annotations are read from .json (COCO), .csv and .txt (VOC's lists) files, not from '{suffix}'"
        )
    annotations = read_coco(file, keep_empty)
    if classes is None or tuple(classes) == annotations.classes:
        return annotations
    refuse_duplicates(file, "name in `classes`", classes)
    raise UserError(f"{file}: {_difference(annotations.classes, tuple(classes))}")


def of_class_folders(folder: File, classes: Sequence[str] | None = None) -> MultilabelAnnotations:
    """List the images of a folder that holds a folder for each class; see `read_class_folders`.

    Args:
        folder: the folder.
        classes: the class names in the order wanted; without them the sorted names of the folders.

    Raises:
        UserError: as `read_class_folders`.
    """
    names, numbers, found = read_class_folders(folder, classes)
    labels = np.array([np.arange(len(names)), numbers], np.int64)
    return _assemble(folder, names, labels, np.ones(len(names)), found, keep_empty=False)


def read_voc(
    file: File, classes: Sequence[str] | None = None, keep_empty: bool = False, difficult: str = "unknown"
) -> MultilabelAnnotations:
    """Read the objects that PASCAL VOC has of the images in a list.

    An image shows a class when an object says so that is not marked as difficult.

    Args:
        file: a list such as ``ImageSets/Main/train.txt``, see `read_voc_file`.
        classes: the class names in the order wanted; without them the sorted names of the objects.
        keep_empty: whether images without an object stay.
        difficult: of a class of which all objects are marked as difficult, the target is -1 with ``unknown``, as VOC
            leaves them out of its scores, and 1 with ``positive``.

    Raises:
        UserError: a file is missing or malformed, or ``difficult`` has another value.
    """
    if difficult not in DIFFICULT:
        raise UserError(f"`difficult`={difficult!r}: choose {' or '.join(DIFFICULT)}")
    content = read_voc_file(file, classes)
    values = np.where(content.unknown & (difficult == "unknown"), -1, 1)
    labels = np.stack([content.image_of, content.class_of])
    # Of the labels of one image and class the first counts.
    first = np.argsort(-values, kind="stable")
    return _assemble(file, content.names, labels[:, first], values[first], content.classes, keep_empty)


def read_coco(file: File, keep_empty: bool = False) -> MultilabelAnnotations:
    """Read a COCO ``instances`` file: an image shows a class when any annotation says so, crowds included.

    Images keep the order of the file's ``images``; classes are ordered by category id.

    Args:
        file: the JSON file.
        keep_empty: whether images without annotation stay; the published recipes leave them out.

    Raises:
        UserError: the file is missing, malformed, no instances file, contradicts itself, holds no image or lists
            a file name twice.
    """
    content = read_coco_file(file)
    labels = np.stack([content.image_of, content.class_of])
    return _assemble(file, content.names, labels, np.ones(len(content.image_of)), content.classes, keep_empty)


def read_csv(file: File, classes: Sequence[str] | None = None, keep_empty: bool = False) -> MultilabelAnnotations:
    """Read a table of ``path,label;label`` rows, with ``label;label`` of unknown state in a third column.

    The encoding is UTF-8, with or without byte order mark. A first row that begins with ``path`` is a header,
    and then names the third column, if there is one, ``unknown``. Cells with commas are quoted. Labels of the
    third column get the target -1: unverified labels, as OpenImages has them. A row that lists no label in
    either column is an image without annotation.

    Args:
        file: the CSV file.
        classes: the class names in the order wanted; without them the sorted labels of the file.
        keep_empty: whether images without annotation stay.

    Raises:
        UserError: the file is missing or malformed, holds no image, or has a label outside ``classes``.
    """
    refuse_duplicates(file, "name in `classes`", classes or ())
    column = {label: place for place, label in enumerate(classes or ())}
    first: dict[str, tuple[int, str]] = {}
    labels: list[str] = []
    rows: list[int] = []
    values: list[int] = []
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
        if classes is not None and not known | unknown <= column.keys():
            label = min((known | unknown) - column.keys())
            known_labels = ", ".join(classes[:5]) + (", ..." if len(classes) > 5 else "")
            raise UserError(
                f"{file}: line {line} has the label {label!r}, which is not among the {len(classes)} classes "
                f"of the training data: {known_labels}"
            )
        rows += [len(first) - 1] * (len(known) + len(unknown))
        values += [1] * len(known) + [-1] * len(unknown)
        labels += [*known, *unknown]
    if classes is None:
        column = {label: place for place, label in enumerate(sorted(set(labels)))}
    entries = np.array([rows, [column[label] for label in labels]], np.int64)
    return _assemble(file, [path for _, path in first.values()], entries, np.array(values), tuple(column), keep_empty)


def _csv_rows(file: File) -> Iterator[tuple[int, list[str]]]:
    """Give the line number and the cells of each row that is neither header nor blank."""
    reader = csv.reader(io.StringIO(read_text(file), newline=""), strict=True)
    allowed: tuple[int, ...] = (2, 3)
    try:
        for number, cells in enumerate(filter(None, reader)):
            if number == 0 and cells[0].strip() == "path":
                allowed = (len(cells),)
                if len(cells) not in (2, 3) or [cell.strip() for cell in cells[2:]] not in ([], ["unknown"]):
                    raise UserError(f"{file}: the header is `{','.join(cells)}`, not path,label[,unknown]")
                continue
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


def _assemble(
    file: File,
    names: list[str],
    labels: np.ndarray,
    values: np.ndarray,
    classes: tuple[str, ...],
    keep_empty: bool,
) -> MultilabelAnnotations:
    """Sort the labels, given as (image, class) columns, count repeated ones once, leave out empty images."""
    if not names or not classes:
        raise UserError(f"{file}: lists no {'image' if not names else 'class'}")
    codes, first = np.unique(np.ravel_multi_index(labels, (len(names), len(classes))), return_index=True)
    counts = np.bincount(codes // len(classes), minlength=len(names))
    used = np.flatnonzero(counts > 0) if not keep_empty else np.arange(len(names))
    if not len(used):
        raise UserError(f"{file}: no image has an annotation; keep_empty=True keeps images without")
    name_bytes, name_offsets = _encoded([names[place] for place in used])
    left_out = np.setdiff1d(np.arange(len(names)), used, assume_unique=True)
    unlabelled_bytes, unlabelled_offsets = _encoded([names[place] for place in left_out])
    return MultilabelAnnotations(
        classes=classes,
        name_bytes=name_bytes,
        name_offsets=name_offsets,
        indptr=np.concatenate([[0], np.cumsum(counts[used])]).astype(np.int64),
        indices=(codes % len(classes)).astype(np.int32),
        values=values[first].astype(np.int8),
        unlabelled_bytes=unlabelled_bytes,
        unlabelled_offsets=unlabelled_offsets,
    )


def _encoded(names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Put names one after the other as bytes, and say where each begins."""
    encoded = [name.encode() for name in names]
    return np.frombuffer(b"".join(encoded), np.uint8), np.cumsum([0, *map(len, encoded)], dtype=np.int64)


def _decoded(content: np.ndarray, offsets: np.ndarray) -> list[str]:
    text = content.tobytes()
    return [text[start:end].decode() for start, end in pairwise(offsets.tolist())]


def _difference(in_file: tuple[str, ...], expected: tuple[str, ...]) -> str:
    """Say in one line how the file's classes differ from those expected, none of which is there twice."""
    if set(in_file) == set(expected):
        place = [one == other for one, other in zip(in_file, expected, strict=True)].index(False)
        return f"the classes stand in another order: class {place} is '{in_file[place]}', not '{expected[place]}'"
    lacking, foreign = ([n for n in a if n not in b] for a, b in ((expected, in_file), (in_file, expected)))
    parts = [
        f"{verb} {len(names)} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for verb, names in (("lacks", lacking), ("adds", foreign))
        if names
    ]
    return f"its classes are not the {len(expected)} wanted: it {' and '.join(parts)}"
