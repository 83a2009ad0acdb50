"""The activated norm on Triton's kernels: the sums and maps of its backward pass read the gradient and the output."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from tresnet_downstream.backbones.acceleration import kernels_for
from tresnet_downstream.backbones.norm_steps import grad_of_weight, norm_line, sum_over_processes


class FusedNorm(torch.autograd.Function):
    """Normalise, scale, shift, leaky ReLU (slope 1: none), and blur if asked; keeps what the plain form keeps."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        inv_std: Tensor,
        eps: float,
        slope: float,
        training: bool,
        invert: bool,
        group: dist.ProcessGroup | None,
        blurred: bool,
    ) -> Tensor:
        """``x`` is such that the kernels can read it."""
        ctx.kernels = kernels_for(x)
        line = norm_line(weight, bias, mean, inv_std, eps)
        if blurred:
            y, result = ctx.kernels.line_and_blur(x, *line, slope)
        else:
            y = result = ctx.kernels.line(x, *line, slope)
        ctx.eps, ctx.slope, ctx.training, ctx.group, ctx.blurred = eps, slope, training, group, blurred
        kept = (None if invert else x, None if slope == 1 and not invert else y)
        ctx.save_for_backward(*kept, weight, bias, mean, inv_std)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Two sums over the gradient, and a line in it."""
        x, y, weight, bias, mean, inv_std = ctx.saved_tensors
        scale = weight.to(mean.dtype).abs() + ctx.eps
        # The normalised input is (source - centre) * inv_spread, whether source is the input or what it became.
        centre, inv_spread = (bias.to(mean.dtype), 1 / scale) if x is None else (mean, inv_std)
        gradient = ctx.kernels.OutputGradient(grad, x, y, ctx.slope, ctx.blurred)
        grad_shift, product = (sums.sum(0) for sums in gradient.sums(centre))
        grad_scale = product * inv_spread
        slope_of_x = scale * inv_std
        if ctx.training:
            like = x if y is None else y
            totals = torch.stack([grad_shift, grad_scale])
            totals, count = sum_over_processes(totals, like.numel() // like.shape[1], ctx.group)
            mean_grad, curve = totals[0] / count, totals[1] / count * inv_spread
            grad_x = gradient.line(slope_of_x, -slope_of_x * curve, slope_of_x * (centre * curve - mean_grad))
        else:
            grad_x = gradient.line(slope_of_x, None, torch.zeros_like(slope_of_x))
        return grad_x, grad_of_weight(grad_scale, weight), grad_shift.to(bias.dtype), *[None] * 8
