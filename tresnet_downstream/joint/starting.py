"""Initialises the parts of a joint model from the files of a classifier, a detector, or both."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmdet.models.detectors import BaseDetector
from torch import Tensor

from tresnet_downstream.classification.model_loading import load_model
from tresnet_downstream.detection.predict import load_detector
from tresnet_downstream.errors import UserError
from tresnet_downstream.weights.pretrained import require_match

if TYPE_CHECKING:
    from tresnet_downstream.joint.model import LabelsAndBoxes


def start_from(model: "LabelsAndBoxes", labels: str | Path | None = None, boxes: str | Path | None = None) -> None:
    """Loads the weights of the parts. A part then has the outputs of its file, for the same pixels.

    Args:
        model: a :class:`LabelsAndBoxes`.
        labels: a file of a classifier, for the backbone and the label head; None to load none.
        boxes: a checkpoint of a detector, for the backbone and the detector; None to load none.

    Raises:
        UserError: if a file has another network or other classes, or if the backbones of both files differ.
    """
    classifier = None if labels is None else load_model(labels)
    detector: BaseDetector | None = None if boxes is None else load_detector(boxes)
    if classifier is not None and detector is not None:
        _require_same_backbone(classifier.backbone.state_dict(), detector.backbone.state_dict(), labels, boxes)
    if classifier is not None and labels is not None:
        backbone = model.detector.backbone
        own = set(backbone.state_dict())
        # The backbone of a detector may lack the last layers of the classifier's backbone.
        weights = {name: tensor for name, tensor in classifier.backbone.state_dict().items() if name in own}
        require_match(backbone, weights, labels)
        require_match(model.label_head, classifier.head.state_dict(), labels)
        backbone.load_state_dict(weights)
        model.label_head.load_state_dict(classifier.head.state_dict())
    if detector is not None and boxes is not None:
        require_match(model.detector, detector.state_dict(), boxes)
        model.detector.load_state_dict(detector.state_dict())


def classes_of(part: str, path: str | Path) -> tuple[str, ...]:
    """The class names in the file that a part starts from."""
    model: Any = load_model(path) if part == "labels" else load_detector(path)
    return tuple(model.classes or ())


def _require_same_backbone(
    of_labels: Mapping[str, Tensor], of_boxes: Mapping[str, Tensor], labels: str | Path | None, boxes: str | Path | None
) -> None:
    shared = of_labels.keys() & of_boxes.keys()
    if not shared or any(not torch.equal(of_labels[name], of_boxes[name]) for name in shared):
        raise UserError(
            f"{labels} and {boxes}: their backbones have different weights, but a joint model has one backbone; start "
            "from one of them"
        )
