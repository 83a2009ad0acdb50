"""Estimates, from a norm's weight and bias, whether inverting its output amplifies rounding errors too much.

On a CPU, the estimate is read in the same pass. On a GPU, reading it would wait for all queued work. Therefore only the
first pass waits. Each later pass uses the estimate of the preceding one, which has been copied in the meantime, and
starts the copy of its own. The decision uses a part of the tolerance, because an optimiser step changes the weights
slightly. If the error exceeded the whole tolerance, a warning says so. A pass that a CUDA graph captures saves the
norm's input, since the graph may be replayed with other weights.
"""

import warnings
from collections.abc import MutableMapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

# The largest error that inversion may cause in the normalised input, whose variance is 1. For float32 and float64 it is
# at least a few hundred times the rounding error of the output. For bfloat16 and float16 it is 2.5 times, which a bias
# of 1.5 times the scale reaches. Up to this tolerance, gradients have at most twice the error of torch's operators
# (tests/backbones/lean/test_short_types.py).
INVERSION_TOLERANCE = {
    torch.float64: 1e-9,
    torch.float32: 2e-5,
    torch.bfloat16: 1.25 * 2**-7,
    torch.float16: 1.25 * 2**-10,
}
# The share of the tolerance up to which the estimate of the preceding pass allows inversion. For bfloat16 and float16
# it is above a half, since half of the tolerance is hardly more than the rounding error for a bias of 0.
_SHARE_BEFORE_STEP = {torch.float64: 0.5, torch.float32: 0.5, torch.bfloat16: 0.8, torch.float16: 0.8}


# Devices on which the estimate is read in the same pass.
READ_AT_ONCE = ["cpu"]


class _Measured(NamedTuple):
    """The numbers of one pass and its decision.

    Attributes:
        numbers: ``max(|bias| / scale)`` and ``max(1 / scale)`` in host memory, valid after the event ``arrived``.
        arrived: the event on the device after the copy; None if the numbers are valid already.
        version: version counter of the weight from which they were computed.
        inverted: whether that pass inverts its output.
    """

    numbers: Tensor
    arrived: "torch.cuda.Event | None"
    version: int
    inverted: bool


_measured: MutableMapping[Tensor, _Measured] = WeakTensorKeyDictionary()


def inversion_holds(weight: Tensor, bias: Tensor, eps: float, slope: float, dtype: torch.dtype) -> bool:
    """Whether a norm's input can be recovered from an output that is stored as ``dtype``, within the tolerance.

    Args:
        weight: C; the scale is ``|weight| + eps``.
        bias: C.
        eps: see ``weight``.
        slope: negative slope of the leaky ReLU after the norm.
        dtype: type of the output.
    """
    if weight.device.type in READ_AT_ONCE:
        return _amplified_error(_numbers(weight, bias, eps), slope, dtype) <= INVERSION_TOLERANCE[dtype]
    if torch.cuda.is_current_stream_capturing():
        return False
    last: _Measured | None = _measured.get(weight)
    if last is not None and last.version == weight._version:
        # The weights are frozen, or the pass is recomputed.
        return last.inverted
    numbers = _numbers(weight, bias, eps)
    if last is None:
        inverted = _amplified_error(numbers.cpu(), slope, dtype) <= INVERSION_TOLERANCE[dtype]
        _measured[weight] = _Measured(numbers.cpu(), None, weight._version, inverted)
        return inverted
    if last.arrived is not None:
        last.arrived.synchronize()
    error = _amplified_error(last.numbers, slope, dtype)
    if last.inverted and error > INVERSION_TOLERANCE[dtype]:
        warnings.warn(
            f"the weights of a norm changed so much in one step that its gradients had an error of up to {error:.1g} "
            f"of their size, above {INVERSION_TOLERANCE[dtype]:.1g}; norm='batchnorm' has no such error",
            stacklevel=2,
        )
    inverted = error <= INVERSION_TOLERANCE[dtype] * _SHARE_BEFORE_STEP[dtype]
    _measured[weight] = _Measured(*_copied_to_host(numbers), weight._version, inverted)
    return inverted


@torch.no_grad()
def _numbers(weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    inverse = (weight.abs() + eps).reciprocal()
    return torch.stack([bias.abs() * inverse, inverse]).amax(1)


def _copied_to_host(numbers: Tensor) -> tuple[Tensor, "torch.cuda.Event | None"]:
    if numbers.device.type != "cuda":
        return numbers.cpu(), None
    host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True).copy_(numbers, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()
    return host, arrived


def _amplified_error(numbers: Tensor, slope: float, dtype: torch.dtype) -> float:
    """The error of the inverted output: the rounding error ``u * (scale + |bias|)`` divided by the scale.

    The rounding error of subnormal numbers is also divided by the slope and added.
    """
    shift_over_scale, inverse_scale = numbers.tolist()
    limits = torch.finfo(dtype)
    rounding = limits.eps / 2 * (1 + shift_over_scale)
    return float(rounding + limits.smallest_normal * limits.eps / 2 / slope * inverse_scale)
