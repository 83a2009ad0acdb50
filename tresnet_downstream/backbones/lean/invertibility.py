"""Whether a norm's output can be inverted: how far rounding would be amplified, measured of weight and bias.

On a CPU the numbers are read at once. On a GPU reading them would wait for all the work that is queued. So only the
first pass waits; each later one uses the numbers of the pass before, which have arrived meanwhile, and asks for its
own. A step of the optimiser changes them little: a part of the tolerance is left for it, and where that was not
enough, a warning says so. A pass that a CUDA graph captures keeps the norm's input, since the graph will run with other
weights.
"""

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

# The largest error that inversion may bring into the normalised input, whose variance is 1. In float32 and float64 it
# is a few hundred roundings of the output or more. In the short types it is 2.5, for a bias of 1.5 scales: up to there
# gradients have at most twice the error of torch's convolution and norm (tests/backbones/lean/test_short_types.py).
INVERSION_TOLERANCE = {
    torch.float64: 1e-9,
    torch.float32: 2e-5,
    torch.bfloat16: 1.25 * 2**-7,
    torch.float16: 1.25 * 2**-10,
}
# The share of the tolerance that the numbers of the pass before may take up. Half of a short type's tolerance is hardly
# more than the rounding that a bias of 0 has.
_SHARE_BEFORE_STEP = {torch.float64: 0.5, torch.float32: 0.5, torch.bfloat16: 0.8, torch.float16: 0.8}


# Devices whose numbers are read at once.
READ_AT_ONCE = ["cpu"]


class _Measured(NamedTuple):
    """The numbers of one pass, and what was decided in it.

    Attributes:
        numbers: ``max(|bias| / scale)`` and ``max(1 / scale)`` in host memory, once ``arrived`` has passed.
        arrived: event on the device; None if the numbers are there.
        version: of the weight that they were measured of.
        inverted: whether that pass inverted.
    """

    numbers: Tensor
    arrived: "torch.cuda.Event | None"
    version: int
    inverted: bool


_measured: Any = WeakTensorKeyDictionary()


def inversion_holds(weight: Tensor, bias: Tensor, eps: float, slope: float, dtype: torch.dtype) -> bool:
    """Whether a norm's input can be recovered from an output that is stored as ``dtype``, within the tolerance.

    Args:
        weight: C; the scale is ``|weight| + eps``.
        bias: C.
        eps: see ``weight``.
        slope: negative slope of the leaky ReLU behind the norm.
        dtype: of the output.
    """
    if weight.device.type in READ_AT_ONCE:
        return _amplified_error(_numbers(weight, bias, eps), slope, dtype) <= INVERSION_TOLERANCE[dtype]
    if torch.cuda.is_current_stream_capturing():
        return False
    last: _Measured | None = _measured.get(weight)
    if last is not None and last.version == weight._version:
        # Frozen weights, or a pass that is computed again.
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
    _measured[weight] = _Measured(*_on_their_way(numbers), weight._version, inverted)
    return inverted


@torch.no_grad()
def _numbers(weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    inverse = (weight.abs() + eps).reciprocal()
    return torch.stack([bias.abs() * inverse, inverse]).amax(1)


def _on_their_way(numbers: Tensor) -> tuple[Tensor, "torch.cuda.Event | None"]:
    if numbers.device.type != "cuda":
        return numbers.cpu(), None
    host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True).copy_(numbers, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()
    return host, arrived


def _amplified_error(numbers: Tensor, slope: float, dtype: torch.dtype) -> float:
    """The output's rounding error ``u * (scale + |bias|)``, divided by the scale.

    Below the smallest subnormal number it is also divided by the slope.
    """
    shift_over_scale, inverse_scale = numbers.tolist()
    limits = torch.finfo(dtype)
    rounding = limits.eps / 2 * (1 + shift_over_scale)
    return float(rounding + limits.smallest_normal * limits.eps / 2 / slope * inverse_scale)
