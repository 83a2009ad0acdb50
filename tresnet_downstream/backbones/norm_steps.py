"""What batch norms are made of: statistics over one or more processes, lines per channel, sums for gradients."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from tresnet_downstream.backbones.acceleration import kernels_for


def weight_sign(weight: Tensor) -> Tensor:
    """-1 for negative weights, otherwise 1: the derivative of ``|weight|`` with inplace-abn's choice at 0."""
    return torch.where(weight.detach() < 0, -1.0, 1.0).to(weight.dtype)


def grad_of_weight(grad_scale: Tensor, weight: Tensor) -> Tensor:
    """From the gradient of ``|weight| + eps``, in any type."""
    return torch.where(weight < 0, -grad_scale, grad_scale).to(weight.dtype)


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

    Moves the running statistics, the variance as the unbiased estimate.
    """
    size = x.numel() // x.shape[1]
    wide = torch.promote_types(x.dtype, torch.float32)
    alone = process_count(group) == 1
    if alone and size == 1:
        raise ValueError(f"more than one value per channel is needed in training, got an input of {tuple(x.shape)}")
    fused = x.device.type in ("cpu", "cuda")
    if fused and alone and running_mean.dtype == wide:
        # One pass over memory, which moves the running statistics too.
        mean, var = torch.ops.aten.batch_norm_update_stats(x, running_mean, running_var, momentum)
        return mean, torch.rsqrt(var + eps)
    if fused:
        mean, var = torch.ops.aten.batch_norm_update_stats(x, running_mean.to(wide), running_var.to(wide), 0.0)
    else:
        var, mean = torch.var_mean(x.to(wide), (0, 2, 3), correction=0)
    count: int | Tensor = size
    if not alone:
        mean, var, count = _combine(mean, var, size, group)
    running_mean.lerp_(mean.to(running_mean.dtype), momentum)
    running_var.lerp_((var * (count / (count - 1))).to(running_var.dtype), momentum)
    return mean, torch.rsqrt(var + eps)


def _combine(mean: Tensor, var: Tensor, count: int, group: dist.ProcessGroup | None) -> tuple[Tensor, Tensor, Tensor]:
    """Joins the processes' means and variances (Chan et al., 1979); their batches may differ in size."""
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
    """``sums`` and ``count`` added up over the processes of ``group``; ``sums`` itself is not changed."""
    if process_count(group) == 1:
        return sums, count
    packed = torch.cat([sums.flatten(), sums.new_tensor([count])])
    dist.all_reduce(packed, group=group)
    return packed[:-1].view_as(sums), packed[-1]


def norm_line(weight: Tensor, bias: Tensor, mean: Tensor, inv_std: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Slope and offset, per channel, of a norm as a line in its input."""
    slope = (weight.to(mean.dtype).abs() + eps) * inv_std
    return slope, bias.to(mean.dtype) - mean * slope


def affine(x: Tensor, slope: Tensor, offset: Tensor) -> Tensor:
    """``slope * x + offset`` in the type of ``x``; N x C x H x W with C, or N x C, slopes and offsets."""
    if (kernels := kernels_for(x)) is not None:
        return kernels.line(x, slope, offset)
    if slope.dtype != x.dtype and slope.dim() == 1:
        # Torch's fused kernel reads and writes the short type and computes in the wide one.
        return torch.native_batch_norm(
            x, slope, offset, torch.zeros_like(slope), torch.ones_like(slope), False, 0.0, 0.0
        )[0]
    line = (spatial(values) if values.dim() == 2 else per_channel(values) for values in (offset, slope))
    offset, slope = line
    return torch.addcmul(offset, x, slope).to(x.dtype)


def activated(x: Tensor, slope: Tensor, offset: Tensor, negative_slope: float) -> Tensor:
    """``leaky_relu(slope * x + offset)``; a negative slope of 1 stands for no activation."""
    if (kernels := kernels_for(x)) is not None:
        return kernels.line(x, slope, offset, negative_slope)
    y = affine(x, slope, offset)
    return y if negative_slope == 1 else F.leaky_relu_(y, negative_slope)


def joined(x: Tensor, slope: Tensor, offset: Tensor, shortcut: Tensor) -> Tensor:
    """``relu(slope * x + offset + shortcut)``, the end of a block."""
    if (kernels := kernels_for(x, shortcut)) is not None:
        return kernels.line(x, slope, offset, 0.0, shortcut)
    return F.relu_(affine(x, slope, offset).add_(shortcut))


def per_channel(values: Tensor) -> Tensor:
    """C to 1 x C x 1 x 1."""
    return values.view(1, -1, 1, 1)


def spatial(values: Tensor) -> Tensor:
    """N x C to N x C x 1 x 1."""
    return values.view(*values.shape, 1, 1)


def unread(shape: Sequence[int], like: Tensor) -> Tensor:
    """A tensor without numbers of its own, for a result that nobody reads."""
    return like.new_empty(()).expand(shape)
