"""The end of a residual branch whose last convolution is 1x1, as one step that keeps the convolution's input alone.

Gate or pooling, 1x1 convolution and norm without activation. The input has fewer channels than the output (a quarter
of them at the end of a bottleneck, a half or an eighth in the shortcuts of ``m``). The output ``o = matrix @ s`` is a
linear map of it, so what the norm's backward pass needs of the output follows from the input's: with ``g`` the gradient
at the norm's output, ``P = sum(g s^T)`` over pixels, which the gradient of the matrix needs anyway, and the second
moments ``S = sum(s s^T)``,

    sum(g * (o - mean)) = diag(P matrix^T) - mean * sum(g)
    grad_o = factor * g + bend * o + offset                                  (norm_backward.py)
    grad_matrix = sum(grad_o s^T) = factor * P + bend * (matrix S) + offset * sum(s)^T
    grad_s = matrix^T grad_o = (factor * matrix)^T g + matrix^T (bend * matrix) s + matrix^T offset

``s`` is measured from near its mean, since the sums of large numbers would lose digits. In bfloat16 and float16
products of matrices are rounded to the short type, which differences of them do not survive: there the output is
computed again.
A batch of few pixels keeps its output: the products with the moments take the same time whatever the batch.
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

# Pixels for each input channel from which the moments cost less than their use saves.
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
        norm: without activation.
        gate: N x C x 1 x 1; None for 1.
        pool: whether ``x`` is averaged over squares of 2 x 2 first.
        factors: N factors of stochastic depth; None for 1.
        read: whether the values of the result are used; else they are not computed.
        shortcut: as the result.
    """
    device = x.device.type
    if torch.is_autocast_enabled(device):
        short = torch.get_autocast_dtype(device)
        x, gate = x.to(short), None if gate is None else gate.to(short)
    with torch.autocast(device, enabled=False):
        tensors = x, weight, norm.weight, norm.bias, gate, factors, shortcut
        return _PointwiseBranch.apply(*tensors, norm, pool, read)


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
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
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
    """Gradients of source, matrix, norm's weight and bias without the convolution's output; see the module."""
    size = source.numel() // source.shape[1]
    centre = source.mean((0, 2, 3))
    s = source - spread(centre)
    # The rounded mean leaves a small sum.
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
        level, bent = line.offset + line.bend * shift, line.bend[:, None] * matrix
        # Products of matrices by the same library, a row standing for a pixel.
        rows = as_pixels(bent)
        grad_matrix = grad_matrix.add_(as_rows(pointwise_conv(rows, weight_gradient(s, s)))).addr_(level, sum_s)
        sum_output_grad = sum_output_grad + bent @ sum_s + size * level
        mixed = weight_gradient(as_pixels(matrix), rows)
        grad_source = grad_source.add_(pointwise_conv(s, mixed)).add_(spread(matrix.T @ level))
    return grad_source, grad_matrix.addr_(sum_output_grad, centre), *norm.parameter_gradients(grad_scale, sum_grad)


# Squares of 2 x 2, those at the border smaller where a side is odd: kernel, stride, padding, ceil, count of padding.
_POOL: tuple[Any, ...] = ([2, 2], [2, 2], [0, 0], True, False, None)


def _source(x: Tensor, gate: Tensor | None, pool: bool) -> Tensor:
    """The convolution's input."""
    if pool:
        return F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
    return x if gate is None else x * gate
