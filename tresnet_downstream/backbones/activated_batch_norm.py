"""Batch norm and leaky ReLU as one layer that saves one tensor for the backward pass.

Follows "In-Place Activated BatchNorm" (Rota Bulo et al., 2018) and its package inplace-abn 1.1.0. Only the output is
saved, and the backward pass inverts the activation and the affine map to recover the normalised input. The scale is
``|weight| + eps``; for a weight of 0, its gradient is that of a positive weight. Departure from the package: if the
rounding error of the inversion would be too large, the input is saved as well.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from tresnet_downstream.backbones.lean.activated_norm import activated_norm
from tresnet_downstream.backbones.lean.invertibility import INVERSION_TOLERANCE, inversion_holds
from tresnet_downstream.backbones.lean.norm_backward import NormValues, batch_statistics, process_count
from tresnet_downstream.backbones.lean.recomputation import is_recomputing, measured_once
from tresnet_downstream.backbones.lean.rules import is_plain, reason_against_steps
from tresnet_downstream.errors import UserError

NORMS = ("inplace", "batchnorm", "sync", "inplace_abn")


class ActivatedBatchNorm(_BatchNorm):
    """Batch norm followed by leaky ReLU or nothing: N x C x H x W in, the same out.

    ``y = activation((x - mean) / sqrt(var + eps) * (|weight| + eps) + bias)``. For every ``norm``, the state dict has
    the keys of ``torch.nn.BatchNorm2d``, and the layer is an instance of torch's ``_BatchNorm``, which functions such
    as ``torch.optim.swa_utils.update_bn`` look for. Do not convert it to ``SyncBatchNorm``, which has no activation;
    use ``norm='sync'``.

    Args:
        num_features: number of channels C.
        slope: negative slope of the leaky ReLU; 1 stands for no activation.
        norm: ``inplace`` saves only its output for the backward pass; ``batchnorm`` computes the same formula by
            torch's own operators; ``sync`` is ``inplace`` with the statistics of all processes; ``inplace_abn`` calls
            the compiled package.
        eps: added to the variance and to ``|weight|``.
        momentum: weight of the batch statistics in the update of the running statistics; None for the cumulative
            average over all batches.

    Raises:
        UserError: for an unknown ``norm`` or a slope outside (0, 1], or if inplace-abn is not installed.
        TypeError: for an input that is not float64, float32, bfloat16 or float16.

    Example:
        >>> norm = ActivatedBatchNorm(4, slope=0.01)
        >>> norm(torch.rand(2, 4, 8, 8)).shape
        torch.Size([2, 4, 8, 8])
    """

    def __init__(
        self,
        num_features: int,
        slope: float = 0.01,
        norm: str = "inplace",
        eps: float = 1e-5,
        momentum: float | None = 0.1,
    ) -> None:
        if norm not in NORMS:
            raise UserError(f"norm={norm!r} is unknown: choose one of {', '.join(NORMS)}")
        if not 0 < slope <= 1:
            raise UserError(f"slope={slope} cannot be inverted: give a number above 0 and at most 1")
        if norm == "inplace_abn":
            _package()
        super().__init__(num_features, _single(eps), momentum)
        self.norm, self.slope = norm, _single(slope)

    def extra_repr(self) -> str:
        """Shows the arguments in ``print(module)``."""
        return f"{self.num_features}, slope={self.slope:g}, norm={self.norm}"

    def forward(self, x: Tensor, blurred: bool = False) -> Tensor:
        """Normalises and activates ``x``: N x C x H x W in, the same out.

        Args:
            x: the input.
            blurred: whether the result is also blurred as by :class:`BlurPool`. Only Triton's kernels can do so.
        """
        check_type(x)
        # For torch.fx, `x` is a proxy and this call is one node of the graph.
        return _forward(
            x, self.weight, self.bias, self.running_mean, self.running_var, self.num_batches_tracked,
            self.training, self.momentum, self.eps, self.slope, self.norm, blurred,
        )  # fmt: skip

    def scale(self) -> Tensor:
        """``|weight| + eps``, with a gradient at a weight of 0."""
        return _scale(self.weight, self.eps)

    def values(self, x: Tensor) -> NormValues:
        """The statistics and parameters that this pass uses. In training mode, updates the running statistics.

        Args:
            x: the norm's input, N x C x H x W.
        """
        check_type(x)
        buffers = self.running_mean, self.running_var, self.num_batches_tracked
        return _values(x, self.weight, self.bias, *buffers, self.training, self.momentum, self.eps, self.norm)


@torch.fx.wrap
def check_type(x: Tensor) -> None:
    """Raises TypeError unless ``INVERSION_TOLERANCE`` has a bound on the error for the type of ``x``."""
    if x.dtype not in INVERSION_TOLERANCE:
        raise TypeError(f"ActivatedBatchNorm takes float64, float32, bfloat16 or float16, got {x.dtype}")


@torch.fx.wrap
def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    num_batches_tracked: Tensor | None,
    training: bool,
    momentum: float | None,
    eps: float,
    slope: float,
    norm: str,
    blurred: bool,
) -> Tensor:
    buffers = running_mean, running_var, num_batches_tracked
    if norm == "inplace_abn":
        return _by_package(x, weight, bias, *buffers, training, momentum, eps, slope)
    group = sync_group(norm)
    shares = training and process_count(group) > 1
    plain = (
        norm == "batchnorm"
        or running_mean is None
        or not is_plain(weight, bias, running_mean, running_var)
        or reason_against_steps(x) is not None
    )
    if plain and shares:
        reason = reason_against_steps(x) or "parameters or statistics are missing or not plain tensors"
        raise UserError(f"norm='sync' cannot share statistics over processes here ({reason}): use norm='inplace'")
    if plain:
        update = training and not is_recomputing()
        factor = _count_batch(num_batches_tracked, momentum) if update else 0.0
        measures = training or running_mean is None
        y = F.batch_norm(x, running_mean, running_var, _scale(weight, eps), bias, measures, factor, eps)
        return y if slope == 1 else F.leaky_relu(y, slope)
    values = _values(x, weight, bias, running_mean, running_var, num_batches_tracked, training, momentum, eps, norm)
    invert = False
    if torch.is_grad_enabled():
        invert = measured_once(lambda: inversion_holds(weight, bias, eps, slope, x.dtype))
    return activated_norm(x, values, slope, invert, blurred)


def _values(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    num_batches_tracked: Tensor | None,
    training: bool,
    momentum: float | None,
    eps: float,
    norm: str,
) -> NormValues:
    assert running_mean is not None
    assert running_var is not None
    mean, var = running_mean, running_var
    group = sync_group(norm)

    def measure() -> tuple[Tensor, Tensor]:
        if not training:
            wide = torch.promote_types(var.dtype, torch.float32)
            return mean.to(wide), torch.rsqrt(var.to(wide) + eps)
        # For bfloat16 and float16, statistics are computed and saved in float32.
        return batch_statistics(x, mean, var, _count_batch(num_batches_tracked, momentum), eps, group)

    return NormValues(weight, bias, *measured_once(measure), eps, training, group)


def _count_batch(num_batches_tracked: Tensor | None, momentum: float | None) -> float:
    """Counts one training batch; returns the weight of its statistics in the update of the running statistics."""
    if num_batches_tracked is not None:
        num_batches_tracked.add_(1)
        if momentum is None:
            return 1.0 / float(num_batches_tracked)
    return 0.0 if momentum is None else momentum


def _scale(weight: Tensor, eps: float) -> Tensor:
    # The derivative of |weight| is -1 for negative weights, otherwise 1: inplace-abn's choice at 0.
    sign = torch.where(weight.detach() < 0, -1.0, 1.0).to(weight.dtype)
    return weight * sign + eps


def sync_group(norm: str) -> dist.ProcessGroup | None:
    """The process group that shares statistics; None if each process uses its own."""
    return dist.group.WORLD if norm == "sync" and dist.is_initialized() else None


def _by_package(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    num_batches_tracked: Tensor | None,
    training: bool,
    momentum: float | None,
    eps: float,
    slope: float,
) -> Tensor:
    activation = "identity" if slope == 1 else "leaky_relu"
    factor = _count_batch(num_batches_tracked, momentum) if training and not is_recomputing() else 0.0
    parameters = weight, bias, running_mean, running_var
    return _package()(x, *parameters, training, factor, eps, activation, slope)


def _single(value: float) -> float:
    """The nearest float32. inplace-abn stores its constants in float32, also when it computes in float64."""
    return float(np.float32(value))


def _package() -> Callable[..., Tensor]:
    try:
        from inplace_abn.functions import inplace_abn
    except ImportError as error:
        raise UserError(
            "norm='inplace_abn' needs the compiled package: pip install 'tresnet-downstream[inplace-abn]' "
            "(needs a compiler), or use norm='inplace', which computes the same"
        ) from error
    function: Callable[..., Tensor] = inplace_abn
    return function
