"""The formulas of batch norm: statistics, the affine map of the forward pass, and the backward pass.

A norm computes ``z = scale * (x - mean) * inv_std + bias`` with ``scale = |weight| + eps``. Let ``g`` be the gradient
at ``z`` and ``n`` the number of pixels over which the statistics were computed. With the normalised input
``u = (x - mean) * inv_std``, sums over pixels and one channel at a time:

    grad_bias = sum(g)
    grad_scale = sum(g * u)
    grad_x = scale * inv_std * (g - grad_bias / n - u * grad_scale / n)      in training
    grad_x = scale * inv_std * g                                             in evaluation, with constant statistics

``u`` can be computed from any tensor ``source`` that is an affine map of it, ``u = (source - centre) * inv_spread``:
from the input (centre ``mean``, inv_spread ``inv_std``), or from the output, which the next layer saves anyway (centre
``bias``, inv_spread ``1 / scale``). The two sums ``sum(g)`` and ``sum(g * (source - centre))`` therefore determine all
three gradients, and the gradient of the input is an affine map of ``g`` and ``source``:

    grad_x = factor * g + bend * source + offset
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

Gradients = TypeVar("Gradients")
# `eps`, `training` and `group` of NormValues.
Settings: TypeAlias = tuple[float, bool, dist.ProcessGroup | None]


class Norm(Protocol):
    """What the lean steps use of a norm; ``ActivatedBatchNorm`` has it."""

    weight: Any  # of type Tensor; torch's batch norms declare it as `Parameter` or not at all, by version
    bias: Any

    def values(self, x: Tensor) -> "NormValues":
        """The statistics and parameters for the input ``x``. In training, updates the running statistics."""


class NormValues(NamedTuple):
    """The tensors per channel and the settings that one pass of a norm uses.

    Attributes:
        weight: C; the scale is ``|weight| + eps``.
        bias: C.
        mean: C, in float32 or float64.
        inv_std: C, in the type of ``mean``.
        eps: added to ``|weight|``, and to the variance.
        training: whether ``mean`` and ``inv_std`` are statistics of the batch, so that gradients flow through them.
        group: the process group that shares the statistics; None if each process uses its own.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    inv_std: Tensor
    eps: float
    training: bool
    group: dist.ProcessGroup | None

    @property
    def scale(self) -> Tensor:
        """``|weight| + eps`` in the type of the statistics."""
        return self.weight.to(self.mean.dtype).abs() + self.eps

    def line(self) -> tuple[Tensor, Tensor]:
        """Slope and offset of the norm as an affine map of its input, C each."""
        slope = self.scale * self.inv_std
        return slope, self.bias.to(self.mean.dtype) - self.mean * slope

    def parameter_gradients(self, grad_scale: Tensor, grad_bias: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of weight and bias; ``|weight|`` has the derivative 1 at 0, as in inplace-abn."""
        grad_weight = torch.where(self.weight < 0, -grad_scale, grad_scale).to(self.weight.dtype)
        return grad_weight, grad_bias.to(self.bias.dtype)


class InputGradient(NamedTuple):
    """The coefficients of ``grad_x = factor * g + bend * source + offset``, C each. None as ``bend`` stands for 0."""

    factor: Tensor
    bend: Tensor | None
    offset: Tensor


def input_gradient(
    norm: NormValues, sum_grad: Tensor, grad_scale: Tensor, size: int, centre: Tensor, inv_spread: Tensor
) -> InputGradient:
    """The gradient of a norm's input as an affine map of the gradient at its output and of ``source``.

    Args:
        norm: the norm of the forward pass.
        sum_grad: C, sums of ``g`` over the pixels of this process.
        grad_scale: C, sums of ``g * u`` over the pixels of this process.
        size: number of pixels in this process.
        centre: C; ``u = (source - centre) * inv_spread``.
        inv_spread: C.
    """
    factor = norm.scale * norm.inv_std
    if not norm.training:
        return InputGradient(factor, None, torch.zeros_like(factor))
    totals, count = sum_over_processes(torch.stack([sum_grad, grad_scale]), size, norm.group)
    mean_grad, mean_product = totals / count
    bend = -factor * mean_product * inv_spread
    return InputGradient(factor, bend, -factor * mean_grad - bend * centre)


def backward_step(method: Callable[..., Gradients]) -> Callable[..., Gradients]:
    """Decorates the ``backward`` of an autograd function: once differentiable, and outside of autocast.

    Under autocast, ``loss.backward()`` within ``torch.autocast`` would round the sums.
    """

    @once_differentiable
    @wraps(method)
    def backward(ctx: object, *grads: Tensor) -> Gradients:
        with torch.autocast(grads[0].device.type, enabled=False):
            return method(ctx, *grads)

    return backward


def process_count(group: dist.ProcessGroup | None) -> int:
    """Number of processes that share statistics: 1 without a group."""
    return 1 if group is None else dist.get_world_size(group)


@torch.no_grad()
def batch_statistics(
    x: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
    group: dist.ProcessGroup | None,
) -> tuple[Tensor, Tensor]:
    """Mean and inverse standard deviation of each channel of N x C x H x W, over all processes of ``group``.

    Updates the running statistics, with the unbiased estimate of the variance.
    """
    size = x.numel() // x.shape[1]
    wide = torch.promote_types(x.dtype, torch.float32)
    alone = process_count(group) == 1
    if alone and size == 1:
        raise ValueError(f"more than one value per channel is needed in training, got an input of {tuple(x.shape)}")
    fused = x.device.type in ("cpu", "cuda")
    if fused and alone and running_mean.dtype == wide:
        # One pass over memory, which also updates the running statistics.
        mean, var = torch.ops.aten.batch_norm_update_stats(x, running_mean, running_var, momentum)
        return mean, torch.rsqrt(var + eps)
    if fused:
        # On copies: if this process has one pixel, the operator divides by 0 and writes NaN, also with momentum 0.
        buffers = (buffer.to(wide, copy=True) for buffer in (running_mean, running_var))
        mean, var = torch.ops.aten.batch_norm_update_stats(x, *buffers, 0.0)
    else:
        var, mean = torch.var_mean(x.to(wide), (0, 2, 3), correction=0)
    count: int | Tensor = size
    if not alone:
        mean, var, count = _combine(mean, var, size, group)
    running_mean.lerp_(mean.to(running_mean.dtype), momentum)
    running_var.lerp_((var * (count / (count - 1))).to(running_var.dtype), momentum)
    return mean, torch.rsqrt(var + eps)


def _combine(mean: Tensor, var: Tensor, count: int, group: dist.ProcessGroup | None) -> tuple[Tensor, Tensor, Tensor]:
    """Combines the means and variances of all processes (Chan et al., 1979), whose batches may differ in size."""
    own = torch.cat([mean, var, mean.new_tensor([count])])
    gathered = [torch.empty_like(own) for _ in range(process_count(group))]
    dist.all_gather(gathered, own, group=group)
    table = torch.stack(gathered)
    means, variances, counts = table[:, : len(mean)], table[:, len(mean) : -1], table[:, -1:]
    total = counts.sum()
    joint_mean = (means * counts).sum(0) / total
    joint_var = ((variances + (means - joint_mean) ** 2) * counts).sum(0) / total
    return joint_mean, joint_var, total


def sum_over_processes(sums: Tensor, count: int, group: dist.ProcessGroup | None) -> tuple[Tensor, Tensor | int]:
    """``sums`` and ``count`` summed over the processes of ``group``. ``sums`` is not changed in place."""
    if process_count(group) == 1:
        return sums, count
    packed = torch.cat([sums.flatten(), sums.new_tensor([count])])
    dist.all_reduce(packed, group=group)
    return packed[:-1].view_as(sums), packed[-1]
