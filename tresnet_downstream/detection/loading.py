"""MMDetection's loading of pictures, in a checked form."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from mmcv.transforms import LoadImageFromFile

from tresnet_downstream.pictures import BadImageError, read_image

_LOADERS = ("LoadImageFromFile", "mmcv.LoadImageFromFile", "mmdet.LoadImageFromFile", LoadImageFromFile)
_LOCAL = {"backend": "local"}
# In the record of a picture that is not scored: why.
UNREADABLE = "unreadable"


class WrongSizeError(BadImageError):
    """An image of another size than its annotations were made for."""


class LoadCheckedImage(LoadImageFromFile):
    """MMDetection's loading of a picture, by `read_image`: a damaged or oversized file is refused, not filled up.

    It takes the place of MMDetection's step in `CocoBoxes`, where that reads local files as 8-bit colours.

    Args:
        any_size: whether a picture may have another size than its record says.
        **kwargs: see MMDetection.
    """

    def __init__(self, any_size: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.any_size = any_size

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Adds ``img`` (BGR, of shape (height, width, 3)) and its sizes; black for a record that is ``unreadable``.

        Raises:
            BadImageError: as `read_image`, or if the picture has another size than its record says.
        """
        # None of an image that no file of boxes lists.
        size = results["height"], results["width"]
        image = np.zeros((*size, 3), np.uint8) if results.get(UNREADABLE) else read_image(results["img_path"])
        if size[0] is not None and image.shape[:2] != size and not self.any_size:
            (height, width), path = image.shape[:2], results["img_path"]
            raise WrongSizeError(
                f"{path}: is {width} x {height}, upright, and {size[1]} x {size[0]} by the annotation file, which "
                "boxes are measured in; tresnet check names all such pictures, and trust_boxes=True takes them "
                "as they are"
            )
        image = np.ascontiguousarray(image[:, :, ::-1])
        results["img"] = image.astype(np.float32) if self.to_float32 else image
        results["img_shape"] = results["ori_shape"] = image.shape[:2]
        return results


def with_our_reading(step: Any, any_size: bool = False) -> Any:
    """A step of a pipeline; ours, if it is one of MMDetection that reads local files as 8-bit colours."""
    if not isinstance(step, Mapping) or step.get("type") not in _LOADERS:
        return step
    options = {key: value for key, value in step.items() if key not in ("type", "_scope_") and value is not None}
    is_usual = options.get("color_type", "color") == "color" and options.get("imdecode_backend", "cv2") == "cv2"
    backend = options.pop("backend_args", None) or options.pop("file_client_args", None)
    if not is_usual or options.get("ignore_empty") or (backend or _LOCAL) != _LOCAL:
        return step
    return LoadCheckedImage(**options, any_size=any_size)
