"""Losses of classification with one label per image.

Targets are N class indices, or N x C shares of the classes as from mixup, which sum to 1 for each image. All losses are
the mean over the images and are computed in float32 or float64, also under autocast.
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
    """The base class of the losses, which converts targets to smoothed shares of the classes.

    Args:
        label_smoothing: share of each target that is distributed evenly over all classes, at least 0 and below 1.
        class_weights: C factors of the losses of the images of each class; None for 1. For an image of several classes,
            as from mixup, the factor is their mean weighted by the shares.
    """

    reduction = "mean"
    takes_shares = True  # whether targets may be shares of classes, which mixup needs

    class_weights: Tensor | None

    def __init__(self, label_smoothing: float = 0.0, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.register_buffer("class_weights", weights_tensor(class_weights), persistent=False)
        if not 0 <= label_smoothing < 1:
            raise UserError(f"`label_smoothing`={label_smoothing!r}: give a number from 0 to below 1")
        self.label_smoothing = label_smoothing

    @abstractmethod
    def of_images(self, logits: Tensor, shares: Tensor, smooth: Tensor) -> Tensor:
        """The loss of each image, N, for N x C float logits, shares of the classes, and smoothed shares."""

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
                f"targets {tuple(targets.shape)}: give a class index for each of {len(logits)} images, or shares of "
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
    """Cross-entropy of a softmax, with label smoothing. Without class weights, it equals torch's.

    With ``class_weights``, there are two differences from torch. The sum over the images is divided by their number,
    not by the sum of their weights, so that the loss does not depend on how images are batched. With label smoothing,
    the weight of an image is that of its class. In torch, each class weights its smoothed share, so that every image
    increases the probabilities of rare classes.

    Args:
        label_smoothing: see :class:`SingleLabelLoss`; 0.1 in most recipes.
        class_weights: see :class:`SingleLabelLoss`.

    Examples:
        >>> CrossEntropy()(torch.zeros(2, 4), torch.tensor([0, 3]))
        tensor(1.3863)
    """

    def of_images(self, logits: Tensor, shares: Tensor, smooth: Tensor) -> Tensor:
        """See the base class."""
        return -(smooth * F.log_softmax(logits, dim=1)).sum(1)


@MODELS.register_module()
class BinaryCrossEntropySingleLabel(SingleLabelLoss):
    """Binary cross-entropy of each class for one label per image, as in "ResNet strikes back" (arXiv:2110.00476).

    The loss of an image is the mean over the classes, as in that paper.

    Args:
        target_threshold: shares above it become 1 and others 0, so that all classes of a mixed image are targets; None
            leaves the shares unchanged.
        label_smoothing: see :class:`SingleLabelLoss`; applied before the threshold.
        class_weights: see :class:`SingleLabelLoss`.

    Examples:
        >>> BinaryCrossEntropySingleLabel()(torch.zeros(2, 4), torch.tensor([0, 3]))
        tensor(0.6931)
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
    """The asymmetric loss for one label per image, with a softmax (Ridnik et al., 2021, arXiv:2009.14119).

    ``gamma_pos`` is used for all classes with a share above 0, such as both classes of a mixed image.

    Args:
        gamma_pos: focusing power of the image's class.
        gamma_neg: focusing power of the other classes.
        label_smoothing: see :class:`SingleLabelLoss`.
        class_weights: see :class:`SingleLabelLoss`.

    Examples:
        >>> AsymmetricLossSingleLabel(label_smoothing=0)(torch.zeros(2, 4), torch.tensor([0, 3]))
        tensor(1.3863)
    """

    eps = 1e-8  # lower bound of the base of a focusing power, since the gradient of a power below 1 is infinite at 0

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
