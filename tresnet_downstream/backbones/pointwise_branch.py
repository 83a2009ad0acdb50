"""The end of a residual branch whose last convolution is 1x1, as one step that keeps the convolution's input alone.

Gate or pooling, 1x1 convolution and norm without activation. The input has a
quarter of the output's channels, and what the norm's backward pass wants of the output follows from it: the
output is a linear map of the input, so its products with the gradient, summed over pixels, are those that the
gradient of the convolution's weight is made of, and its products with itself come from the input's covariance.
So the output is neither kept nor computed again, and the backward pass reads the wide tensors less often than
the operators that it stands for. Only a batch of few pixels keeps its output: there it is small, and the matrices
are not.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from tresnet_downstream.backbones.activated_batch_norm import ActivatedBatchNorm
from tresnet_downstream.backbones.norm_steps import (
    affine,
    grad_of_weight,
    joined,
    norm_line,
    per_channel,
    spatial,
    sum_over_processes,
    unread,
)
from tresnet_downstream.backbones.pointwise_conv import pointwise_conv, pointwise_conv_backward, rows

# Pixels for each input channel from which the covariance costs less than its use saves.
PIXELS_PER_CHANNEL = 3


class Ending(NamedTuple):
    """What stands around the convolution and is the same for every batch.

    Attributes:
        norm: without activation.
        pool: whether the input is averaged over squares of 2 x 2 before.
        read: whether anybody but the backward pass reads the result; else its numbers are left out.
    """

    norm: ActivatedBatchNorm
    pool: bool = False
    read: bool = True


def pointwise_branch(
    x: Tensor,
    weight: Tensor,
    ending: Ending,
    gate: Tensor | None = None,
    branch_scale: Tensor | None = None,
    shortcut: Tensor | None = None,
) -> Tensor:
    """``branch_scale * norm(conv(gate * x))``; with a shortcut, the block's end ``relu(shortcut + ...)``.

    Args:
        x: N x C x H x W.
        weight: K x C x 1 x 1.
        ending: the norm, and whether ``x`` is pooled first.
        gate: N x C x 1 x 1; None for 1.
        branch_scale: N factors (stochastic depth); None for 1.
        shortcut: as the result.
    """
    device = x.device.type
    if torch.is_autocast_enabled(device):
        short = torch.get_autocast_dtype(device)
        x, gate = x.to(short), None if gate is None else gate.to(short)
    norm = ending.norm
    with torch.autocast(device, enabled=False):
        return _PointwiseBranch.apply(x, weight, norm.weight, norm.bias, gate, branch_scale, shortcut, ending)


class _PointwiseBranch(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
        gate: Tensor | None,
        branch_scale: Tensor | None,
        shortcut: Tensor | None,
        ending: Ending,
    ) -> Tensor:
        source = _source(x, gate, ending.pool)
        # Of few pixels, the output is kept.
        few = source.numel() // source.shape[1] < PIXELS_PER_CHANNEL * source.shape[1]
        if ending.read or few:
            output = pointwise_conv(source, weight.flatten(1).to(x.dtype))
        else:
            output = unread((len(source), len(weight), *source.shape[2:]), x)
        mean, inv_std = ending.norm.statistics(output)
        ctx.ending = ending
        kept = x, weight, norm_weight, gate, branch_scale, mean, inv_std, output if few else None
        ctx.save_for_backward(*kept, None)
        if not ending.read:
            return unread(output.shape, x)
        slope, offset = norm_line(norm_weight, norm_bias, mean, inv_std, ending.norm.eps)
        if branch_scale is not None:
            slope, offset = (branch_scale.to(mean.dtype)[:, None] * values for values in (slope, offset))
        if shortcut is None:
            return affine(output, slope, offset)
        out = joined(output, slope, offset, shortcut)
        ctx.save_for_backward(*kept, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, weight, norm_weight, gate, branch_scale, mean, inv_std, output, out = ctx.saved_tensors
        grad = grad if out is None else torch.ops.aten.threshold_backward(grad, out, 0)
        grad_shortcut = None if out is None else grad
        if branch_scale is not None:
            grad = grad * spatial(branch_scale[:, None]).to(grad.dtype)
        norm = _NormBackward(ctx.ending.norm, norm_weight, mean, inv_std, grad)
        source = _source(x, gate, ctx.ending.pool)
        matrix = weight.flatten(1)
        if output is None:
            grad_source, grad_matrix = _backward_by_covariance(norm, source, matrix)
        else:
            grad_source, grad_matrix = _backward_by_output(norm, source, matrix, output)

        grad_gate = None
        if gate is not None:
            grad_gate = (grad_source * x).sum((2, 3), keepdim=True)
            grad_source = grad_source.mul_(gate)
        if ctx.ending.pool:
            grad_source = torch.ops.aten.avg_pool2d_backward(grad_source, x, *_POOL)
        grads = grad_source, grad_matrix.view_as(weight).to(weight.dtype), norm.grad_weight, norm.grad_bias
        return *grads, grad_gate, None, grad_shortcut, None


class _NormBackward:
    """The norm's part of the gradients.

    With ``c`` the convolution's output less the norm's mean, the gradient of that output is
    ``slope * (grad - mean_grad - curve * c)`` at every pixel; the last two follow from the sum of ``grad * c``.
    """

    def __init__(self, norm: ActivatedBatchNorm, weight: Tensor, mean: Tensor, inv_std: Tensor, grad: Tensor) -> None:
        self.norm, self.weight, self.mean, self.inv_std, self.grad = norm, weight, mean, inv_std, grad
        self.slope = (weight.to(mean.dtype).abs() + norm.eps) * inv_std
        self.sum_grad = grad.sum((0, 2, 3), dtype=mean.dtype)
        self.grad_bias = self.sum_grad.to(weight.dtype)

    def take_sum(self, sum_product: Tensor) -> None:
        """Takes the sum over pixels of ``grad * c``, K values, from which all the rest follows."""
        sum_normalised = sum_product * self.inv_std
        self.grad_weight = grad_of_weight(sum_normalised, self.weight)
        if self.norm.training:
            size = self.grad.numel() // len(self.mean)
            totals, count = sum_over_processes(torch.stack([self.sum_grad, sum_normalised]), size, self.norm.group)
            self.mean_grad, mean_product = totals / count
            self.curve = mean_product * self.inv_std
        else:
            self.mean_grad = self.curve = torch.zeros_like(self.mean)


def _backward_by_output(norm: _NormBackward, source: Tensor, matrix: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of source and matrix from the convolution's output."""
    product = norm.grad.to(norm.mean.dtype) * output
    norm.take_sum(product.sum((0, 2, 3)) - norm.sum_grad * norm.mean)
    bend = -norm.slope * norm.curve
    offset = -norm.slope * norm.mean_grad - bend * norm.mean
    line = torch.addcmul(per_channel(offset), output, per_channel(bend))
    line = line.addcmul_(norm.grad, per_channel(norm.slope)).to(output.dtype)
    return pointwise_conv_backward(line, source, matrix.to(source.dtype))


def _backward_by_covariance(norm: _NormBackward, source: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of source and matrix without the convolution's output."""
    wide, short = norm.mean.dtype, source.dtype
    size = source.numel() // source.shape[1]
    # As the forward pass had them: a short type has rounded the weights.
    matrix = matrix.to(short).to(wide)
    # Measured from near their mean, so that no later sum loses digits to it; the rounded mean leaves a small sum.
    centre = source.mean((0, 2, 3), dtype=wide).to(short)
    source = source - per_channel(centre)
    centre, sum_source = centre.to(wide), source.sum((0, 2, 3), dtype=wide)
    scaled = norm.slope[:, None] * matrix
    grad_source, product = pointwise_conv_backward(norm.grad, source, scaled.to(short))
    product = product.to(wide)  # K x C, the sum over pixels of grad times source
    # The output less the norm's mean is matrix @ source + shift.
    shift = matrix @ centre - norm.mean
    norm.take_sum((product * matrix).sum(1) + norm.sum_grad * shift)

    level = norm.mean_grad + norm.curve * shift
    sum_output = norm.sum_grad - size * level
    if norm.norm.training:
        pixels = rows(source)
        moments = torch.mm(pixels.T, pixels / size).to(wide)
        bent = norm.curve[:, None] * matrix
        product = product.addmm_(bent, moments, alpha=-size).addr_(level, sum_source, alpha=-1)
        sum_output = sum_output - bent @ sum_source
        curved, offset = (scaled.T @ bent).to(short), (scaled.T @ level).to(short)
        grad_source = grad_source.sub_(pointwise_conv(source, curved).add_(per_channel(offset)))
    return grad_source, product.addr_(sum_output, centre).mul_(norm.slope[:, None])


# Squares of 2 x 2, those at the border smaller where a side is odd: kernel, stride, padding, ceil, count of padding.
_POOL: tuple[Any, ...] = ([2, 2], [2, 2], [0, 0], True, False, None)


def _source(x: Tensor, gate: Tensor | None, pool: bool) -> Tensor:
    """What the convolution reads."""
    if pool:
        return F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
    return x if gate is None else x * gate
