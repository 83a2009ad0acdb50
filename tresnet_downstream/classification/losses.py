"""Losses of multi-label classification.

Targets are 1 (present), 0 (absent) or -1 (unknown), for which the loss and the gradient are 0. All losses return a
scalar and are computed in float32 or float64, also under autocast.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tresnet_downstream.errors import UserError
from tresnet_downstream.registry import MODELS

REDUCTIONS = ("sum", "mean")


class MultiLabelLoss(nn.Module, ABC):
    """The base class of multi-label losses, which masks unknown targets and reduces the loss to a scalar.

    Args:
        reduction: ``sum`` over images and classes, as published, or ``mean`` over the entries that are not unknown.
        class_weights: C factors of the loss of present classes; None for 1. The loss of absent classes is not weighted.
    """

    class_weights: Tensor | None

    def __init__(self, reduction: str = "sum", class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.register_buffer("class_weights", weights_tensor(class_weights), persistent=False)
        if reduction not in REDUCTIONS:
            raise UserError(f"reduction={reduction!r} is unknown: choose one of {', '.join(REDUCTIONS)}")
        self.reduction = reduction

    @abstractmethod
    def entries(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of every entry, N x C, for float logits and targets in {0, 1}."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of N x C logits against N x C targets in {1, 0, -1}.

        Raises:
            ValueError: if the shapes differ.
            UserError: if there are weights for another number of classes.
        """
        if logits.shape != targets.shape:
            raise ValueError(f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} differ in shape")
        known = targets >= 0
        # Masked before the loss too, since an infinite gradient multiplied by 0 would be NaN.
        logits = torch.where(known, at_least_float32(logits), 0)
        losses = self.entries(logits, targets.clamp(min=0).to(logits.dtype))
        if self.class_weights is not None:
            require_one_for_each_class(self.class_weights, logits)
            losses = torch.where(targets > 0, losses * self.class_weights.to(losses.dtype), losses)
        total = torch.where(known, losses, 0).sum()
        return total if self.reduction == "sum" else total / known.sum().clamp(min=1)


@MODELS.register_module()
class BinaryCrossEntropy(MultiLabelLoss):
    """Binary cross-entropy of each class.

    Args:
        reduction: see :class:`MultiLabelLoss`.
        class_weights: see :class:`MultiLabelLoss`.

    Examples:
        >>> logits, targets = torch.zeros(1, 2), torch.tensor([[1, 0]])
        >>> BinaryCrossEntropy(reduction="mean")(logits, targets)
        tensor(0.6931)
    """

    def entries(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See the base class."""
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


@MODELS.register_module()
class AsymmetricLoss(MultiLabelLoss):
    """Asymmetric Loss For Multi-Label Classification (Ridnik et al., 2021, arXiv:2009.14119).

    Let ``p`` be the probability. The loss of a present class is ``-(1 - p)^gamma_pos * log p``. The loss of an absent
    class is ``-q^gamma_neg * log(1 - q)`` with ``q = max(p - clip, 0)``.

    Args:
        gamma_neg: focusing power of absent classes.
        gamma_pos: focusing power of present classes.
        clip: probability up to which the loss of an absent class is 0.
        eps: lower bound of the arguments of logarithms.
        detach_focal_weight: whether the focusing factors are constants in the gradient, as in the release.
        reduction: see :class:`MultiLabelLoss`.
        class_weights: see :class:`MultiLabelLoss`.

    Examples:
        >>> logits, targets = torch.zeros(1, 3), torch.tensor([[1, 0, -1]])
        >>> AsymmetricLoss()(logits, targets)
        tensor(0.3711)
    """

    def __init__(
        self,
        gamma_neg: float = 4,
        gamma_pos: float = 1,
        clip: float = 0.05,
        eps: float = 1e-8,
        detach_focal_weight: bool = True,
        reduction: str = "sum",
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(reduction, class_weights)
        if min(gamma_neg, gamma_pos) < 0 or not 0 <= clip < 1:
            raise UserError(
                f"gamma_neg={gamma_neg}, gamma_pos={gamma_pos}, clip={clip}: powers must be at least 0, clip in [0, 1)"
            )
        self.gamma_neg, self.gamma_pos, self.clip, self.eps = gamma_neg, gamma_pos, clip, eps
        self.detach_focal_weight = detach_focal_weight

    def entries(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See the base class."""
        present = targets > 0.5
        positive = torch.sigmoid(logits)
        negative = (1 - positive + self.clip).clamp(max=1)
        # The probability of the target, and the focusing power, which reduces the loss of easy entries.
        truth = torch.where(present, positive, negative)
        gamma = torch.where(present, float(self.gamma_pos), float(self.gamma_neg))
        # At least eps, since the gradient of a power below 1 is infinite at 0.
        focus = (1 - (truth.detach() if self.detach_focal_weight else truth)).clamp(min=self.eps)
        return -torch.log(truth.clamp(min=self.eps)) * focus.pow(gamma)


@MODELS.register_module()
class FocalLoss(MultiLabelLoss):
    """Focal loss (Lin et al., 2017, arXiv:1708.02002) of each class, without the factor alpha.

    Let ``p`` be the probability of the target. The loss is ``-(1 - p)^gamma * log p``. Gradients also flow through the
    focusing factor.

    Args:
        gamma: focusing power.
        reduction: see :class:`MultiLabelLoss`.
        class_weights: see :class:`MultiLabelLoss`.

    Examples:
        >>> FocalLoss(gamma=0, reduction="mean")(torch.zeros(1, 2), torch.tensor([[1, 0]]))
        tensor(0.6931)
    """

    def __init__(self, gamma: float = 2, reduction: str = "sum", class_weights: Sequence[float] | None = None) -> None:
        super().__init__(reduction, class_weights)
        self.gamma = gamma

    def entries(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See the base class."""
        # Computed from log-probabilities, so that the gradient is not 0 where the probability rounds to 0 or 1.
        truth = torch.where(targets > 0.5, logits, -logits)
        return -F.logsigmoid(truth) * torch.exp(self.gamma * F.logsigmoid(-truth))


def weights_tensor(weights: Sequence[float] | None) -> Tensor | None:
    """Class weights as a tensor of shape (C,); None if there are none."""
    return None if weights is None else torch.tensor([float(weight) for weight in weights])


def require_one_for_each_class(weights: Tensor, logits: Tensor) -> None:
    """Raises UserError unless the number of weights is the number of columns of the logits."""
    if len(weights) != logits.shape[1]:
        raise UserError(f"class_weights: has {len(weights)} numbers, but there are {logits.shape[1]} classes")


def at_least_float32(x: Tensor) -> Tensor:
    """The tensor in float32, or unchanged if it is in float64."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
