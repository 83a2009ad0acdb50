"""The images and annotations of a file, independent of its format."""

from dataclasses import dataclass, field

import numpy as np

from tresnet_downstream.coco_records import CocoInstances


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """The images of an annotation file and its M annotations, each of which assigns a class to an image.

    Attributes:
        names: file names of the images, in the order of the file.
        classes: class names, in the order of the class indices.
        image_of: for each annotation, the index of its image in ``names``, int64 of shape (M,).
        class_of: for each annotation, the index of its class in ``classes``, int64 of shape (M,).
        unknown: for each annotation, whether it says that the class is unverified in the image, bool of shape (M,).
        difficult: for each annotation, whether its object is marked as difficult, as in PASCAL VOC, bool of shape (M,).
        content: the annotations with boxes in the form of a COCO ``instances`` file: ``images`` with ``id``,
            ``file_name``, ``width`` and ``height``; ``annotations`` with ``bbox`` as ``[left, top, width, height]`` in
            pixels from 0; and ``categories``. Empty for a format without boxes.

    Examples:
        >>> known = np.zeros(2, bool)
        >>> images = LabelledImages(["a.jpg"], ("cat", "dog"), np.array([0, 0]), np.array([0, 1]), known, known)
        >>> [images.classes[index] for index in images.class_of]
        ['cat', 'dog']
    """

    names: list[str]
    classes: tuple[str, ...]
    image_of: np.ndarray
    class_of: np.ndarray
    unknown: np.ndarray
    difficult: np.ndarray
    content: CocoInstances = field(default_factory=CocoInstances)
