"""Prediction with joint models: what tells them from detectors."""

from typing import Any

from tresnet_downstream.joint.model import LabelsAndBoxes


def gives_labels_and_boxes(model: Any) -> bool:
    """Whether a network from :func:`load_detector` gives labels beside its boxes."""
    return isinstance(model, LabelsAndBoxes)
