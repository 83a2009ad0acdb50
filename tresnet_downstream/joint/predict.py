"""Prediction with joint models."""

from tresnet_downstream.joint.model import LabelsAndBoxes


def gives_labels_and_boxes(model: object) -> bool:
    """Whether a network from :func:`load_detector` predicts labels and boxes, not only boxes."""
    return isinstance(model, LabelsAndBoxes)
