"""Focal losses (Lin et al., 2017) for one class per row, and their gradients.

``target`` has the class of each row, int64; the number of classes stands for background in the sigmoid form, and
negative targets give 0 in the softmax form. ``weight`` has a factor for each class, or is empty. The factor
of a row is that of its target class, and 1 for background, where mmcv reads beyond the array.

Departure: the sigmoid form takes logarithms of probabilities from the logits, so that it is exact for logits of any
size; mmcv rounds 1 - p to float32 first, which at a logit of 20 is 0, so the loss is 65 instead of 15.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcv_on_torchvision.precision import widened


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Writes the loss of every row and class, N x C, for the logits ``input`` into ``output``."""
    logits = widened(input)
    positive = _positive(target, logits.shape[1])
    p = logits.sigmoid()
    loss = torch.where(
        positive,
        -alpha * (1 - p) ** gamma * F.logsigmoid(logits),
        -(1 - alpha) * p**gamma * F.logsigmoid(-logits),
    )
    output.copy_(loss * _row_weights(weight, target, loss)[:, None])


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Writes the gradient of :func:`sigmoid_focal_loss_forward` with respect to the logits into ``grad_input``."""
    logits = widened(input)
    positive = _positive(target, logits.shape[1])
    p = logits.sigmoid()
    gradient = torch.where(
        positive,
        -alpha * (1 - p) ** gamma * (1 - p - gamma * p * F.logsigmoid(logits)),
        -(1 - alpha) * p**gamma * (gamma * (1 - p) * F.logsigmoid(-logits) - p),
    )
    grad_input.copy_(gradient * _row_weights(weight, target, gradient)[:, None])


def softmax_focal_loss_forward(
    softmax: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Writes the loss of every row, N, for the probabilities ``softmax``, N x C, into ``output``."""
    p, valid = _target_probability(softmax, target)
    loss = -alpha * (1 - p) ** gamma * _log(p)
    output.copy_((loss * _row_weights(weight, target, loss)).where(valid, 0))


def softmax_focal_loss_backward(
    softmax: Tensor, target: Tensor, weight: Tensor, buff: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Writes the gradient of :func:`softmax_focal_loss_forward` for the logits, N x C, into ``grad_input``."""
    p, valid = _target_probability(softmax, target)
    # At p = 1 and gamma < 1 the power is infinite, but its factor is 0.
    slope = torch.where(p < 1, gamma * (1 - p) ** (gamma - 1) * p * _log(p), 0)
    factor = alpha * (slope - (1 - p) ** gamma)
    buff.copy_((factor * _row_weights(weight, target, factor)).where(valid, 0))
    probabilities = widened(softmax)
    grad_input.copy_(buff[:, None] * (_positive(target, probabilities.shape[1]).float() - probabilities))


def _positive(target: Tensor, classes: int) -> Tensor:
    return target[:, None] == torch.arange(classes, device=target.device)


def _row_weights(weight: Tensor, target: Tensor, like: Tensor) -> Tensor:
    if weight.numel() == 0:
        return like.new_ones(len(target))
    known = (target >= 0) & (target < len(weight))
    return weight.to(like.dtype)[target.where(known, 0)].where(known, 1)


def _target_probability(softmax: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The probability of each row's class, and whether the row has a class."""
    valid = target >= 0
    return widened(softmax).gather(1, target.where(valid, 0)[:, None])[:, 0], valid


def _log(p: Tensor) -> Tensor:
    return p.clamp(min=torch.finfo(torch.float32).tiny).log()
