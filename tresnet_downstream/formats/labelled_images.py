"""What every annotation format is read into."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """The images of an annotation file, and which class each of its M annotations gives to which image.

    Attributes:
        names: the images' file names, in the order of the file.
        classes: the names of the classes, in the order that numbers them.
        image_of: for each annotation the position of its image in ``names``, int64 of shape (M,).
        class_of: for each annotation the position of its class in ``classes``, int64 of shape (M,).
        unknown: whether each annotation says that nobody has checked whether the image shows the class, bool of
            shape (M,).
        difficult: whether each annotation is of an object that is hard to recognise, as PASCAL VOC marks them, bool
            of shape (M,).
        content: the same with boxes, in the form of a COCO ``instances`` file: ``images`` with ``id``, ``file_name``,
            ``width`` and ``height``, ``annotations`` with ``bbox`` as ``[left, top, width, height]`` in pixels from 0,
            and ``categories``. Empty for a format without boxes.
    """

    names: list[str]
    classes: tuple[str, ...]
    image_of: np.ndarray
    class_of: np.ndarray
    unknown: np.ndarray
    difficult: np.ndarray
    content: dict[str, Any] = field(default_factory=dict)
