"""The end of a residual branch whose last convolution is 1x1, as one step that saves only the convolution's input.

The step consists of a gate or pooling, a 1x1 convolution and a norm without activation. The input has fewer channels
than the output: a quarter at the end of a bottleneck, a half or an eighth in the shortcuts of ``m``. The output
``o = matrix @ s`` is a linear map of the input ``s``, so the backward pass of the norm can be computed from ``s``. Let
``g`` be the gradient at the norm's output, ``P = sum(g s^T)`` over pixels, which the gradient of the matrix needs
anyway, and ``S = sum(s s^T)`` the second moments:

    sum(g * (o - mean)) = diag(P matrix^T) - mean * sum(g)
    grad_o = factor * g + bend * o + offset                                  (norm_backward.py)
    grad_matrix = sum(grad_o s^T) = factor * P + bend * (matrix S) + offset * sum(s)^T
    grad_s = matrix^T grad_o = (factor * matrix)^T g + matrix^T (bend * matrix) s + matrix^T offset

``s`` is centred near its mean, since sums of large numbers would lose digits. In bfloat16 and float16, matrix products
are rounded to the short type, and their differences would be too inexact; the output is recomputed instead. For a batch
of few pixels, the output is saved, since the time of the products with the moments does not depend on the batch size.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tresnet_downstream.backbones.lean import torch_kernels
from tresnet_downstream.backbones.lean.acceleration import kernels_for
from tresnet_downstream.backbones.lean.activated_norm import norm_backward
from tresnet_downstream.backbones.lean.norm_backward import Norm, NormValues, backward_step, input_gradient
from tresnet_downstream.backbones.lean.pointwise_conv import as_pixels, as_rows, pointwise_conv, weight_gradient
from tresnet_downstream.backbones.lean.pointwise_conv import input_gradient as conv_input_gradient
from tresnet_downstream.backbones.lean.recomputation import placeholder
from tresnet_downstream.backbones.lean.torch_kernels import spread

# The least number of pixels for each input channel at which using the moments saves time.
PIXELS_PER_CHANNEL = 3
SHORT_TYPES = (torch.bfloat16, torch.float16)


def pointwise_branch(
    x: Tensor,
    weight: Tensor,
    norm: Norm,
    gate: Tensor | None = None,
    pool: bool = False,
    factors: Tensor | None = None,
    read: bool = True,
    shortcut: Tensor | None = None,
) -> Tensor:
    """``factors * norm(conv(gate * x))``; with a shortcut, the block's end ``relu(shortcut + ...)``.

    Args:
        x: N x C x H x W.
        weight: K x C x 1 x 1.
        norm: a norm without activation.
        gate: N x C x 1 x 1; None for 1.
        pool: whether ``x`` is average-pooled over 2 x 2 pixels first.
        factors: N factors of stochastic depth; None for 1.
        read: whether the values of the result are read. If not, they are not computed.
        shortcut: N x K x H x W, the shape of the result; None for no shortcut.
    """
    device = x.device.type
    if torch.is_autocast_enabled(device):
        short = torch.get_autocast_dtype(device)
        x, gate = x.to(short), None if gate is None else gate.to(short)
    with torch.autocast(device, enabled=False):
        tensors = x, weight, norm.weight, norm.bias, gate, factors, shortcut
        result: Tensor = _PointwiseBranch.apply(*tensors, norm, pool, read)
        return result


class _PointwiseBranch(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
        gate: Tensor | None,
        factors: Tensor | None,
        shortcut: Tensor | None,
        norm: Norm,
        pool: bool,
        read: bool,
    ) -> Tensor:
        source = _source(x, gate, pool)
        few = source.numel() // source.shape[1] < PIXELS_PER_CHANNEL * source.shape[1]
        if read or few:
            output = pointwise_conv(source, weight.flatten(1).to(x.dtype))
        else:
            output = placeholder((len(source), len(weight), *source.shape[2:]), x)
        values = norm.values(output)
        ctx.settings, ctx.pool = (values.eps, values.training, values.group), pool
        slope, offset = values.line()
        if factors is not None:
            slope, offset = (factors.to(slope.dtype)[:, None] * line for line in (slope, offset))
        result = placeholder(output.shape, x)
        if read:
            result = (kernels_for(output) or torch_kernels).line(
                output, slope, offset, 1.0 if shortcut is None else 0.0, shortcut
            )
        ctx.save_for_backward(
            x, weight, norm_weight, norm_bias, gate, factors, values.mean, values.inv_std,
            output if few else None, None if shortcut is None else result,
        )  # fmt: skip
        return result

    @staticmethod
    @backward_step
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, norm_weight, norm_bias, gate, factors, mean, inv_std, output, out = ctx.saved_tensors
        norm = NormValues(norm_weight, norm_bias, mean, inv_std, *ctx.settings)
        grad = grad if out is None else torch.ops.aten.threshold_backward(grad, out, 0)
        grad_shortcut = None if out is None else grad
        if factors is not None:
            grad = grad * spread(factors[:, None]).to(grad.dtype)
        source = _source(x, gate, ctx.pool)
        matrix = weight.flatten(1)
        if output is None and source.dtype in SHORT_TYPES:
            output = pointwise_conv(source, matrix.to(source.dtype))
        if output is None:
            grad_source, grad_matrix, *norm_grads = _backward_by_moments(norm, grad, source, matrix)
        else:
            gradient = (kernels_for(output) or torch_kernels).OutputGradient(grad, output, None)
            size = output.numel() // output.shape[1]
            grad_output, *norm_grads = norm_backward(norm, gradient, size, mean, inv_std)
            grad_source = conv_input_gradient(grad_output, matrix.to(source.dtype), source)
            grad_matrix = weight_gradient(grad_output, source)

        grad_gate = None
        if gate is not None:
            grad_gate = (grad_source * x).sum((2, 3), keepdim=True)
            grad_source = grad_source.mul_(gate)
        if ctx.pool:
            grad_source = torch.ops.aten.avg_pool2d_backward(grad_source, x, *_POOL)
        grads = grad_source, grad_matrix.view_as(weight).to(weight.dtype), *norm_grads
        return *grads, grad_gate, None, grad_shortcut, None, None, None


def _backward_by_moments(
    norm: NormValues, grad: Tensor, source: Tensor, matrix: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of source, matrix, and the norm's weight and bias, by the formulas at the top of this module."""
    size = source.numel() // source.shape[1]
    centre = source.mean((0, 2, 3))
    s = source - spread(centre)
    # The sum of s is not exactly 0, since the mean is rounded.
    sum_s, sum_grad = s.sum((0, 2, 3)), grad.sum((0, 2, 3))
    factor = norm.scale * norm.inv_std
    scaled = factor[:, None] * matrix
    grad_source, product = conv_input_gradient(grad, scaled, s), weight_gradient(grad, s)
    # The output less the norm's mean is matrix @ s + shift.
    shift = matrix @ centre - norm.mean
    grad_scale = ((product * matrix).sum(1) + sum_grad * shift) * norm.inv_std
    line = input_gradient(norm, sum_grad, grad_scale, size, torch.zeros_like(shift), norm.inv_std)
    grad_matrix, sum_output_grad = factor[:, None] * product, factor * sum_grad
    if line.bend is not None:
        level, scaled_matrix = line.offset + line.bend * shift, line.bend[:, None] * matrix
        # Each row is passed as a pixel, so that the same library computes the matrix products.
        rows = as_pixels(scaled_matrix)
        grad_matrix = grad_matrix.add_(as_rows(pointwise_conv(rows, weight_gradient(s, s)))).addr_(level, sum_s)
        sum_output_grad = sum_output_grad + scaled_matrix @ sum_s + size * level
        mixed = weight_gradient(as_pixels(matrix), rows)
        grad_source = grad_source.add_(pointwise_conv(s, mixed)).add_(spread(matrix.T @ level))
    return grad_source, grad_matrix.addr_(sum_output_grad, centre), *norm.parameter_gradients(grad_scale, sum_grad)


# Arguments of avg_pool2d for 2 x 2 pixels, fewer at the border of an odd side: kernel size, stride, padding, ceil_mode,
# count_include_pad, divisor_override.
_POOL: tuple[object, ...] = ([2, 2], [2, 2], [0, 0], True, False, None)


def _source(x: Tensor, gate: Tensor | None, pool: bool) -> Tensor:
    """The input of the convolution: ``x`` pooled, or multiplied by the gate."""
    if pool:
        return F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
    return x if gate is None else x * gate
