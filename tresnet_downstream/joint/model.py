"""Labels and boxes in one pass: a detector of MMDetection with a head of labels on its backbone."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS as DETECTORS
from mmengine.config import ConfigDict
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from tresnet_downstream.classification.classifier import probabilities_of
from tresnet_downstream.errors import NonFiniteLossError, UserError
from tresnet_downstream.registry import MODELS, SCOPE

PARTS = ("labels", "boxes")
LEARNED = "learned"


@MODELS.register_module()
class LabelsAndBoxes(BaseModel):
    """A detector, and a head that predicts the labels of the whole image from the last feature map of its backbone.

    The backbone runs once for both. The detector is called as it is, so its boxes are those of the detector alone, bit
    for bit. The head of labels sees the positions of the image and not the padding around it.

    In training, an image's labels are those of its file of labels (:class:`LabelledBoxes`); without one, the classes of
    the boxes that its augmentation leaves.

    Args:
        detector: config of a detector of MMDetection.
        label_head: config of a head of :mod:`tresnet_downstream.classification`, or of your own, whose ``forward``
            takes ``features`` (N x C x H x W) and ``mask`` (N x H x W, True at positions of the image; None where
            there is no padding).
        label_loss: config of a multi-label loss; a sum over the images is divided by their number. None for a model
            that is not trained.
        loss_weights: factors of the two losses, ``dict(labels=1.0, boxes=1.0)``; or ``'learned'``: each loss L is
            ``L / (2 v) + log(v) / 2`` with a trained variance v (Kendall et al., 2018, arXiv:1705.07115).
        rescore: ``dict(scale=..., shift=...)`` multiplies the score of each box by the probability of its label,
            ``sigmoid(scale * logit + shift)``, as ``tresnet calibrate`` fits it; None leaves the scores as they are.
        init_cfg: ``dict(type='Parts', labels=FILE, boxes=FILE)`` starts the head of labels from a classifier's file,
            and the detector from a detector's; each brings its backbone.

    Raises:
        UserError: for a head that does not take ``mask``, and for weights and other arguments that make no sense.
    """

    def __init__(
        self,
        detector: Mapping[str, Any],
        label_head: Mapping[str, Any],
        label_loss: Mapping[str, Any] | None = None,
        loss_weights: Mapping[str, float] | str | None = None,
        rescore: Mapping[str, float] | None = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        built: Any = DETECTORS.build(ConfigDict(detector))
        if not isinstance(built, BaseDetector):
            raise UserError(f"model: {type(built).__name__} is no detector of its own; labels stand beside one alone")
        super().__init__(data_preprocessor=built.data_preprocessor)
        self.detector = built
        self.parts_to_start_from = dict(init_cfg or {})
        with DefaultScope.overwrite_default_scope(SCOPE):
            self.label_head: Any = MODELS.build({"in_channels": _channels_of(built.backbone), **label_head})
            self.label_loss: Any = None if label_loss is None else MODELS.build(dict(label_loss))
        if "mask" not in inspect.signature(self.label_head.forward).parameters:
            raise UserError(
                f"labels.head: forward of {type(self.label_head).__name__} must take `mask`, N x H x W: True at "
                "positions of the image, or None"
            )
        self.loss_weights = _checked_weights(loss_weights)
        self.log_variances = nn.Parameter(torch.zeros(len(PARTS))) if loss_weights == LEARNED else None
        self.rescore = _checked_rescoring(rescore)

    def __getattr__(self, name: str) -> Any:
        """Attributes of the detector, for hooks of MMDetection, which look for its parts."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            modules = self.__dict__.get("_modules", {})
            if "detector" not in modules:
                raise
            return getattr(modules["detector"], name)

    def init_weights(self) -> None:
        """Initialises detector and head of labels, and starts parts from files where ``init_cfg`` names them."""
        from tresnet_downstream.joint.starting import start_from

        self.detector.init_weights()
        if hasattr(self.label_head, "init_weights"):
            self.label_head.init_weights()
        self._is_init = True
        start_from(self, **{part: self.parts_to_start_from.get(part) for part in PARTS})

    def forward(self, inputs: Tensor, data_samples: Sequence[Any] | None = None, mode: str = "tensor") -> Any:
        """Losses (``mode='loss'``), data samples with what is predicted (``'predict'``), or raw outputs (``'tensor'``).

        Args:
            inputs: N x 3 x H x W, as the data preprocessor gives them.
            data_samples: MMDetection's, N of them.
            mode: as MMEngine's runner asks.

        Returns:
            for ``loss`` a dict; for ``predict`` the detector's data samples, each with ``label_probabilities``, float32
            of shape (C,); for ``tensor`` what the detector gives, and the logits, N x C.

        Raises:
            NonFiniteLossError: for a loss of labels that is not finite; names the images.
        """
        if mode == "loss":
            return self._losses(inputs, data_samples or ())
        with _last_output(self.detector.backbone) as kept:
            outputs = self.detector(inputs, data_samples, mode=mode)
        logits = self.logits(kept[0], data_samples)
        if mode == "tensor":
            return outputs, logits
        for sample, row in zip(outputs, logits, strict=True):
            sample.label_probabilities = probabilities_of(row[None], multi_label=True)[0]
            if self.rescore is not None:
                calibrated = torch.sigmoid(self.rescore["scale"] * row.float() + self.rescore["shift"])
                sample.pred_instances.scores = sample.pred_instances.scores * calibrated[sample.pred_instances.labels]
        return outputs

    def logits(self, features: Sequence[Tensor], data_samples: Sequence[Any] | None = None) -> Tensor:
        """Logits of labels, N x C, for what the backbone gives."""
        last = features[-1]
        logits: Tensor = self.label_head(last, mask=mask_of(last, data_samples or ()))
        return logits

    def _losses(self, inputs: Tensor, data_samples: Sequence[Any]) -> dict[str, Any]:
        with_boxes = {bool(sample.get("has_boxes", True)) for sample in data_samples}
        if len(with_boxes) > 1:
            raise UserError(
                "a batch has images with boxes and images without; the batch sampler of training must be "
                f"{SCOPE}.AlternatingBatchSampler"
            )
        if with_boxes == {True}:
            with _last_output(self.detector.backbone) as kept:
                given = self.detector(inputs, data_samples, mode="loss")
            features = kept[0]
            losses = {name: self._weighted(value, "boxes") for name, value in given.items() if "loss" in name}
            losses |= {name: value for name, value in given.items() if "loss" not in name}
        else:
            features, losses = self.detector.backbone(inputs), {}
        if self.label_loss is None:
            raise ValueError("mode='loss' needs `label_loss` in the model's config")
        targets = self._targets(data_samples)
        loss = self.label_loss(self.logits(features, data_samples), targets)
        if getattr(self.label_loss, "reduction", "mean") == "sum":
            loss = loss / len(targets)
        if not torch.isfinite(loss):
            names = ", ".join(str(sample.get("img_path", "an unnamed image")) for sample in data_samples)
            raise NonFiniteLossError(f"the loss of labels is {loss.item()} in the batch of {names}")
        losses["loss_labels"] = self._weighted(loss, "labels")
        if self.log_variances is not None:
            used = [PARTS.index(part) for part in PARTS if part == "labels" or with_boxes == {True}]
            losses["loss_log_variances"] = self.log_variances[used].sum() / 2
        return losses

    def _weighted(self, value: Any, part: str) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(self._weighted(item, part) for item in value)
        if self.log_variances is not None:
            return value * torch.exp(-self.log_variances[PARTS.index(part)]) / 2
        return value * self.loss_weights[part] if self.loss_weights[part] != 1 else value

    def _targets(self, data_samples: Sequence[Any]) -> Tensor:
        """N x C in {1, 0, -1}: what files of labels say, or the classes of the boxes."""
        rows = []
        for sample in data_samples:
            if "image_labels" in sample:
                rows.append(sample.image_labels)
                continue
            row = torch.zeros(self.label_head.num_classes, dtype=torch.int8, device=sample.gt_instances.labels.device)
            for kind in ("ignored_instances", "gt_instances"):
                if "labels" in sample.get(kind, ()):
                    row[sample.get(kind).labels] = 1
            rows.append(row)
        return torch.stack(rows)


def mask_of(features: Tensor, data_samples: Sequence[Any]) -> Tensor | None:
    """Which positions of a feature map belong to the images: N x H x W, or None if all do.

    A position on the edge of an image belongs to it.
    """
    if any("batch_input_shape" not in sample or "img_shape" not in sample for sample in data_samples):
        return None
    whole = [tuple(sample.batch_input_shape) for sample in data_samples]
    sizes = [tuple(sample.img_shape[:2]) for sample in data_samples]
    if not sizes:
        return None
    mask = mask_of_sizes(features, torch.tensor(sizes, device=features.device), whole[0])
    return None if bool(mask.all()) else mask


def mask_of_sizes(features: Tensor, sizes: Tensor, whole: Sequence[int]) -> Tensor:
    """Which positions of a feature map belong to images of these heights and widths within a batch.

    Args:
        features: N x C x H x W.
        sizes: N x 2 heights and widths, in pixels, whole numbers.
        whole: height and width of the batch in pixels.

    Returns:
        N x H x W, bool.
    """
    reached = []
    for axis, (count, pixels) in enumerate(zip(features.shape[-2:], whole, strict=True)):
        # The start of each position, compared in whole numbers.
        starts = torch.arange(count, device=features.device) * int(pixels)
        reached.append(starts[None] < sizes[:, axis : axis + 1] * count)
    return reached[0][:, :, None] & reached[1][:, None, :]


@contextmanager
def _last_output(module: nn.Module) -> Iterator[list[Any]]:
    """Inside, the first output of a module is kept in the list."""
    kept: list[Any] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        if not kept:
            kept.append(output)

    handle = module.register_forward_hook(keep)
    try:
        yield kept
    finally:
        handle.remove()


def _channels_of(backbone: Any) -> int:
    info = getattr(backbone, "feature_info", None)
    if info is None:
        raise UserError(
            f"model.backbone: {type(backbone).__name__} does not say how many channels it gives; set "
            "labels.head.in_channels"
        )
    return int(info[max(backbone.out_indices)]["channels"])


def _checked_weights(weights: Mapping[str, float] | str | None) -> dict[str, float]:
    given = dict.fromkeys(PARTS, 1.0)
    if weights is None or weights == LEARNED:
        return given
    if not isinstance(weights, Mapping) or set(weights) - set(PARTS):
        raise UserError(f"labels.loss_weights={weights!r}: give dict(labels=..., boxes=...), or 'learned'")
    for part, value in weights.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise UserError(f"labels.loss_weights.{part}={value!r}: give a number, 0 or more")
    return given | {part: float(value) for part, value in weights.items()}


def _checked_rescoring(rescore: Mapping[str, float] | None) -> dict[str, float] | None:
    rescore = {key: value for key, value in (rescore or {}).items() if value is not None}
    if not rescore:
        return None
    if set(rescore) != {"scale", "shift"} or not all(isinstance(value, int | float) for value in rescore.values()):
        raise UserError(f"labels.rescore={dict(rescore)!r}: give dict(scale=..., shift=...), as tresnet calibrate does")
    return {name: float(value) for name, value in rescore.items()}
