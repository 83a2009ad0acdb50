"""Batch norm and leaky ReLU as one step that keeps its output alone, where that can be inverted."""

from typing import Any

import torch
from torch import Tensor

from tresnet_downstream.backbones.lean import torch_kernels
from tresnet_downstream.backbones.lean.acceleration import kernels_for
from tresnet_downstream.backbones.lean.norm_backward import NormValues, backward_step, input_gradient, process_count


def activated_norm(x: Tensor, norm: NormValues, slope: float, invert: bool, blurred: bool = False) -> Tensor:
    """``leaky_relu(norm(x))``, blurred if asked; a slope of 1 stands for no activation.

    Args:
        x: N x C x H x W.
        norm: the statistics that this pass uses, and the parameters.
        slope: negative slope.
        invert: whether the backward pass inverts the output; else ``x`` is kept besides.
        blurred: also blurs, which only Triton's kernels do in the same step.
    """
    settings = (norm.eps, norm.training, norm.group)
    return _ActivatedNorm.apply(x, norm.weight, norm.bias, norm.mean, norm.inv_std, settings, slope, invert, blurred)


class _ActivatedNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        inv_std: Tensor,
        settings: tuple[Any, ...],
        slope: float,
        invert: bool,
        blurred: bool,
    ) -> Tensor:
        ctx.kernels = kernels_for(x) or torch_kernels
        line = NormValues(weight, bias, mean, inv_std, *settings).line()
        if blurred:
            y, result = ctx.kernels.line_and_blur(x, *line, slope)
        else:
            y = result = ctx.kernels.line(x, *line, slope)
        ctx.settings, ctx.slope, ctx.blur = settings, slope, {"blurred": True} if blurred else {}
        kept = (None if invert else x, None if slope == 1 and not invert else y)
        ctx.save_for_backward(*kept, weight, bias, mean, inv_std)
        return result

    @staticmethod
    @backward_step
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, y, weight, bias, mean, inv_std = ctx.saved_tensors
        norm = NormValues(weight, bias, mean, inv_std, *ctx.settings)
        gradient = ctx.kernels.OutputGradient(grad, x, y, ctx.slope, **ctx.blur)
        if x is not None:
            centre, inv_spread = mean, inv_std
        elif (
            y.dtype != mean.dtype and norm.training and process_count(norm.group) == 1 and hasattr(gradient, "moments")
        ):
            centre, inv_spread = _inverted_line(norm, *gradient.moments())
        else:
            centre, inv_spread = bias.to(mean.dtype), 1 / norm.scale
        like = y if x is None else x
        return *norm_backward(norm, gradient, like.numel() // like.shape[1], centre, inv_spread), *[None] * 6


def _inverted_line(norm: NormValues, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    """Centre and inverse spread of an inverted output, from the mean and variance that rounding left it with.

    The backward pass takes from the gradient its part along the normalised input. By the scale itself, a share of the
    size of a rounding would remain of that part: little in each pixel, but the same in all, so that it adds up in the
    gradient of the convolution before.

    Args:
        norm: of the forward pass, in training mode.
        mean: C, of the inverted output.
        var: C, likewise.
    """
    # That of the normalised input: below 1 where the norm's eps counts.
    var_normalised = 1 - norm.eps * norm.inv_std.square()
    # Near 0 it is inexact, as a difference of equal numbers, and the part to take out is as small.
    usable = (var_normalised > 0.01) & (var > 0)
    return mean, torch.where(usable, (var_normalised / var).sqrt(), 1 / norm.scale)


def norm_backward(
    norm: NormValues, gradient: Any, size: int, centre: Tensor, inv_spread: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a norm's input, weight and bias.

    Args:
        norm: of the forward pass.
        gradient: an ``OutputGradient`` of either set of kernels.
        size: number of pixels in this process.
        centre: C; the normalised input is ``(source - centre) * inv_spread``.
        inv_spread: C.
    """
    if norm.training and process_count(norm.group) == 1 and hasattr(gradient, "norm_backward"):
        weight = norm.scale * norm.inv_std / inv_spread
        grad_x, grad_scale, sum_grad = gradient.norm_backward(weight, centre, inv_spread)
    else:
        sum_grad, sum_product = (sums.sum(0) for sums in gradient.sums(centre))
        grad_scale = sum_product * inv_spread
        grad_x = gradient.line(*input_gradient(norm, sum_grad, grad_scale, size, centre, inv_spread))
    return grad_x, *norm.parameter_gradients(grad_scale, sum_grad)
