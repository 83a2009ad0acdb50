"""Batch norm and leaky ReLU as one layer that keeps one tensor for the backward pass.

Follows "In-Place Activated BatchNorm" (Rota Bulo et al., 2018) and its package inplace-abn 1.1.0: the output
alone is kept, and the backward pass inverts the activation and the affine map to recover the normalised input.
As there, the scale is ``|weight| + eps``, and its gradient at a weight of exactly 0 is that of a positive
weight. Departure: where rounding would spoil the inversion, the input is kept as well.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tresnet_downstream.backbones.acceleration import kernels_for
from tresnet_downstream.backbones.fused_norm import FusedNorm
from tresnet_downstream.backbones.norm_steps import (
    activated,
    batch_statistics,
    grad_of_weight,
    norm_line,
    per_channel,
    sum_over_processes,
    weight_sign,
)
from tresnet_downstream.backbones.recomputation import Statistics, is_recomputing, statistics_of
from tresnet_downstream.errors import UserError

NORMS = ("inplace", "batchnorm", "sync", "inplace_abn")

# The largest error that inversion may bring into the normalised input, whose variance is 1. Each is a few
# hundred (float32, float64) or a few (the short types) roundings of the output, which the forward pass has too.
INVERSION_TOLERANCE = {
    torch.float64: 1e-9,
    torch.float32: 2e-5,
    torch.bfloat16: 2**-5,
    torch.float16: 2**-7,
}


def uses_plain_operators() -> bool:
    """True where a graph is being captured: the compiler and the exporters see torch's own operators."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


class _InPlaceNorm(torch.autograd.Function):
    """Normalise, scale, shift, leaky ReLU (slope 1: none); see the module's docstring."""

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
    ) -> Tensor:
        y = activated(x, *norm_line(weight, bias, mean, inv_std, eps), slope)
        ctx.eps, ctx.slope, ctx.training, ctx.invert, ctx.group = eps, slope, training, invert, group
        kept = (None if invert else x, None if slope == 1 and not invert else y)
        ctx.save_for_backward(*kept, weight, bias, mean, inv_std)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, y, weight, bias, mean, inv_std = ctx.saved_tensors
        scale, wide = weight.to(mean.dtype).abs() + ctx.eps, mean.dtype
        grad_z = grad_y.to(wide)
        if ctx.slope != 1:
            grad_z = torch.ops.aten.leaky_relu_backward(grad_z, y.to(wide), ctx.slope, True)
        # The normalised input is (source - centre) * inv_spread, whether source is the input or what it became.
        if ctx.invert:
            source = y.to(wide) if ctx.slope == 1 else F.leaky_relu(y.to(wide), 1 / ctx.slope)
            centre, inv_spread = bias.to(wide), 1 / scale
        else:
            source, centre, inv_spread = x.to(wide), mean, inv_std
        # One pass of torch's kernel: the sums over pixels of grad_z times the normalised input, and of grad_z.
        spread = inv_spread**-2
        _, grad_scale, grad_shift = torch.ops.aten.native_batch_norm_backward(
            grad_z, source, scale, centre, spread, None, None, False, 0.0, [False, True, True]
        )
        slope_of_x = scale * inv_std
        if ctx.training:
            size = grad_y.numel() // grad_y.shape[1]
            totals, count = sum_over_processes(torch.stack([grad_shift, grad_scale]), size, ctx.group)
            mean_grad, mean_product = totals / count
            curve = mean_product * inv_spread
            offset = slope_of_x * (centre * curve - mean_grad)
            own = source if ctx.invert and ctx.slope != 1 else None
            line = torch.addcmul(per_channel(offset), source, per_channel(-slope_of_x * curve), out=own)
            grad_x = line.addcmul_(grad_z, per_channel(slope_of_x))
        else:
            grad_x = grad_z * per_channel(slope_of_x)
        return grad_x.to(grad_y.dtype), grad_of_weight(grad_scale, weight), grad_shift.to(bias.dtype), *[None] * 7


class ActivatedBatchNorm(nn.Module):
    """Batch norm followed by leaky ReLU or nothing: N x C x H x W in, the same out.

    ``y = activation((x - mean) / sqrt(var + eps) * (|weight| + eps) + bias)``. The state dict is that of
    ``torch.nn.BatchNorm2d`` whatever ``norm`` is. It is no subclass of torch's batch norm: code that looks for
    those (weight-decay rules, conversions to SyncBatchNorm) passes it by, so use ``norm='sync'`` instead.

    Args:
        num_features: number of channels C.
        slope: negative slope of the leaky ReLU; 1 stands for no activation.
        norm: ``inplace`` keeps its output alone for the backward pass; ``batchnorm`` is the same formula in
            torch's own operators; ``sync`` is ``inplace`` with the statistics of all processes;
            ``inplace_abn`` is the compiled package.
        eps: added to the variance and to ``|weight|``.
        momentum: share of the new statistics in the running ones.

    Raises:
        UserError: for an unknown ``norm`` or a slope outside (0, 1], or if inplace-abn is not installed.
        TypeError: for an input that is not float64, float32, bfloat16 or float16.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_features: int,
        slope: float = 0.01,
        norm: str = "inplace",
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        if norm not in NORMS:
            raise UserError(f"norm={norm!r} is unknown: choose one of {', '.join(NORMS)}")
        if not 0 < slope <= 1:
            raise UserError(f"slope={slope} cannot be inverted: give a number above 0 and at most 1")
        if norm == "inplace_abn":
            _package()
        self.num_features, self.norm, self.momentum = num_features, norm, momentum
        self.slope, self.eps = _single(slope), _single(eps)
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long))
        self._amplification: tuple[float, float] | None = None

    def extra_repr(self) -> str:
        """Shows the arguments in ``print(module)``."""
        return f"{self.num_features}, slope={self.slope:g}, norm={self.norm}"

    @property
    def group(self) -> dist.ProcessGroup | None:
        """The processes that share statistics; None for each by itself."""
        return dist.group.WORLD if self.norm == "sync" and dist.is_initialized() else None

    def scale(self) -> Tensor:
        """``|weight| + eps``, with a gradient at a weight of 0."""
        return self.weight * weight_sign(self.weight) + self.eps

    def statistics(self, x: Tensor) -> Statistics:
        """Mean and inverse standard deviation that this pass uses; in training mode, moves the running ones."""
        check_type(x)
        return statistics_of(self, lambda: self._measure(x))

    def _measure(self, x: Tensor) -> Statistics:
        if not self.training:
            wide = torch.promote_types(self.running_var.dtype, torch.float32)
            return self.running_mean.to(wide), torch.rsqrt(self.running_var.to(wide) + self.eps)
        self.count_batch()
        # The short types' statistics are taken in float32, as is what is kept of them.
        return batch_statistics(x, self.running_mean, self.running_var, self.momentum, self.eps, self.group)

    def count_batch(self) -> None:
        """Counts one training batch, once."""
        if not is_recomputing():
            self.num_batches_tracked += 1

    def forward(self, x: Tensor, blurred: bool = False) -> Tensor:
        """Normalises and activates ``x``; on Triton's kernels, also blurs it as :class:`BlurPool` does if asked."""
        if self.norm == "inplace_abn":
            return self._compiled_forward(x)
        if self.norm == "batchnorm" or uses_plain_operators():
            return self._plain_forward(x)
        mean, inv_std = self.statistics(x)
        if not torch.is_grad_enabled():
            return activated(x, *norm_line(self.weight, self.bias, mean, inv_std, self.eps), self.slope)
        step, blur = (FusedNorm, (blurred,)) if kernels_for(x) is not None else (_InPlaceNorm, ())
        return step.apply(
            x,
            self.weight,
            self.bias,
            mean,
            inv_std,
            self.eps,
            self.slope,
            self.training,
            self.inversion_holds(x.dtype),
            self.group,
            *blur,
        )

    def _plain_forward(self, x: Tensor) -> Tensor:
        check_type(x)
        update = self.training and not is_recomputing()
        if update:
            self.num_batches_tracked += 1
        y = F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.scale(),
            self.bias,
            self.training,
            self.momentum if update else 0.0,
            self.eps,
        )
        return y if self.slope == 1 else F.leaky_relu(y, self.slope)

    def _compiled_forward(self, x: Tensor) -> Tensor:
        activation = "identity" if self.slope == 1 else "leaky_relu"
        momentum = 0.0 if is_recomputing() else self.momentum
        if self.training:
            self.count_batch()
        return _package()(
            x,
            self.weight,
            self.bias,
            self.running_mean,
            self.running_var,
            self.training,
            momentum,
            self.eps,
            activation,
            self.slope,
        )

    def inversion_holds(self, dtype: torch.dtype) -> bool:
        """Whether the normalised input can be recovered from an output stored as ``dtype``.

        The output's rounding error ``u * (scale + |bias|)`` comes back divided by the scale, and below the
        smallest subnormal number also by the slope.
        """
        shift_over_scale, inverse_scale = self._amplification or amplifications([self])[0]
        limits = torch.finfo(dtype)
        error = limits.eps / 2 * (1 + shift_over_scale)
        # A value rounded to a multiple of the smallest subnormal; the leaky side is divided by the slope.
        error += limits.smallest_normal * limits.eps / 2 / self.slope * inverse_scale
        return error <= INVERSION_TOLERANCE[dtype]


@torch.no_grad()
def amplifications(norms: Sequence[ActivatedBatchNorm]) -> list[tuple[float, float]]:
    """``max(|bias| / scale)`` and ``max(1 / scale)`` of each layer, by few operators and one look at the device."""
    sizes = [norm.num_features for norm in norms]
    eps = torch.tensor([norm.eps for norm in norms]).repeat_interleave(torch.tensor(sizes))
    weights = torch.cat([norm.weight for norm in norms])
    inverse = (weights.abs() + eps.to(weights)).reciprocal()
    ratio = torch.cat([norm.bias for norm in norms]).abs() * inverse
    table = torch.stack([ratio, inverse]).cpu().split(sizes, dim=1)
    return [tuple(part.amax(1).tolist()) for part in table]


@contextmanager
def measured_together(norms: Sequence[ActivatedBatchNorm]) -> Iterator[None]:
    """Inside, each layer knows its amplification already: a network waits for the device once, not per layer."""
    for norm, amplification in zip(norms, amplifications(norms), strict=True):
        norm._amplification = amplification
    try:
        yield
    finally:
        for norm in norms:
            norm._amplification = None


def check_type(x: Tensor) -> None:
    """Raises TypeError for a type that the layer has no bound on the error for."""
    if x.dtype not in INVERSION_TOLERANCE:
        raise TypeError(f"ActivatedBatchNorm takes float64, float32, bfloat16 or float16, got {x.dtype}")


def _single(value: float) -> float:
    """The nearest float32: inplace-abn holds its constants so, even where it computes in float64."""
    return float(np.float32(value))


def _package() -> Any:
    try:
        from inplace_abn.functions import inplace_abn
    except ImportError as error:
        raise UserError(
            "norm='inplace_abn' needs the compiled package: pip install 'tresnet-downstream[inplace-abn]' "
            "(needs a compiler), or use norm='inplace', which computes the same"
        ) from error
    return inplace_abn
