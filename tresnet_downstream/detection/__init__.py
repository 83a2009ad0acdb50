"""Object detection with MMDetection: what it lacks of ours, made known to it by being imported.

The base config ``tresnet_detection.py`` imports it: ``TResNet`` and the ``tresnet://`` names, checked COCO data,
scoring.
"""

from tresnet_downstream.errors import UserError
from tresnet_downstream.running.config import DETECTION_SET_UP

try:
    import mmcv.ops
    import mmdet
except (ImportError, AssertionError) as error:  # mmdet asserts that mmcv's version is one of its own
    raise UserError(f"detection needs MMDetection and mmcv's operators ({error}); {DETECTION_SET_UP}") from error

from tresnet_downstream import backbones
from tresnet_downstream.detection import datasets, metrics

__all__ = ["backbones", "datasets", "metrics", "mmcv", "mmdet"]
