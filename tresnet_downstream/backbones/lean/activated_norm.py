"""Batch norm and leaky ReLU as one step that saves only its output, if the output can be inverted."""

from typing import Any

import torch
from torch import Tensor

from tresnet_downstream.backbones.lean import torch_kernels
from tresnet_downstream.backbones.lean.acceleration import kernels_for
from tresnet_downstream.backbones.lean.interfaces import OutputGradient
from tresnet_downstream.backbones.lean.norm_backward import (
    NormValues,
    Settings,
    backward_step,
    input_gradient,
    process_count,
)


def activated_norm(x: Tensor, norm: NormValues, slope: float, invert: bool, blurred: bool = False) -> Tensor:
    """``leaky_relu(norm(x))``, or its blur.

    Args:
        x: N x C x H x W.
        norm: the statistics that this pass uses, and the parameters.
        slope: negative slope; 1 stands for no activation.
        invert: whether the backward pass inverts the output. If not, ``x`` is saved as well.
        blurred: whether the result is blurred. Only Triton's kernels do so in the same step.
    """
    settings = (norm.eps, norm.training, norm.group)
    tensors = x, norm.weight, norm.bias, norm.mean, norm.inv_std
    result: Tensor = _ActivatedNorm.apply(*tensors, settings, slope, invert, blurred)
    return result


class _ActivatedNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        inv_std: Tensor,
        settings: Settings,
        slope: float,
        invert: bool,
        blurred: bool,
    ) -> Tensor:
        ctx.kernels = kernels_for(x) or torch_kernels
        line = NormValues(weight, bias, mean, inv_std, *settings).line()
        y: Tensor
        result: Tensor
        if blurred:
            y, result = ctx.kernels.line_and_blur(x, *line, slope)
        else:
            y = result = ctx.kernels.line(x, *line, slope)
        ctx.settings, ctx.slope, ctx.blur = settings, slope, {"blurred": True} if blurred else {}
        feature_maps = (None if invert else x, None if slope == 1 and not invert else y)
        ctx.save_for_backward(*feature_maps, weight, bias, mean, inv_std)
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
    """Centre and inverse spread of an inverted output, from the mean and variance of its rounded values.

    The backward pass removes from the gradient its component along the normalised input. If it used ``1 / norm.scale``
    as the inverse spread, the rounding of the output would leave a small part of that component in every pixel. These
    errors have the same sign, so that they add up in the gradient of the preceding convolution.

    Args:
        norm: the norm of the forward pass, in training mode.
        mean: C, means of the inverted output.
        var: C, variances of the inverted output.
    """
    # The variance of the normalised input. It is below 1 if eps is not negligible beside the variance.
    var_normalised = 1 - norm.eps * norm.inv_std.square()
    # Near 0, the difference is inexact, and the component to remove is negligible.
    usable = (var_normalised > 0.01) & (var > 0)
    return mean, torch.where(usable, (var_normalised / var).sqrt(), 1 / norm.scale)


def norm_backward(
    norm: NormValues, gradient: OutputGradient, size: int, centre: Tensor, inv_spread: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a norm's input, weight and bias.

    Args:
        norm: the norm of the forward pass.
        gradient: an ``OutputGradient`` of ``torch_kernels`` or ``triton_kernels``.
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
