"""Types of the records in COCO's files: instances (images, categories, annotations) and results (detections).

They describe files that were checked. Annotations and detections have further keys in some data sets; the types name
the keys that this package reads.
"""

from collections.abc import Sequence
from typing import TypedDict


class RunLengths(TypedDict):
    """A mask by run lengths, in column order.

    Attributes:
        size: height and width of the image.
        counts: lengths of runs of 0 and 1 in turn, or COCO's compressed string of them.
    """

    size: Sequence[int]
    counts: Sequence[int] | str | bytes


Segmentation = RunLengths | Sequence[Sequence[float]]
"""A mask: run lengths, or polygons of ``[x, y, x, y, ...]``."""


class CocoImage(TypedDict, total=False):
    """An image of a COCO file.

    Attributes:
        id: id of the image.
        file_name: path of the file, relative to the image folder.
        width: width in pixels.
        height: height in pixels.
    """

    id: int
    file_name: str
    width: int
    height: int


class CocoCategory(TypedDict, total=False):
    """A class of a COCO file.

    Attributes:
        id: id of the class.
        name: name of the class.
    """

    id: int
    name: str


class CocoAnnotation(TypedDict, total=False):
    """An object of a COCO file.

    Attributes:
        id: id of the annotation.
        image_id: id of its image.
        category_id: id of its class.
        bbox: left, top, width and height in pixels.
        area: area in pixels.
        iscrowd: 1 for a crowd of objects, 0 for a single object.
        segmentation: mask of the object.
        difficult: 1 for an object that PASCAL VOC marks as difficult.
    """

    id: int
    image_id: int
    category_id: int
    bbox: Sequence[float]
    area: float
    iscrowd: int
    segmentation: Segmentation
    difficult: int


class CocoDetection(TypedDict, total=False):
    """A detection in COCO's results format.

    Attributes:
        image_id: id of the image.
        category_id: id of the predicted class.
        score: score of the detection, from 0 to 1.
        bbox: left, top, width and height in pixels.
        segmentation: mask of the detection, by run lengths.
    """

    image_id: int
    category_id: int
    score: float
    bbox: Sequence[float]
    segmentation: RunLengths


class CocoInstances(TypedDict, total=False):
    """The content of a COCO ``instances`` file.

    Attributes:
        images: the images.
        annotations: the objects.
        categories: the classes.
    """

    images: Sequence[CocoImage]
    annotations: Sequence[CocoAnnotation]
    categories: Sequence[CocoCategory]
