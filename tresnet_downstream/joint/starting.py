"""The start of a joint model's parts: from a classifier's file, from a detector's, or from both."""

from pathlib import Path
from typing import Any

import torch

from tresnet_downstream.classification.model_loading import load_model
from tresnet_downstream.detection.predict import load_detector
from tresnet_downstream.errors import UserError
from tresnet_downstream.weights.pretrained import require_match


def start_from(model: Any, labels: str | Path | None = None, boxes: str | Path | None = None) -> None:
    """Loads the weights of a part; its outputs are then those of its file, for images of the same pixels.

    Args:
        model: a :class:`LabelsAndBoxes`.
        labels: a file of a classifier, for the backbone and the head of labels.
        boxes: a checkpoint of a detector, for the backbone and the detector.

    Raises:
        UserError: a file is of another network or other classes, or the two have backbones of different weights.
    """
    classifier: Any = None if labels is None else load_model(labels)
    detector: Any = None if boxes is None else load_detector(boxes)
    if classifier is not None and detector is not None:
        _require_same_backbone(classifier.backbone.state_dict(), detector.backbone.state_dict(), labels, boxes)
    if classifier is not None and labels is not None:
        own = set(model.detector.backbone.state_dict())
        # A detector's backbone may stop before the classifier's last parts.
        weights = {name: tensor for name, tensor in classifier.backbone.state_dict().items() if name in own}
        require_match(model.detector.backbone, weights, labels)
        require_match(model.label_head, classifier.head.state_dict(), labels)
        model.detector.backbone.load_state_dict(weights)
        model.label_head.load_state_dict(classifier.head.state_dict())
    if detector is not None and boxes is not None:
        require_match(model.detector, detector.state_dict(), boxes)
        model.detector.load_state_dict(detector.state_dict())


def classes_of(part: str, path: str | Path) -> tuple[str, ...]:
    """The names of the classes in the file that a part starts from."""
    model: Any = load_model(path) if part == "labels" else load_detector(path)
    return tuple(model.classes or ())


def _require_same_backbone(of_labels: Any, of_boxes: Any, labels: Any, boxes: Any) -> None:
    shared = of_labels.keys() & of_boxes.keys()
    if not shared or any(not torch.equal(of_labels[name], of_boxes[name]) for name in shared):
        raise UserError(
            f"{labels} and {boxes}: their backbones have different weights, and a joint model has one backbone; start "
            "from one of them"
        )
