"""Labels and boxes in one pass: one backbone, a head of labels and a detector, trained and scored together.

Importing it registers :class:`LabelsAndBoxes`, the runner and the data of such models.
"""

from tresnet_downstream import detection  # noqa: F401 - says what is missing, if MMDetection is
from tresnet_downstream.joint import data, metrics, model, runner

__all__ = ["data", "metrics", "model", "runner"]
