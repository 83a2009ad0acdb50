"""Annotation formats that both tasks read, a file for each."""

from pathlib import Path

from tresnet_downstream.coco_files import File, read_coco_classes
from tresnet_downstream.formats.voc import read_voc_file


def is_voc_list(file: File) -> bool:
    """Whether an annotation file is a list of PASCAL VOC, by its suffix ``.txt``."""
    return Path(file).suffix.lower() == ".txt"


def read_classes(file: File) -> tuple[str, ...]:
    """The classes of a COCO file or of VOC's list, in their order.

    Raises:
        UserError: the file cannot be read, or is of another form.
    """
    return read_voc_file(file).classes if is_voc_list(file) else read_coco_classes(file)
