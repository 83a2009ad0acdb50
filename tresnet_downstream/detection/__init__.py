"""Object detection with MMDetection.

Importing this package registers ``TResNet``, the ``tresnet://`` names, the checked COCO data set and the metric in
MMDetection. The base config ``tresnet_detection.py`` imports it.
"""

from tresnet_downstream.errors import UserError
from tresnet_downstream.running.config import DETECTION_SET_UP

try:
    import mmcv.ops
    import mmdet
except (ImportError, AssertionError) as error:  # mmdet asserts that it supports mmcv's version
    raise UserError(f"detection needs MMDetection and mmcv's operators ({error}); {DETECTION_SET_UP}") from error

from tresnet_downstream import backbones
from tresnet_downstream.detection import datasets, metrics

__all__ = ["backbones", "datasets", "metrics", "mmcv", "mmdet"]
