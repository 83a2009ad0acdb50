"""Loading of images in MMDetection's pipelines, with checks."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypedDict

import numpy as np
from mmcv.transforms import LoadImageFromFile

from tresnet_downstream.images import BadImageError, read_image

_LOADERS = ("LoadImageFromFile", "mmcv.LoadImageFromFile", "mmdet.LoadImageFromFile", LoadImageFromFile)
_LOCAL = {"backend": "local"}
# Key of the reason in the record of an image that is not scored.
UNREADABLE: Final = "unreadable"


class ImageRecord(TypedDict, total=False):
    """The record of an image in a data set of MMDetection.

    Attributes:
        img_id: id of the image.
        img_path: path of the file.
        height: height in pixels; None if it is unknown.
        width: width in pixels; None if it is unknown.
        instances: the objects of the image.
        unreadable: the reason why the image is not scored.
        has_boxes, label_row: whether the image has boxes, and its row in the label file; only of joint models.
    """

    img_id: int
    img_path: str
    height: int | None
    width: int | None
    instances: Sequence[Mapping[str, object]]
    unreadable: str
    has_boxes: bool
    label_row: int


class WrongSizeError(BadImageError):
    """An image whose size differs from the size in the annotation file."""


class LoadCheckedImage(LoadImageFromFile):
    """MMDetection's loading step with `read_image`, which refuses damaged and oversized files.

    In `CocoBoxes` it replaces MMDetection's step if that reads local files as 8-bit colour images.

    Args:
        any_size: whether the size of an image may differ from its record.
        **kwargs: see MMDetection.
    """

    def __init__(self, any_size: bool = False, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.any_size = any_size

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Adds ``img`` (BGR, of shape (height, width, 3)) and its sizes; black if the record has ``unreadable``.

        Raises:
            BadImageError: as `read_image`, and if the image's size differs from its record.
        """
        # None for an image that is not in a file of boxes.
        size = results["height"], results["width"]
        image = np.zeros((*size, 3), np.uint8) if results.get(UNREADABLE) else read_image(results["img_path"])
        if size[0] is not None and image.shape[:2] != size and not self.any_size:
            (height, width), path = image.shape[:2], results["img_path"]
            raise WrongSizeError(
                f"{path}: is {width} x {height}, upright, but {size[1]} x {size[0]} in the annotation file, so its "
                "boxes may be wrong; tresnet check lists all such images, and trust_boxes=True accepts them"
            )
        image = np.ascontiguousarray(image[:, :, ::-1])
        results["img"] = image.astype(np.float32) if self.to_float32 else image
        results["img_shape"] = results["ori_shape"] = image.shape[:2]
        return results


def with_our_reading(step: object, any_size: bool = False) -> object:
    """Replaces a step of a pipeline by `LoadCheckedImage` if it reads local files as 8-bit colour images."""
    if not isinstance(step, Mapping) or step.get("type") not in _LOADERS:
        return step
    options = {key: value for key, value in step.items() if key not in ("type", "_scope_") and value is not None}
    is_usual = options.get("color_type", "color") == "color" and options.get("imdecode_backend", "cv2") == "cv2"
    backend = options.pop("backend_args", None) or options.pop("file_client_args", None)
    if not is_usual or options.get("ignore_empty") or (backend or _LOCAL) != _LOCAL:
        return step
    return LoadCheckedImage(**options, any_size=any_size)
