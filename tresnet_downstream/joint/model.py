"""Joint models: a detector of MMDetection with a classification head on its backbone."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS as DETECTORS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from tresnet_downstream.classification.classifier import probabilities_of
from tresnet_downstream.errors import NonFiniteLossError, UserError
from tresnet_downstream.interfaces import Backbone
from tresnet_downstream.registry import MODELS, SCOPE

PARTS = ("labels", "boxes")
LEARNED = "learned"
# The losses of a detector by name; some have one for each feature map.
Losses = dict[str, Tensor | Sequence[Tensor]]


@MODELS.register_module()
class LabelsAndBoxes(BaseModel):
    """A detector, and a head that predicts the labels of the image from the last feature map of the backbone.

    The backbone runs once. The detector is not changed, so that its boxes equal those of the detector alone exactly.
    The label head ignores the padding around images.

    In training, the labels of an image are those in its label file (:class:`LabelledBoxes`). Without a label file, they
    are the classes of the boxes after augmentation.

    Args:
        detector: config of a detector of MMDetection.
        label_head: config of a head of :mod:`tresnet_downstream.classification`, or of a user's head whose ``forward``
            takes ``features`` (N x C x H x W) and ``mask`` (N x H x W, True at positions of the image; None if there is
            no padding).
        label_loss: config of a multi-label loss. A sum over the images is divided by their number. None for a model
            that is not trained.
        loss_weights: factors of the two losses, ``dict(labels=1.0, boxes=1.0)``; or ``'learned'``, which replaces each
            loss L by ``L / (2 v) + log(v) / 2`` with a trainable variance v (Kendall et al., 2018, arXiv:1705.07115).
        rescore: ``dict(scale=..., shift=...)`` multiplies the score of each box by the probability of its label,
            ``sigmoid(scale * logit + shift)``; ``tresnet calibrate`` fits the two numbers. None does not change scores.
        init_cfg: ``dict(type='Parts', labels=FILE, boxes=FILE)`` initialises the label head from the file of a
            classifier, and the detector from a checkpoint of a detector. Both files have the backbone.

    Raises:
        UserError: if the head does not take ``mask``, or an argument is invalid.
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
        built: BaseDetector = DETECTORS.build(ConfigDict(detector))
        if not isinstance(built, BaseDetector):
            raise UserError(f"model: {type(built).__name__} is not a single detector, which a joint model needs")
        super().__init__(data_preprocessor=built.data_preprocessor)
        self.detector = built
        self.parts_to_start_from = dict(init_cfg or {})
        with DefaultScope.overwrite_default_scope(SCOPE):
            self.label_head: Any = MODELS.build({"in_channels": _channels_of(built.backbone), **label_head})
            self.label_loss: nn.Module | None = None if label_loss is None else MODELS.build(dict(label_loss))
        if "mask" not in inspect.signature(self.label_head.forward).parameters:
            raise UserError(
                f"labels.head: forward of {type(self.label_head).__name__} must take `mask`, N x H x W: True at "
                "positions of the image, or None"
            )
        self.loss_weights = _checked_weights(loss_weights)
        self.log_variances = nn.Parameter(torch.zeros(len(PARTS))) if loss_weights == LEARNED else None
        self.rescore = _checked_rescoring(rescore)

    def __getattr__(self, name: str) -> Any:
        """Returns attributes of the detector, since hooks of MMDetection access its parts."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            modules = self.__dict__.get("_modules", {})
            if "detector" not in modules:
                raise
            return getattr(modules["detector"], name)

    def init_weights(self) -> None:
        """Initialises the detector and the label head, and loads the files that ``init_cfg`` names."""
        from tresnet_downstream.joint.starting import start_from

        self.detector.init_weights()
        if hasattr(self.label_head, "init_weights"):
            self.label_head.init_weights()
        self._is_init = True
        start_from(self, **{part: self.parts_to_start_from.get(part) for part in PARTS})

    def forward(self, inputs: Tensor, data_samples: Sequence[DetDataSample] | None = None, mode: str = "tensor") -> Any:
        """Losses (``mode='loss'``), data samples with predictions (``'predict'``), or raw outputs (``'tensor'``).

        Args:
            inputs: N x 3 x H x W, from the data preprocessor.
            data_samples: N data samples of MMDetection.
            mode: the kind of result.

        Returns:
            For ``loss``, a dict. For ``predict``, the detector's data samples, each with ``label_probabilities``,
            float32 of shape (C,). For ``tensor``, the detector's outputs and the logits, N x C.

        Raises:
            NonFiniteLossError: if the loss of the labels is not finite. The message names the images.
        """
        if mode == "loss":
            return self._losses(inputs, data_samples or ())
        with _first_output(self.detector.backbone) as backbone_outputs:
            outputs = self.detector(inputs, data_samples, mode=mode)
        logits = self.logits(backbone_outputs[0], data_samples)
        if mode == "tensor":
            return outputs, logits
        for sample, row in zip(outputs, logits, strict=True):
            sample.label_probabilities = probabilities_of(row[None], multi_label=True)[0]
            if self.rescore is not None:
                calibrated = torch.sigmoid(self.rescore["scale"] * row.float() + self.rescore["shift"])
                sample.pred_instances.scores = sample.pred_instances.scores * calibrated[sample.pred_instances.labels]
        return outputs

    def logits(self, features: Sequence[Tensor], data_samples: Sequence[DetDataSample] | None = None) -> Tensor:
        """Logits of the labels, N x C, from the feature maps of the backbone."""
        last = features[-1]
        logits: Tensor = self.label_head(last, mask=mask_of(last, data_samples or ()))
        return logits

    def _losses(self, inputs: Tensor, data_samples: Sequence[DetDataSample]) -> Losses:
        with_boxes = {bool(sample.get("has_boxes", True)) for sample in data_samples}
        if len(with_boxes) > 1:
            raise UserError(
                "a batch has images with boxes and images without; the batch sampler of the training must be "
                f"{SCOPE}.AlternatingBatchSampler"
            )
        if with_boxes == {True}:
            with _first_output(self.detector.backbone) as backbone_outputs:
                of_detector = self.detector(inputs, data_samples, mode="loss")
            features = backbone_outputs[0]
            losses = {name: self._weighted(value, "boxes") for name, value in of_detector.items() if "loss" in name}
            losses |= {name: value for name, value in of_detector.items() if "loss" not in name}
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

    def _targets(self, data_samples: Sequence[DetDataSample]) -> Tensor:
        """Targets N x C in {1, 0, -1}, from label files or from the classes of the boxes."""
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


def mask_of(features: Tensor, data_samples: Sequence[DetDataSample]) -> Tensor | None:
    """The positions of a feature map that are in the images: N x H x W, or None if all are.

    A position on the edge of an image is in the image.
    """
    if any("batch_input_shape" not in sample or "img_shape" not in sample for sample in data_samples):
        return None
    batch_shapes = [tuple(sample.batch_input_shape) for sample in data_samples]
    sizes = [tuple(sample.img_shape[:2]) for sample in data_samples]
    if not sizes:
        return None
    mask = mask_of_sizes(features, torch.tensor(sizes, device=features.device), batch_shapes[0])
    return None if bool(mask.all()) else mask


def mask_of_sizes(features: Tensor, sizes: Tensor, batch_shape: Sequence[int]) -> Tensor:
    """The positions of a feature map that are in the images, for images that are padded on the right and at the bottom.

    Args:
        features: N x C x H x W.
        sizes: N x 2 heights and widths of the images in pixels, integers.
        batch_shape: height and width of the padded images in pixels.

    Returns:
        N x H x W, bool.

    Examples:
        >>> mask_of_sizes(torch.zeros(1, 8, 1, 4), torch.tensor([[32, 48]]), (32, 64))
        tensor([[[ True,  True,  True, False]]])
    """
    inside = []
    for axis, (count, pixels) in enumerate(zip(features.shape[-2:], batch_shape, strict=True)):
        # Compares the start of each position with the size, in integers.
        starts = torch.arange(count, device=features.device) * int(pixels)
        inside.append(starts[None] < sizes[:, axis : axis + 1] * count)
    return inside[0][:, :, None] & inside[1][:, None, :]


@contextmanager
def _first_output(module: nn.Module) -> Iterator[list[Sequence[Tensor]]]:
    """A context in which the first output of a module is appended to the list."""
    outputs: list[Sequence[Tensor]] = []

    def append(_: nn.Module, __: object, output: Sequence[Tensor]) -> None:
        if not outputs:
            outputs.append(output)

    handle = module.register_forward_hook(append)
    try:
        yield outputs
    finally:
        handle.remove()


def _channels_of(backbone: Backbone) -> int:
    info = getattr(backbone, "feature_info", None)
    if info is None:
        raise UserError(
            f"model.backbone: {type(backbone).__name__} has no attribute `feature_info` for its channels; set "
            "labels.head.in_channels"
        )
    return int(info[max(backbone.out_indices)]["channels"])


def _checked_weights(weights: Mapping[str, float] | str | None) -> dict[str, float]:
    defaults = dict.fromkeys(PARTS, 1.0)
    if weights is None or weights == LEARNED:
        return defaults
    if not isinstance(weights, Mapping) or set(weights) - set(PARTS):
        raise UserError(f"labels.loss_weights={weights!r}: give dict(labels=..., boxes=...), or 'learned'")
    for part, value in weights.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise UserError(f"labels.loss_weights.{part}={value!r}: give a number of at least 0")
    return defaults | {part: float(value) for part, value in weights.items()}


def _checked_rescoring(rescore: Mapping[str, float] | None) -> dict[str, float] | None:
    rescore = {key: value for key, value in (rescore or {}).items() if value is not None}
    if not rescore:
        return None
    if set(rescore) != {"scale", "shift"} or not all(isinstance(value, int | float) for value in rescore.values()):
        raise UserError(f"labels.rescore={dict(rescore)!r}: give dict(scale=..., shift=...), from tresnet calibrate")
    return {name: float(value) for name, value in rescore.items()}
