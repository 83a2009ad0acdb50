"""The classifier: backbone, head and loss, as MMEngine's runner trains it."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor, BaseModel
from torch import Tensor

from tresnet_downstream.errors import UserError
from tresnet_downstream.registry import MODELS


class NonFiniteLossError(UserError):
    """The loss is not a number or infinite; raised before the weights are touched."""


@MODELS.register_module()
class ImagePreprocessor(BaseDataPreprocessor):
    """Brings uint8 pictures to the device as floats in [0, 1], channels-last; the weights want no other scaling."""

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Takes a batch with ``inputs`` N x 3 x H x W in 0 to 255, uint8; the rest of the batch just moves."""
        data = self.cast_data(data)
        inputs = data["inputs"].to(memory_format=torch.channels_last).to(torch.get_default_dtype()) / 255
        return {**data, "inputs": inputs}


@MODELS.register_module()
class ImageClassifier(BaseModel):
    """A backbone's last feature map, a head, and in training a loss.

    ``classifier(images)`` gives N x C logits for N x 3 x H x W pictures in [0, 1].

    Args:
        backbone: config of a backbone with ``feature_info``.
        head: config of a head; its ``in_channels`` follows from the backbone.
        loss: config of a loss; None for a model that is not trained.
        classes: names of the classes; carried into checkpoints.
        data_preprocessor: config; by default :class:`ImagePreprocessor`.

    Raises:
        UserError: if the head's ``num_classes`` does not match ``classes``.
    """

    def __init__(
        self,
        backbone: dict[str, Any],
        head: dict[str, Any],
        loss: dict[str, Any] | None = None,
        classes: Sequence[str] | None = None,
        data_preprocessor: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(MODELS.build(data_preprocessor or {"type": "ImagePreprocessor"}), init_cfg)
        head = dict(head)
        if head.get("num_classes") is None and classes is not None:
            head["num_classes"] = len(classes)
        if not head.get("num_classes"):
            raise UserError("model.head.num_classes is not set, and there are no classes to take it from")
        if classes is not None and head["num_classes"] != len(classes):
            raise UserError(
                f"model.head.num_classes={head['num_classes']} but the data has {len(classes)} classes: "
                "set it to that number, or to None to take it from the data"
            )
        self.classes = None if classes is None else tuple(classes)
        self.backbone = MODELS.build({"out_indices": (3,), **backbone})
        last_stage = self.backbone.feature_info[max(self.backbone.out_indices)]
        self.head = MODELS.build({"in_channels": last_stage["channels"], **head})
        self.loss = None if loss is None else MODELS.build(loss)
        # The convolutions' fast layout, on CPUs and on tensor cores alike; the pictures come in it.
        self.to(memory_format=torch.channels_last)

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
            targets: N x C in {1, 0, -1}, for the loss.
            image: the pictures' names, for the message if the loss is not finite.
            mode: what to give, as MMEngine's runner asks.

        Raises:
            NonFiniteLossError: for a loss that is not finite; names the pictures.
        """
        logits = self.head(self.backbone(inputs)[-1])
        if mode == "tensor":
            return logits
        if mode == "predict":
            return torch.sigmoid(logits.float())
        if self.loss is None or targets is None:
            raise ValueError("mode='loss' needs a loss in the model's config and targets in the batch")
        loss = self.loss(logits, targets)
        if not torch.isfinite(loss):
            raise NonFiniteLossError(
                f"the loss is {loss.item()} in the batch of {', '.join(image) or 'unnamed pictures'}"
            )
        return {"loss": loss, "images": torch.tensor(len(inputs), device=loss.device)}

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise, and what is logged: it and, for a sum, its mean per picture."""
        loss = losses["loss"]
        per_image = (
            loss.detach() / losses["images"] if getattr(self.loss, "reduction", "mean") == "sum" else loss.detach()
        )
        return loss, {"loss": loss.detach(), "loss_per_image": per_image}
