"""The image classifier: backbone, head and loss, as a model of MMEngine."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from tresnet_downstream.classification.datasets import Batch
from tresnet_downstream.classification.heads import PooledFeatures
from tresnet_downstream.classification.transforms import build_pipeline
from tresnet_downstream.errors import NonFiniteLossError, UserError, is_out_of_memory
from tresnet_downstream.prediction.preparation import Preparation
from tresnet_downstream.registry import MODELS, SCOPE, takes_argument
from tresnet_downstream.weights.formats import translate
from tresnet_downstream.weights.pretrained import PretrainedModule


@MODELS.register_module()
class ImagePreprocessor(BaseDataPreprocessor):
    """Moves uint8 images to the device and converts them to floats in [0, 1], in channels-last layout.

    Examples:
        >>> batch = ImagePreprocessor()({"inputs": torch.full((2, 3, 32, 32), 255, dtype=torch.uint8)})
        >>> batch["inputs"].dtype, float(batch["inputs"].max())
        (torch.float32, 1.0)
    """

    def forward(self, data: Batch, training: bool = False) -> Batch:
        """Converts ``inputs`` of a batch, N x 3 x H x W in uint8. Other entries are only moved to the device."""
        data = self.cast_data(data)
        inputs = data["inputs"].to(memory_format=torch.channels_last).to(torch.get_default_dtype()) / 255
        return {**data, "inputs": inputs}


@MODELS.register_module()
class ImageClassifier(PretrainedModule, BaseModel):
    """An image classifier: a backbone, a head on its last feature map, and a loss for training.

    ``classifier(images)`` returns N x C logits for N x 3 x H x W images in [0, 1].

    Args:
        backbone: config of a backbone with ``feature_info``.
        head: config of a head, whose ``in_channels`` is set from the backbone. None for pooled features as outputs.
        loss: config of a loss; None for a model that is not trained.
        classes: class names, which are stored in checkpoints.
        multi_label: whether probabilities are a sigmoid for each class, or a softmax over all.
        data_preprocessor: config of a data preprocessor; None for :class:`ImagePreprocessor`.
        init_cfg: MMEngine's. ``Pretrained`` also loads the head, unless it has another size.
        batch_transforms: configs of transforms of training batches, in order, such as :class:`Mixup`.

    Attributes:
        pipeline: configs of the transforms that prepare an image; empty unless the model was loaded from a file.
        input_size: height and width of prepared images, in pixels; 0 without a pipeline.
        thresholds: from each class to the probability above which it counts as predicted (None for never). None unless
            the model was loaded from a shared folder with thresholds. The classifier does not apply them.
        tta: test-time augmentation, False by default: whether predicted probabilities are the mean over each prepared
            image and its mirror image. Prediction then takes twice the time.

    Raises:
        UserError: if the head's ``num_classes`` is not the number of ``classes``, if a batch transform mixes labels and
            the loss needs one class for each image, or if the loss has weights for another number of classes.

    Examples:
        >>> classifier = ImageClassifier(
        ...     backbone={"type": "TResNet", "layers": (1, 1, 1, 1), "width": 0.25},
        ...     head={"type": "LinearHead", "num_classes": 3},
        ...     loss={"type": "AsymmetricLoss"},
        ... ).eval()
        >>> images, targets = torch.rand(2, 3, 32, 32), torch.tensor([[1, 0, 0], [0, 1, -1]])
        >>> classifier(images).shape
        torch.Size([2, 3])
        >>> classifier(images, targets, mode="loss")["loss"].shape
        torch.Size([])
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
        self.loss: nn.Module | None = None if loss is None else _build(loss)
        self.batch_transforms = nn.ModuleList(_build(transform) for transform in batch_transforms)
        self._require_loss_of_shares()
        self._require_weights_of_all_classes()
        # Convolutions are fastest in channels-last layout, on CPUs and on tensor cores. Images have the same layout.
        self.to(memory_format=torch.channels_last)

    @property
    def variant(self) -> str:
        """The name of the backbone, such as ``m``; ``custom`` for a TResNet of an unpublished size."""
        return getattr(self.backbone, "name", type(self.backbone).__name__)

    def translated(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of any published style, renamed to the names of this classifier."""
        translated = translate(state_dict)
        if translated is None:
            return dict(state_dict)
        return translated.state_dict | {name: state_dict[name] for name in translated.unused}

    def probabilities(self, logits: Tensor) -> Tensor:
        """N x C logits to N x C probabilities, in float32 or float64."""
        return probabilities_of(logits, self.multi_label)

    def preparation(self) -> Preparation:
        """A function that prepares an image by the pipeline: uint8 of shape (height, width, 3) in and out.

        Raises:
            UserError: as :func:`build_pipeline`.
        """
        pipeline = build_pipeline(self.pipeline)
        return lambda image: pipeline(image=image)["image"]

    @torch.inference_mode()
    def predict_batch(self, images: np.ndarray) -> np.ndarray:
        """Probabilities, N x C in float32, of prepared uint8 images N x H x W x 3.

        They are computed on the device and in the type of the weights.
        """
        result: np.ndarray = self(self.inputs_of(images), mode="predict").float().cpu().numpy()
        return result

    def inputs_of(self, images: np.ndarray) -> Tensor:
        """uint8 images N x H x W x 3 to N x 3 x H x W in [0, 1], on the device and in the type of the weights."""
        parameter = next(self.parameters())
        batch = torch.from_numpy(images).to(parameter.device).permute(0, 3, 1, 2)
        return batch.to(memory_format=torch.channels_last).to(parameter.dtype) / 255

    def forward(
        self,
        inputs: Tensor,
        targets: Tensor | None = None,
        image: Sequence[str] = (),
        mode: str = "tensor",
        **_: object,
    ) -> Tensor | dict[str, Tensor]:
        """Logits (``mode='tensor'``), losses (``'loss'``) or probabilities (``'predict'``).

        Args:
            inputs: N x 3 x H x W in [0, 1].
            targets: targets of the loss: N x C in {1, 0, -1}, or N class indices if each image has one label.
            image: names of the images, for the message if the loss is not finite.
            mode: the kind of result.

        Raises:
            NonFiniteLossError: if the loss is not finite. The message names the images.
            UserError: if the backbone, the head, the loss or a batch transform does not return what it should.
        """
        if mode == "loss" and self.training and targets is not None:
            for transform in self.batch_transforms:
                inputs, targets = transform(inputs, targets, self.head.num_classes)
        logits: Tensor = self.head(self.feature_map(inputs))
        if mode == "tensor":
            return logits
        if mode == "predict":
            probabilities = self.probabilities(logits)
            if self.tta:
                probabilities = (probabilities + self.probabilities(self.head(self.feature_map(inputs.flip(-1))))) / 2
            return probabilities
        if self.loss is None or targets is None:
            raise ValueError("mode='loss' needs a loss in the model's config and targets in the batch")
        self._require_logits(logits, targets)
        loss = self._loss_of(self.loss, logits, targets)
        if loss.numel() != 1:
            kind, size = type(self.loss).__name__, tuple(loss.shape)
            raise UserError(f"model.loss: {kind} returns a tensor of shape {size}; return one number")
        if not torch.isfinite(loss):
            raise NonFiniteLossError(
                f"the loss is {loss.item()} in the batch of {', '.join(image) or 'unnamed images'}"
            )
        return {"loss": loss, "images": torch.tensor(len(inputs), device=loss.device)}

    def feature_map(self, inputs: Tensor) -> Tensor:
        """N x 3 x H x W images in [0, 1] to the last feature map N x C x H' x W', the input of the head."""
        features = self.backbone(inputs)
        if isinstance(features, Tensor):
            # `features[-1]` would be the features of the last image.
            kind = type(self.backbone).__name__
            raise UserError(f"model.backbone: {kind} returns a tensor; return a tuple of feature maps, in order")
        result: Tensor = features[-1]
        return result

    def _require_logits(self, logits: object, targets: Tensor) -> None:
        """Raises UserError unless the head has returned a logit for each class."""
        number = targets.shape[1] if targets.dim() == 2 else len(self.classes or ())
        expected = (len(targets), number or self.head.num_classes)
        if not isinstance(logits, Tensor) or tuple(logits.shape) != expected:
            kind = type(self.head).__name__
            result = f"a tensor of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
            raise UserError(f"model.head: {kind} returns {result}; return logits of shape {expected}")

    @staticmethod
    def _loss_of(loss: nn.Module, logits: Tensor, targets: Tensor) -> Tensor:
        try:
            result: Tensor = loss(logits, targets)
            return result
        except (ValueError, RuntimeError) as error:
            # If the targets have the shape of the logits, the error is not about class indices as targets.
            if targets.shape == logits.shape or is_out_of_memory(error):
                raise
            reason = " ".join(str(error).split())
            raise UserError(
                f"model.loss: {type(loss).__name__} does not take N class indices, which are the targets if each image "
                f"has one label ({reason}); choose CrossEntropy"
            ) from error

    def _require_loss_of_shares(self) -> None:
        mixing = [each for each in self.batch_transforms if getattr(each, "mixes_labels", False)]
        if mixing and self.loss is not None and not getattr(self.loss, "takes_shares", False):
            raise UserError(
                f"model.batch_transforms: {type(mixing[0]).__name__} turns targets into shares of classes, which "
                f"{type(self.loss).__name__} does not take; choose CrossEntropy, or set the attribute `takes_shares` "
                "of your own loss"
            )

    def _require_weights_of_all_classes(self) -> None:
        weights = getattr(self.loss, "class_weights", None)
        if isinstance(weights, Tensor) and len(weights) != self.head.num_classes:
            raise UserError(
                f"model.loss.class_weights: has {len(weights)} numbers, but there are {self.head.num_classes} classes"
            )

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise, and the values to log: the loss, and its mean per image if it is a sum."""
        loss = losses["loss"]
        per_image = (
            loss.detach() / losses["images"] if getattr(self.loss, "reduction", "mean") == "sum" else loss.detach()
        )
        return loss, {"loss": loss.detach(), "loss_per_image": per_image}


def probabilities_of(logits: Tensor, multi_label: bool) -> Tensor:
    """N x C logits to N x C probabilities, in float32 or float64: a sigmoid for each class, or a softmax over all."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.sigmoid(wide) if multi_label else torch.softmax(wide, 1)


def build_classifier(config: Mapping[str, Any]) -> ImageClassifier:
    """Builds the classifier of a config with ``type``, such as the config in a checkpoint, see :mod:`.descriptions`."""
    classifier: ImageClassifier = _build(config)
    return classifier


def _build(config: Mapping[str, Any]) -> Any:
    """Builds a component from the registries of this package, also if MMDetection has set its own default scope."""
    with DefaultScope.overwrite_default_scope(SCOPE):
        return MODELS.build(dict(config))


def _require_arguments(place: str, config: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raises UserError unless the class that a config names takes these arguments."""
    kind = MODELS.get(str(config.get("type")))
    if kind is None:
        return  # building it raises the error
    if missing := [name for name in names if not takes_argument(kind, name)]:
        raise UserError(f"{place}: the constructor of {kind.__name__} must take the argument `{missing[0]}`")


def _channels_of(backbone: nn.Module) -> int:
    """The number of channels of the backbone's last feature map.

    Raises:
        UserError: if the backbone does not have the attributes ``feature_info`` and ``out_indices``.
    """
    info: Any = getattr(backbone, "feature_info", None)
    stages: Any = getattr(backbone, "out_indices", None)
    try:
        return int(info[max(stages)]["channels"])
    except (IndexError, KeyError, TypeError, ValueError) as error:
        attribute = "out_indices" if info is not None and stages is None else "feature_info"
        meaning = {
            "feature_info": "for each stage a dict with `channels`, the channels of its feature map",
            "out_indices": "the stages that it returns, counted from 0",
        }[attribute]
        kind = type(backbone).__name__
        raise UserError(f"model.backbone: {kind} needs the attribute `{attribute}`: {meaning}") from error


def _number_of_classes(configured: int | None, classes: Sequence[str] | None) -> int:
    """The number of classes: that of the head's config, or None there, that of ``classes``. Both must agree."""
    number = configured or (None if classes is None else len(classes))
    if not number:
        raise UserError("model.head.num_classes is not set, and there are no classes to take it from")
    if classes is not None and number != len(classes):
        raise UserError(
            f"model.head.num_classes={number} but the data has {len(classes)} classes: "
            "set it to that number, or to None to take it from the data"
        )
    return number
