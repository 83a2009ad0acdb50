"""Reads the model to share from its checkpoint: weights, description, and its form for timm."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tresnet_downstream.classification.descriptions import without_paths
from tresnet_downstream.classification.weight_file import WeightFile, not_finite
from tresnet_downstream.classification.weight_file_reading import read_weight_file
from tresnet_downstream.deployment.sharing.timm_form import TimmForm, timm_form
from tresnet_downstream.errors import UserError
from tresnet_downstream.running.checkpoints import plain
from tresnet_downstream.weights.formats import OURS
from tresnet_downstream.weights.reading import class_names, read_checkpoint, stored_at, unwrap
from tresnet_downstream.weights.shared import CLASSIFIER, DETECTOR
from tresnet_downstream.wording import first_of

# Keys of a checkpoint's ``meta`` that describe the training; the model card lists them.
_OF_TRAINING = ("epoch", "step", "run")


@dataclass(frozen=True)
class SharedModel:
    """A model to share.

    Attributes:
        path: path of the checkpoint.
        kind: ``classifier`` or ``detector``.
        tensors: the weights, by the names under which they are written.
        names: the naming scheme of ``tensors``: ``release``, ``timm`` or ``tresnet``.
        meta: the description of the model, as in ``meta`` of a checkpoint of this toolkit.
        weights: ``raw`` or ``averaged``.
        classes: names of the classes.
        training: ``epoch``, ``step`` and the settings of the training, as far as the checkpoint has them.
        score: the validation scores of these weights; empty if the checkpoint has none.
        file: the weight file of a classifier, with this toolkit's parameter names; None for a detector.
        timm: the classifier in the form that timm loads; or, if timm does not have the network, the reason as text.
    """

    path: Path
    kind: str
    tensors: Mapping[str, Tensor]
    names: str
    meta: dict[str, Any]
    weights: str
    classes: tuple[str, ...]
    training: Mapping[str, object]
    score: Mapping[str, Any]
    file: WeightFile | None
    timm: TimmForm | str


def shared_model(path: Path, weights: str | None) -> SharedModel:
    """Reads the checkpoint of a classifier or a detector.

    Args:
        path: path of the checkpoint.
        weights: ``raw`` or ``averaged``. None takes the weights with the better validation score.

    Raises:
        UserError: if :func:`read_weight_file` raises it, if the network has no head, if a detector does not name its
            classes, or if ``weights`` is ``averaged`` for a detector.

    Examples:
        >>> import torch
        >>> from tresnet_downstream.classification import ImageClassifier
        >>> backbone = {"type": "TResNet", "layers": (1, 1, 1, 1), "width": 0.25}
        >>> classifier = ImageClassifier(backbone, {"type": "LinearHead", "num_classes": 3})
        >>> torch.save(classifier.state_dict(), "classifier.pth")
        >>> model = shared_model(Path("classifier.pth"), weights=None)
        >>> model.kind, model.weights, model.classes
        ('classifier', 'raw', ('0', '1', '2'))
    """
    checkpoint = read_checkpoint(path)
    training = {key: value for key in _OF_TRAINING if (value := stored_at(checkpoint, "meta", key)) is not None}
    stored = checkpoint.get("score")
    score: Mapping[str, Any] = stored if isinstance(stored, Mapping) else {}
    if isinstance(detector := stored_at(checkpoint, "meta", "model", "detector"), Mapping):
        return _detector(path, checkpoint, detector, weights, training)
    file = read_weight_file(path, weights=weights)
    if bad := not_finite(file.state_dict):
        raise UserError(f"{path}: has values that are not finite, in {first_of(bad)}; share another checkpoint")
    if file.head is None:
        raise UserError(f"{path}: is a backbone without a head; only classifiers and detectors can be shared")
    form = timm_form(file)
    described = stored_at(checkpoint, "meta", "model")
    labels = described.get("labels") if isinstance(described, Mapping) else None
    meta = {
        "model": {"classifier": file.classifier, "pipeline": list(file.pipeline), "labels": labels or {}},
        "dataset_meta": {"classes": list(file.classes)},
    }
    return SharedModel(
        path=path,
        kind=CLASSIFIER,
        tensors=file.state_dict if isinstance(form, str) else form.tensors,
        names=OURS if isinstance(form, str) else form.names,
        meta=without_paths(plain(meta)),
        weights=file.weights,
        classes=file.classes,
        training=training,
        score=score,
        file=file,
        timm=form,
    )


def _detector(
    path: Path,
    checkpoint: Mapping[str, object],
    detector: Mapping[str, object],
    weights: str | None,
    training: Mapping[str, object],
) -> SharedModel:
    if weights == "averaged":
        raise UserError(f"{path}: `weights` averaged: a detector has one set of weights; omit `weights`")
    classes = class_names(checkpoint, path)
    if not classes:
        raise UserError(f"{path}: does not name its classes, so it cannot be shared")
    meta = {
        "model": {"detector": detector, "pipeline": stored_at(checkpoint, "meta", "model", "pipeline") or []},
        "dataset_meta": {"classes": list(classes)},
    }
    return SharedModel(
        path=path,
        kind=DETECTOR,
        tensors=unwrap(checkpoint, "raw", path)[1],
        names=OURS,
        meta=without_paths(plain(meta)),
        weights="raw",
        classes=classes,
        training=training,
        score={},
        file=None,
        timm="timm has no detectors",
    )
