"""Norm without activation and squeeze-and-excite as one step that keeps the norm's input alone."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from tresnet_downstream.backbones.acceleration import kernels_for
from tresnet_downstream.backbones.activated_batch_norm import ActivatedBatchNorm
from tresnet_downstream.backbones.layers import SqueezeExcite
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


def gated_norm(
    x: Tensor,
    norm: ActivatedBatchNorm,
    squeeze_excite: SqueezeExcite | None = None,
    branch_scale: Tensor | None = None,
    read: bool = True,
    shortcut: Tensor | None = None,
) -> Tensor:
    """``branch_scale * gate * norm(x)``; with a shortcut, the block's end ``relu(shortcut + ...)``.

    Args:
        x: N x C x H x W, what the block's last convolution gives.
        norm: without activation.
        squeeze_excite: gives the gate from the channel means of ``norm(x)``; None for no gate.
        branch_scale: N factors (stochastic depth); None for 1.
        read: whether anybody but the backward pass reads the result; else its numbers are left out.
        shortcut: as the result.
    """
    mean, inv_std = norm.statistics(x)
    gate_parameters = [] if squeeze_excite is None else list(squeeze_excite.parameters())
    settings = (norm.eps, norm.training, norm.group, squeeze_excite, read)
    parameters = norm.weight, norm.bias, mean, inv_std
    return _GatedNorm.apply(x, *parameters, branch_scale, shortcut, settings, *gate_parameters)


class _GatedNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        inv_std: Tensor,
        branch_scale: Tensor | None,
        shortcut: Tensor | None,
        settings: tuple[float, bool, dist.ProcessGroup | None, SqueezeExcite | None, bool],
        *gate_parameters: Tensor,
    ) -> Tensor:
        eps, _, _, squeeze_excite, read = settings
        slope, offset = norm_line(weight, bias, mean, inv_std, eps)
        x_means, gate = None, None
        if squeeze_excite is not None:
            x_means = x.mean((2, 3), dtype=mean.dtype)
            gate = _gate(squeeze_excite, torch.addcmul(offset, x_means, slope))
        ctx.settings, ctx.kernels = settings, kernels_for(x)
        factor = _factor(gate, branch_scale, mean)
        out = None if shortcut is None else joined(x, factor * slope, factor * offset, shortcut)
        ctx.save_for_backward(x, weight, bias, mean, inv_std, branch_scale, x_means, out, *gate_parameters)
        if not read:
            return unread(x.shape, x)
        return affine(x, factor * slope, factor * offset) if out is None else out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, weight, bias, mean, inv_std, branch_scale, x_means, out, *gate_parameters = ctx.saved_tensors
        eps, training, group, squeeze_excite, _ = ctx.settings
        slope, offset = norm_line(weight, bias, mean, inv_std, eps)

        # Everything else needs only these two sums over the picture, N x C each.
        kernels = ctx.kernels
        if kernels is not None:
            gradient, sum_grad, sum_grad_x = kernels.OutputGradient(grad, x, out, 0.0).through_relu()
            grad = gradient.grad
        else:
            grad = grad if out is None else torch.ops.aten.threshold_backward(grad, out, 0)
            sum_grad = grad.sum((2, 3), dtype=mean.dtype)
            sum_grad_x = (grad.to(mean.dtype) * x).sum((2, 3))

        gate, grad_means = None, None
        gate_grads: list[Tensor | None] = [None] * len(gate_parameters)
        if squeeze_excite is not None:
            grad_gate = _factor(None, branch_scale, mean) * (slope * sum_grad_x + offset * sum_grad)
            means = torch.addcmul(offset, x_means, slope)
            gate, grad_means, gate_grads = _gate_backward(squeeze_excite, means, grad_gate)
        factor = _factor(gate, branch_scale, mean)

        # dL/dz of the norm's output z is factor * grad + grad_means / area at every pixel.
        area = x.shape[2] * x.shape[3]
        sum_z = factor * sum_grad
        sum_zx = factor * sum_grad_x
        if grad_means is not None:
            sum_z = sum_z + grad_means
            sum_zx = sum_zx + grad_means * x_means
        local = torch.stack([sum_z.sum(0), (sum_zx.sum(0) - mean * sum_z.sum(0)) * inv_std])

        # grad_x = slope * (dL/dz - mean dL/dz - normalised x * mean of their product), as one line in x.
        constant = torch.zeros_like(sum_z) if grad_means is None else slope * grad_means / area
        bend = None
        if training:
            totals, count = sum_over_processes(local, x.shape[0] * area, group)
            mean_z, mean_product = totals / count
            constant = constant - slope * (mean_z - mean * inv_std * mean_product)
            bend = -slope * inv_std * mean_product
        if kernels is not None:
            grad_x = gradient.line(factor * slope, bend, constant)
        else:
            grad_x = torch.addcmul(spatial(constant), grad, spatial(factor * slope))
            grad_x = grad_x if bend is None else grad_x.addcmul_(x, per_channel(bend))
        grads = grad_x.to(x.dtype), grad_of_weight(local[1], weight), local[0].to(bias.dtype)
        return *grads, None, None, None, None if out is None else grad, None, *gate_grads


def _gate(squeeze_excite: SqueezeExcite, means: Tensor) -> Tensor:
    """N x C gates from N x C channel means, in the type of the gate's own weights."""
    with torch.autocast(means.device.type, enabled=False):
        return squeeze_excite.gate(spatial(means).to(squeeze_excite.fc1.weight.dtype))[:, :, 0, 0].to(means.dtype)


def _gate_backward(
    squeeze_excite: SqueezeExcite, means: Tensor, grad_gate: Tensor
) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    """The gates again, and the gradients of the means and of the gate's parameters (None where frozen)."""
    trained = [parameter for parameter in squeeze_excite.parameters() if parameter.requires_grad]
    with torch.enable_grad():
        means.requires_grad_()
        gate = _gate(squeeze_excite, means)
    grad_means, *grads = torch.autograd.grad(gate, [means, *trained], grad_gate)
    remaining = iter(grads)
    parameter_grads = [next(remaining) if p.requires_grad else None for p in squeeze_excite.parameters()]
    return gate.detach(), grad_means, parameter_grads


def _factor(gate: Tensor | None, branch_scale: Tensor | None, like: Tensor) -> Tensor:
    """What the norm's output is multiplied by: N x C, N x 1 or 1 x 1."""
    factor = like.new_ones((1, 1)) if branch_scale is None else branch_scale.to(like.dtype)[:, None]
    return factor if gate is None else factor * gate
