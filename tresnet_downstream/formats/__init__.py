"""Annotation formats, a file for each; all are read into `LabelledImages`.

A further format is a file such as ``voc.py`` with an entry in `FORMATS`, or one of your own::

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
    """Reads an annotation file strictly: ``reader(file, classes, others)``.

    ``classes`` are the names in the order wanted, None for those of the file; ``others`` allows further ones. What is
    wrong with the file raises `UserError` in one line.
    """

    def __call__(
        self, file: File, classes: Sequence[str] | None = None, others: bool = False
    ) -> LabelledImages: ...  # pragma: no cover


@dataclass(frozen=True)
class Format:
    """An annotation format.

    Attributes:
        name: what messages call it.
        read: reads a file.
        read_unlabelled: the same for images to predict, which the file lists without annotations; None if it cannot.
        read_classes: reads the names of the classes alone, where that is quicker.
        has_boxes: whether detectors can be trained on it: its `LabelledImages` have a ``content``.
        stands_alone: whether all that is read is in the one file, so that a cache of it holds until the file changes.
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
        UserError: for another suffix than those of `FORMATS`.
    """
    suffix = Path(file).suffix.lower()
    if suffix not in FORMATS:
        known = ", ".join(f"{each} ({one.name})" for each, one in FORMATS.items())
        raise UserError(f"{file}: annotations are read from files of {known}, not of '{suffix}'")
    return FORMATS[suffix]


def read_file(file: File, classes: Sequence[str] | None = None, others: bool = False) -> LabelledImages:
    """Reads an annotation file of any format.

    Args:
        file: a file with a suffix of `FORMATS`.
        classes: the names in the order wanted; without them those of the file.
        others: whether the file may have further classes.

    Raises:
        UserError: the file is missing or malformed, of no known format, or has other classes.
    """
    images = format_of(file).read(file, classes, others)
    _require_consistent(file, images)
    return images


def _require_consistent(file: File, images: LabelledImages) -> None:
    """Checks what a reader gives, which may be a user's own.

    Raises:
        UserError: arrays are of other lengths, types or numbers than `LabelledImages` says, or an image is there twice.
    """
    refuse_repeated_images(file, images.names)
    refuse_duplicates(file, "class", images.classes)
    count = len(images.image_of)
    for name, of in (("image_of", images.names), ("class_of", images.classes)):
        numbers = getattr(images, name)
        if numbers.dtype.kind not in "iu" or numbers.shape != (count,):
            raise UserError(
                f"{file}: its reader gives `{name}` as {numbers.dtype}{list(numbers.shape)}, not int64[{count}]"
            )
        if count and not (numbers.min() >= 0 and numbers.max() < len(of)):
            raise UserError(f"{file}: its reader gives numbers in `{name}` that are not from 0 to {len(of) - 1}")
    for name in ("unknown", "difficult"):
        if (flags := getattr(images, name)).shape != (count,):
            raise UserError(f"{file}: its reader gives `{name}` with {flags.size} entries for {count} annotations")


def read_classes(file: File) -> tuple[str, ...]:
    """The classes of an annotation file, in their order.

    Raises:
        UserError: as `read_file`.
    """
    form = format_of(file)
    return form.read_classes(file) if form.read_classes else form.read(file).classes
