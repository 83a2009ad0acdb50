"""Losses of classification with one label per image.

Targets are N class indices, or N x C shares of the classes, which sum to 1 for each image, as mixup gives them. All
losses are means over the images, are computed in float32 at least, under autocast too, and give one number.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tresnet_downstream.classification.losses import (
    at_least_float32,
    require_one_for_each_class,
    weights_tensor,
)
from tresnet_downstream.errors import UserError
from tresnet_downstream.registry import MODELS


class SingleLabelLoss(nn.Module, ABC):
    """The frame of the losses: targets become shares of the classes, smoothed.

    Args:
        label_smoothing: share of each target that is spread evenly over all classes, 0 to below 1.
        class_weights: C factors of the losses of the images, by their class; an image of several classes, as mixup
            makes them, has the mean of their weights by its shares. None for 1.
    """

    reduction = "mean"
    takes_shares = True  # as targets, which mixup needs

    class_weights: Tensor | None

    def __init__(self, label_smoothing: float = 0.0, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.register_buffer("class_weights", weights_tensor(class_weights), persistent=False)
        if not 0 <= label_smoothing < 1:
            raise UserError(f"`label_smoothing`={label_smoothing!r}: give a number from 0 to below 1")
        self.label_smoothing = label_smoothing

    @abstractmethod
    def of_images(self, logits: Tensor, shares: Tensor, smooth: Tensor) -> Tensor:
        """The loss of each image, N, for N x C float logits, shares of the classes and the same smoothed."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of N x C logits against N class indices or N x C shares.

        Raises:
            ValueError: if the targets have another shape.
            UserError: if there are weights for another number of classes.
        """
        logits = at_least_float32(logits)
        if targets.shape == logits.shape and targets.is_floating_point():
            shares = targets.to(logits.dtype)
        elif targets.shape == logits.shape[:1]:
            shares = F.one_hot(targets.long(), logits.shape[1]).to(logits.dtype)
        else:
            raise ValueError(
                f"targets {tuple(targets.shape)}: give one class index for each of {len(logits)} images, or shares of "
                f"the shape {tuple(logits.shape)}"
            )
        smooth = shares * (1 - self.label_smoothing) + self.label_smoothing / logits.shape[1]
        losses = self.of_images(logits, shares, smooth)
        if self.class_weights is not None:
            require_one_for_each_class(self.class_weights, logits)
            losses = losses * (shares @ self.class_weights.to(shares.dtype))
        return losses.mean()


@MODELS.register_module()
class CrossEntropy(SingleLabelLoss):
    """Cross-entropy of a softmax, with label smoothing; equal to torch's without weights.

    With ``class_weights`` the sum over the images is torch's where nothing is smoothed. It is divided by the number of
    images, and not by the sum of their weights, so that it does not depend on how images fall into batches. With label
    smoothing, torch weighs the share of each class by itself, so that every image pulls towards the rare ones.

    Args:
        label_smoothing: see :class:`SingleLabelLoss`; 0.1 in most recipes.
        class_weights: see :class:`SingleLabelLoss`.
    """

    def of_images(self, logits: Tensor, shares: Tensor, smooth: Tensor) -> Tensor:
        """See the base class."""
        return -(smooth * F.log_softmax(logits, dim=1)).sum(1)


@MODELS.register_module()
class BinaryCrossEntropySingleLabel(SingleLabelLoss):
    """Binary cross-entropy of each class by itself, for one label per image: "ResNet strikes back" (arXiv:2110.00476).

    The mean over the classes of each image, as in that recipe.

    Args:
        target_threshold: a share above it counts as 1 and another as 0, so that mixup asks for all classes that it
            mixed; None takes the shares as they are.
        label_smoothing: see :class:`SingleLabelLoss`; applied before the threshold.
        class_weights: see :class:`SingleLabelLoss`.
    """

    def __init__(
        self,
        target_threshold: float | None = None,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(label_smoothing, class_weights)
        self.target_threshold = target_threshold

    def of_images(self, logits: Tensor, shares: Tensor, smooth: Tensor) -> Tensor:
        """See the base class."""
        if self.target_threshold is not None:
            smooth = (smooth > self.target_threshold).to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, smooth, reduction="none").mean(1)


@MODELS.register_module()
class AsymmetricLossSingleLabel(SingleLabelLoss):
    """The asymmetric loss for one class per image, over a softmax (Ridnik et al., 2021, arXiv:2009.14119).

    A class with a share counts as the image's own: mixup's two classes both have the power ``gamma_pos``.

    Args:
        gamma_pos: focusing power of the image's class.
        gamma_neg: focusing power of the other classes.
        label_smoothing: see :class:`SingleLabelLoss`.
        class_weights: see :class:`SingleLabelLoss`.
    """

    eps = 1e-8  # least base of a focusing power: at 0 a power below 1 has an infinite slope

    def __init__(
        self,
        gamma_pos: float = 0,
        gamma_neg: float = 4,
        label_smoothing: float = 0.1,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(label_smoothing, class_weights)
        self.gamma_pos, self.gamma_neg = gamma_pos, gamma_neg

    def of_images(self, logits: Tensor, shares: Tensor, smooth: Tensor) -> Tensor:
        """See the base class."""
        log_probability = F.log_softmax(logits, dim=1)
        probability = log_probability.exp()
        focus = torch.where(shares > 0, 1 - probability, probability).clamp(min=self.eps)
        gamma = torch.where(shares > 0, float(self.gamma_pos), float(self.gamma_neg))
        return -(smooth * log_probability * focus.pow(gamma)).sum(1)
