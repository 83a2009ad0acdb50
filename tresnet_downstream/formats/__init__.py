"""Annotation formats. Each is a module that reads files into `LabelledImages`.

To add a format, write a module such as ``voc.py`` with an entry in `FORMATS`, or register a reader of your own::

    from tresnet_downstream import formats

    formats.FORMATS[".lst"] = formats.Format("my lists", read_my_list)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from tresnet_downstream.errors import UserError
from tresnet_downstream.formats.class_folders import read_class_folders
from tresnet_downstream.formats.coco import read_coco_classes, read_coco_file
from tresnet_downstream.formats.labelled_images import LabelledImages
from tresnet_downstream.formats.table import read_table
from tresnet_downstream.formats.voc import read_voc_file
from tresnet_downstream.text_files import File, refuse_duplicates, refuse_repeated_images

__all__ = ["FORMATS", "Format", "LabelledImages", "format_of", "read_class_folders", "read_classes", "read_file"]


class Reader(Protocol):
    """A function that reads an annotation file: ``reader(file, classes, others)``.

    ``classes`` are the class names in order, or None for those of the file. ``others`` allows further classes. If the
    file is malformed, the function raises `UserError`.
    """

    def __call__(
        self, file: File, classes: Sequence[str] | None = None, others: bool = False
    ) -> LabelledImages: ...  # pragma: no cover


@dataclass(frozen=True)
class Format:
    """An annotation format.

    Attributes:
        name: name in messages.
        read: a function that reads a file.
        read_unlabelled: a function that reads a file of images without annotations; None if the format has no such
            files.
        read_classes: a function that reads only the class names, if this is faster; None otherwise.
        has_boxes: whether its `LabelledImages` have a ``content`` with boxes, so that detectors can be trained.
        stands_alone: whether the file contains all annotations, so that a cache is valid until the file changes.
    """

    name: str
    read: Reader
    read_unlabelled: Callable[[File], LabelledImages] | None = None
    read_classes: Callable[[File], tuple[str, ...]] | None = None
    has_boxes: bool = False
    stands_alone: bool = False


FORMATS = {
    ".json": Format(
        "COCO", read_coco_file, partial(read_coco_file, labelled=False), read_coco_classes, True, stands_alone=True
    ),
    ".csv": Format("tables", read_table, stands_alone=True),
    ".txt": Format("PASCAL VOC's lists", read_voc_file, has_boxes=True),
}


def format_of(file: File) -> Format:
    """The format of a file, by its suffix.

    Raises:
        UserError: if the suffix is not in `FORMATS`.

    Examples:
        >>> format_of("annotations/instances_val2014.json").name
        'COCO'
    """
    suffix = Path(file).suffix.lower()
    if suffix not in FORMATS:
        known = ", ".join(f"{suffix} ({known_format.name})" for suffix, known_format in FORMATS.items())
        raise UserError(f"{file}: the suffix '{suffix}' is not supported; annotation files are {known}")
    return FORMATS[suffix]


def read_file(file: File, classes: Sequence[str] | None = None, others: bool = False) -> LabelledImages:
    """Reads an annotation file of any format.

    Args:
        file: a file with a suffix of `FORMATS`.
        classes: class names, in order; None for those of the file.
        others: whether the file may have further classes.

    Raises:
        UserError: if the file is missing or malformed, of an unknown format, or has other classes.

    Examples:
        >>> _ = Path("labels.csv").write_text("cat.jpg,cat;pet")
        >>> images = read_file("labels.csv")
        >>> images.names, images.classes
        (['cat.jpg'], ('cat', 'pet'))
    """
    images = format_of(file).read(file, classes, others)
    _require_consistent(file, images)
    return images


def _require_consistent(file: File, images: LabelledImages) -> None:
    """Checks the result of a reader, which may be a user's.

    Raises:
        UserError: if an array has another length, type or range than `LabelledImages` requires, or if an image is
            listed twice.
    """
    refuse_repeated_images(file, images.names)
    refuse_duplicates(file, "class", images.classes)
    count = len(images.image_of)
    for name, referenced in (("image_of", images.names), ("class_of", images.classes)):
        numbers = getattr(images, name)
        if numbers.dtype.kind not in "iu" or numbers.shape != (count,):
            raise UserError(
                f"{file}: its reader returns `{name}` as {numbers.dtype}{list(numbers.shape)}, not int64[{count}]"
            )
        if count and not (numbers.min() >= 0 and numbers.max() < len(referenced)):
            raise UserError(
                f"{file}: its reader returns numbers in `{name}` that are not from 0 to {len(referenced) - 1}"
            )
    for name in ("unknown", "difficult"):
        if (flags := getattr(images, name)).shape != (count,):
            raise UserError(f"{file}: its reader returns `{name}` with {flags.size} entries for {count} annotations")


def read_classes(file: File) -> tuple[str, ...]:
    """Reads the class names of an annotation file, in their order.

    Raises:
        UserError: as `read_file`.

    Examples:
        >>> _ = Path("labels.csv").write_text("cat.jpg,cat;pet")
        >>> read_classes("labels.csv")
        ('cat', 'pet')
    """
    file_format = format_of(file)
    return file_format.read_classes(file) if file_format.read_classes else file_format.read(file).classes
