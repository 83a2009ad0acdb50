"""Joint models, which predict labels and boxes: a detector, and a classification head on its backbone.

Importing this package registers :class:`LabelsAndBoxes`, and the runner, data sets and metrics of joint models.
"""

from tresnet_downstream import detection  # noqa: F401 - raises a clear error if MMDetection is not installed
from tresnet_downstream.joint import data, metrics, model, runner

__all__ = ["data", "metrics", "model", "runner"]
