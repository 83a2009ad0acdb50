"""The classifier: backbone, head and loss, as MMEngine's runner trains it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from tresnet_downstream.classification.heads import PooledFeatures
from tresnet_downstream.classification.transforms import build_pipeline
from tresnet_downstream.errors import NonFiniteLossError, UserError, is_out_of_memory
from tresnet_downstream.prediction.preparation import Preparation
from tresnet_downstream.registry import MODELS, SCOPE, takes_argument
from tresnet_downstream.weights.formats import translate
from tresnet_downstream.weights.pretrained import PretrainedModule


@MODELS.register_module()
class ImagePreprocessor(BaseDataPreprocessor):
    """Brings uint8 pictures to the device as floats in [0, 1], channels-last; the weights want no other scaling."""

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Takes a batch with ``inputs`` N x 3 x H x W in 0 to 255, uint8; the rest of the batch just moves."""
        data = self.cast_data(data)
        inputs = data["inputs"].to(memory_format=torch.channels_last).to(torch.get_default_dtype()) / 255
        return {**data, "inputs": inputs}


@MODELS.register_module()
class ImageClassifier(PretrainedModule, BaseModel):
    """A backbone's last feature map, a head, and in training a loss.

    ``classifier(images)`` gives N x C logits for N x 3 x H x W pictures in [0, 1].

    Args:
        backbone: config of a backbone with ``feature_info``.
        head: config of a head; its ``in_channels`` follows from the backbone. None gives the pooled features in
            place of logits.
        loss: config of a loss; None for a model that is not trained.
        classes: names of the classes; carried into checkpoints.
        multi_label: whether probabilities are one sigmoid for each class, or one softmax over all.
        data_preprocessor: config; by default :class:`ImagePreprocessor`.
        init_cfg: MMEngine's; ``Pretrained`` loads the head as well, unless it is of another size.
        batch_transforms: configs of what training does to each batch first, in order, such as :class:`Mixup`.

    Attributes:
        pipeline: the transforms that bring a picture to the size wanted, as a config has them; empty unless the
            model came from a file.
        input_size: side of the pictures that the pipeline gives, in pixels; 0 without one.
        thresholds: of each class, above which its probability counts as found (None: never); None unless the model came
            from a shared folder that has some. Nothing here applies them.
        tta: test-time augmentation: whether predicted probabilities are the mean of those of each picture and of its
            mirror image, as the pipeline gives them; False unless it is set. It takes twice the time.

    Raises:
        UserError: if the head's ``num_classes`` does not match ``classes``, labels are mixed for a loss that takes
            one class for each image, or the loss has weights for another number of classes.
    """

    def __init__(
        self,
        backbone: dict[str, Any],
        head: dict[str, Any] | None,
        loss: dict[str, Any] | None = None,
        classes: Sequence[str] | None = None,
        multi_label: bool = True,
        data_preprocessor: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
        batch_transforms: Sequence[dict[str, Any]] = (),
    ) -> None:
        super().__init__(_build(data_preprocessor or {"type": "ImagePreprocessor"}), init_cfg)
        self.classes = None if classes is None else tuple(classes)
        self.multi_label = multi_label
        self.pipeline: tuple[dict[str, Any], ...] = ()
        self.input_size = 0
        self.thresholds: dict[str, float | None] | None = None
        self.tta = False
        _require_arguments("model.backbone", backbone, ("out_indices",))
        self.backbone = _build({"out_indices": (-1,), **backbone})
        in_channels = _channels_of(self.backbone)
        self.head: nn.Module = PooledFeatures()
        if head is not None:
            _require_arguments("model.head", head, ("in_channels", "num_classes"))
            num_classes = _number_of_classes(head.get("num_classes"), classes)
            self.head = _build({"in_channels": in_channels, **head, "num_classes": num_classes})
        self.loss = None if loss is None else _build(loss)
        self.batch_transforms = nn.ModuleList(_build(transform) for transform in batch_transforms)
        self._require_loss_of_shares()
        self._require_weights_of_all_classes()
        # The convolutions' fast layout, on CPUs and on tensor cores alike; the pictures come in it.
        self.to(memory_format=torch.channels_last)

    @property
    def variant(self) -> str:
        """The backbone's name, such as ``m``; ``custom`` for a TResNet of no published size."""
        return getattr(self.backbone, "name", type(self.backbone).__name__)

    def translated(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of any published style under this classifier's names."""
        translated = translate(state_dict)
        if translated is None:
            return dict(state_dict)
        return translated.state_dict | {name: state_dict[name] for name in translated.unused}

    def probabilities(self, logits: Tensor) -> Tensor:
        """N x C logits to N x C probabilities, in float32 at least."""
        return probabilities_of(logits, self.multi_label)

    def preparation(self) -> Preparation:
        """The pipeline as a function of a picture, uint8 of shape (height, width, 3).

        Raises:
            UserError: as :func:`build_pipeline`.
        """
        pipeline = build_pipeline(self.pipeline)
        return lambda picture: pipeline(image=picture)["image"]

    @torch.inference_mode()
    def predict_batch(self, images: np.ndarray) -> np.ndarray:
        """Probabilities, N x C in float32, for uint8 pictures N x H x W x 3, computed where and as the weights are."""
        return self(self.inputs_of(images), mode="predict").float().cpu().numpy()

    def inputs_of(self, images: np.ndarray) -> Tensor:
        """N x 3 x H x W in [0, 1], where and as the weights are, for uint8 pictures N x H x W x 3."""
        parameter = next(self.parameters())
        batch = torch.from_numpy(images).to(parameter.device).permute(0, 3, 1, 2)
        return batch.to(memory_format=torch.channels_last).to(parameter.dtype) / 255

    def forward(
        self,
        inputs: Tensor,
        targets: Tensor | None = None,
        image: Sequence[str] = (),
        mode: str = "tensor",
        **_: Any,
    ) -> Any:
        """Logits (``mode='tensor'``), losses (``'loss'``) or probabilities (``'predict'``).

        Args:
            inputs: N x 3 x H x W in [0, 1].
            targets: for the loss: N x C in {1, 0, -1}, or N class indices where each image has one label.
            image: the pictures' names, for the message if the loss is not finite.
            mode: what to give, as MMEngine's runner asks.

        Raises:
            NonFiniteLossError: for a loss that is not finite; names the pictures.
        """
        if mode == "loss" and self.training and targets is not None:
            for transform in self.batch_transforms:
                inputs, targets = transform(inputs, targets, self.head.num_classes)
        logits = self.head(self.feature_map(inputs))
        if mode == "tensor":
            return logits
        if mode == "predict":
            probabilities = self.probabilities(logits)
            if self.tta:
                probabilities = (probabilities + self.probabilities(self.head(self.feature_map(inputs.flip(-1))))) / 2
            return probabilities
        if self.loss is None or targets is None:
            raise ValueError("mode='loss' needs a loss in the model's config and targets in the batch")
        loss = self._loss_of(logits, targets)
        if loss.numel() != 1:
            kind, size = type(self.loss).__name__, tuple(loss.shape)
            raise UserError(f"model.loss: {kind} gives a tensor of shape {size}; give one number")
        if not torch.isfinite(loss):
            raise NonFiniteLossError(
                f"the loss is {loss.item()} in the batch of {', '.join(image) or 'unnamed pictures'}"
            )
        return {"loss": loss, "images": torch.tensor(len(inputs), device=loss.device)}

    def feature_map(self, inputs: Tensor) -> Tensor:
        """The last feature map, which the head takes, N x C x H' x W', for N x 3 x H x W in [0, 1]."""
        features = self.backbone(inputs)
        if isinstance(features, Tensor):
            # Its last item would be the last picture's.
            kind = type(self.backbone).__name__
            raise UserError(f"model.backbone: {kind} gives a tensor; give a tuple of feature maps, the last one last")
        return features[-1]

    def _loss_of(self, logits: Tensor, targets: Tensor) -> Tensor:
        loss: Any = self.loss
        try:
            return loss(logits, targets)
        except (ValueError, RuntimeError) as error:
            # With targets of its own form, whatever a loss raises is its own fault.
            if targets.shape == logits.shape or is_out_of_memory(error):
                raise
            reason = " ".join(str(error).split())
            raise UserError(
                f"model.loss: {type(loss).__name__} does not take N class indices, the targets where each image has "
                f"one label ({reason}); choose CrossEntropy"
            ) from error

    def _require_loss_of_shares(self) -> None:
        mixing = [each for each in self.batch_transforms if getattr(each, "mixes_labels", False)]
        if mixing and self.loss is not None and not getattr(self.loss, "takes_shares", False):
            raise UserError(
                f"model.batch_transforms: {type(mixing[0]).__name__} makes targets shares of several classes, and "
                f"{type(self.loss).__name__} takes none; choose CrossEntropy, or set the attribute `takes_shares` of "
                "your own loss"
            )

    def _require_weights_of_all_classes(self) -> None:
        weights = getattr(self.loss, "class_weights", None)
        if isinstance(weights, Tensor) and len(weights) != self.head.num_classes:
            raise UserError(
                f"model.loss.class_weights: has {len(weights)} numbers, and there are {self.head.num_classes} classes"
            )

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise, and what is logged: it and, for a sum, its mean per picture."""
        loss = losses["loss"]
        per_image = (
            loss.detach() / losses["images"] if getattr(self.loss, "reduction", "mean") == "sum" else loss.detach()
        )
        return loss, {"loss": loss.detach(), "loss_per_image": per_image}


def probabilities_of(logits: Tensor, multi_label: bool) -> Tensor:
    """N x C logits to N x C probabilities, in float32 at least: a sigmoid for each class, or one softmax over all."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.sigmoid(wide) if multi_label else torch.softmax(wide, 1)


def build_classifier(config: Mapping[str, Any]) -> ImageClassifier:
    """The classifier of a config with ``type``, such as a checkpoint's; see :mod:`.descriptions` for those."""
    classifier: ImageClassifier = _build(config)
    return classifier


def _build(config: Mapping[str, Any]) -> Any:
    """Builds a part, also where a detector of MMDetection's has set the scope in which names are looked up."""
    with DefaultScope.overwrite_default_scope(SCOPE):
        return MODELS.build(dict(config))


def _require_arguments(place: str, config: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raises UserError unless the class that a config names takes the arguments that are given to each of its kind."""
    kind = MODELS.get(str(config.get("type")))
    if kind is None:
        return  # the registry says so
    if lacking := [name for name in names if not takes_argument(kind, name)]:
        raise UserError(f"{place}: the constructor of {kind.__name__} must take the argument `{lacking[0]}`")


def _channels_of(backbone: nn.Module) -> int:
    """The width of the backbone's last feature map.

    Raises:
        UserError: if the backbone does not say.
    """
    info: Any = getattr(backbone, "feature_info", None)
    stages: Any = getattr(backbone, "out_indices", None)
    try:
        return int(info[max(stages)]["channels"])
    except (IndexError, KeyError, TypeError, ValueError) as error:
        attribute = "out_indices" if info is not None and stages is None else "feature_info"
        meaning = {
            "feature_info": "for each stage a dict with `channels`, the width of its feature map",
            "out_indices": "the stages that it returns, counted from 0",
        }[attribute]
        kind = type(backbone).__name__
        raise UserError(f"model.backbone: {kind} needs the attribute `{attribute}`: {meaning}") from error


def _number_of_classes(configured: int | None, classes: Sequence[str] | None) -> int:
    """The number that the head's config has, or else that of the classes; they must not contradict."""
    number = configured or (None if classes is None else len(classes))
    if not number:
        raise UserError("model.head.num_classes is not set, and there are no classes to take it from")
    if classes is not None and number != len(classes):
        raise UserError(
            f"model.head.num_classes={number} but the data has {len(classes)} classes: "
            "set it to that number, or to None to take it from the data"
        )
    return number
