"""Object detection with MMDetection: what it lacks of ours, made known to it by being imported.

The base config ``tresnet_detection.py`` imports it: ``TResNet`` and the ``tresnet://`` names, checked COCO data,
scoring.
"""

from tresnet_downstream.errors import UserError

SET_UP = "pip install -e '.[detection]' ./mmcv_ext"

try:
    import mmcv.ops
    import mmdet
except (ImportError, AssertionError) as error:  # mmdet asserts that mmcv's version is one of its own
    raise UserError(f"detection needs MMDetection and mmcv's operators ({error}); {SET_UP}") from error

from tresnet_downstream import backbones  # noqa: E402
from tresnet_downstream.detection import datasets, metrics  # noqa: E402

__all__ = ["SET_UP", "backbones", "datasets", "metrics", "mmcv", "mmdet"]
