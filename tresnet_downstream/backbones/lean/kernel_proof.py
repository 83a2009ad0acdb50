"""Checks on a given device and data type that Triton's kernels compute the results of torch's operators.

Every kernel runs on small random feature maps. The expected results are computed by torch's operators on the CPU in
float64, so that settings of the device (TF32, deterministic algorithms) do not change them.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tresnet_downstream.backbones.lean.interfaces import BlurringKernels

# 72 channels make full and partial tiles, and their rows are aligned to 128 bits, as in most networks.
_IMAGES, _CHANNELS = 2, 72
# H x W, one odd and one even.
_SIDES = 13, 10
# H x W with more pixels than one program sums.
_LARGE_SIDES = 23, 24
# With this slope, negative outputs and their inverses (a slope of 4) have the magnitude of positive ones.
_SLOPE = 0.25
# The largest allowed error of a result, as a multiple of the machine epsilon of its type.
_ROUNDINGS = 2

# Pairs of a kernel's result and the expected result.
Results = Iterator[tuple[Tensor, Tensor]]


def failure_of(kernels: BlurringKernels, device: torch.device, dtype: torch.dtype) -> str | None:
    """Runs every kernel and compares its results.

    Args:
        kernels: the module ``triton_kernels``.
        device: where the kernels run.
        dtype: type of the feature maps.

    Returns:
        The first kernel that failed, and how; None if all results are right.
    """
    # In a new thread, autocast, dispatch modes and transforms of torch.func of the caller are not active.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_first_failure, kernels, device, dtype).result()


@torch.no_grad()
def _first_failure(kernels: BlurringKernels, device: torch.device, dtype: torch.dtype) -> str | None:
    for name, check in CHECKS.items():
        try:
            for result, expected in check(kernels, _Random(device, dtype)):
                if (mismatch := _mismatch(result, expected, dtype)) is not None:
                    return f"{name} {mismatch}"
        except Exception as error:  # For an old GPU or a missing C compiler, Triton raises errors of many types.
            return f"{name} raised {type(error).__name__}: {error}"
    return None


class _Random:
    """Draws random tensors and returns each one twice: on the device for the kernels, and in float64 on the CPU.

    It has a generator of its own, so the global random state does not change.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.generator = torch.Generator("cpu").manual_seed(0)

    def feature_map(self, sides: tuple[int, int] = _SIDES) -> tuple[Tensor, Tensor]:
        """N x C x H x W in the type under test, channels-last, standard normal."""
        values = self._normal(_IMAGES, _CHANNELS, *sides).to(self.dtype)
        return values.to(self.device, memory_format=torch.channels_last), values.double()

    def table(self, per_image: bool = False) -> tuple[Tensor, Tensor]:
        """C, or N x C, in float32, standard normal; the float64 copy broadcasts against feature maps."""
        values = self._normal(*([_IMAGES] if per_image else []), _CHANNELS).float()
        return values.to(self.device), values.double()[..., None, None]

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64, device="cpu")


def _mismatch(result: Tensor, expected: Tensor, dtype: torch.dtype) -> str | None:
    """What is wrong with a result, which is a feature map (N x C x H x W, in ``dtype``) or sums (N x C, in float32)."""
    if expected.dim() != 4:
        dtype = torch.float32
    elif not result.is_contiguous(memory_format=torch.channels_last):
        return "gave a result that is not channels-last"
    if (result.shape, result.dtype) != (expected.shape, dtype):
        return f"gave {tuple(result.shape)} in {result.dtype}, expected {tuple(expected.shape)} in {dtype}"
    eps = torch.finfo(dtype).eps
    # The second term is for rounding inside the kernel, in float32, where large terms cancel.
    allowed = _ROUNDINGS * eps * expected.abs() + max(eps / 16, 1e-6) * expected.abs().max()
    error = (result.cpu().double() - expected).abs()
    # NaN counts as wrong.
    excess = torch.where(error <= allowed, 0.0, (error / allowed).nan_to_num(torch.inf)).flatten()
    worst = excess.argmax()
    if excess[worst] == 0:
        return None
    return f"is off by {error.flatten()[worst]:.3g}, where {allowed.flatten()[worst]:.3g} is allowed"


def _line(
    kernels: BlurringKernels,
    random: _Random,
    *,
    negative_slope: float,
    per_image: bool = False,
    with_shortcut: bool = False,
) -> Results:
    x, exact_x = random.feature_map()
    slope, exact_slope = random.table(per_image)
    offset, exact_offset = random.table(per_image)
    shortcut, exact_shortcut = random.feature_map() if with_shortcut else (None, 0.0)
    expected = F.leaky_relu(exact_slope * exact_x + exact_offset + exact_shortcut, negative_slope)
    yield kernels.line(x, slope, offset, negative_slope, shortcut), expected


def _line_and_blur(kernels: BlurringKernels, random: _Random) -> Results:
    x, exact_x = random.feature_map()
    slope, exact_slope = random.table()
    offset, exact_offset = random.table()
    y, blurred = kernels.line_and_blur(x, slope, offset, _SLOPE)
    yield y, F.leaky_relu(exact_slope * exact_x + exact_offset, _SLOPE)
    # The kernel blurs the rounded output that it stores, so the expected blur is computed from the stored output.
    stored = y.cpu().double()
    yield blurred, torch.einsum("ih,nchw,jw->ncij", _blur_along(_SIDES[0]), stored, _blur_along(_SIDES[1]))


def _blur_along(size: int) -> Tensor:
    """The blur along one side as a matrix, ceil(size/2) x size, with reflected borders."""
    padded = F.pad(torch.eye(size, dtype=torch.float64, device="cpu"), (1, 1), mode="reflect")
    return (padded[:, :-2] / 4 + padded[:, 1:-1] / 2 + padded[:, 2:] / 4)[:, ::2].T


class _Saved(NamedTuple):
    """What a norm has saved for its backward pass.

    Attributes:
        negative_slope: negative slope of the activation; 1 for no activation.
        keeps_x: whether the norm's input is saved.
        keeps_y: whether the activation's output is saved.
        blurred: whether a blur follows the activation.
    """

    negative_slope: float
    keeps_x: bool = False
    keeps_y: bool = False
    blurred: bool = False


class _Gradient:
    """A random ``OutputGradient``; in float64, the expected gradient before the activation and the norm's input."""

    def __init__(
        self, kernels: BlurringKernels, random: _Random, saved: _Saved, sides: tuple[int, int] = _SIDES
    ) -> None:
        negative_slope, keeps_x, keeps_y, blurred = saved
        x, exact_x = random.feature_map(sides) if keeps_x else (None, None)
        y, exact_y = random.feature_map(sides) if keeps_y else (None, None)
        halves = (sides[0] + 1) // 2, (sides[1] + 1) // 2
        grad, exact_grad = random.feature_map(halves if blurred else sides)
        self.ours = kernels.OutputGradient(grad, x, y, negative_slope, blurred)
        if blurred:
            exact_grad = torch.einsum("ih,ncij,jw->nchw", _blur_along(sides[0]), exact_grad, _blur_along(sides[1]))
        if exact_y is not None:
            exact_grad = torch.where(exact_y > 0, exact_grad, negative_slope * exact_grad)
            exact_x = F.leaky_relu(exact_y, 1 / negative_slope) if exact_x is None else exact_x
        assert exact_x is not None
        self.exact_grad, self.exact_x = exact_grad, exact_x


def _gradient_sums(
    kernels: BlurringKernels, random: _Random, *, saved: _Saved, sides: tuple[int, int] = _SIDES
) -> Results:
    gradient = _Gradient(kernels, random, saved, sides)
    centre, exact_centre = random.table()
    total_grad, total_product = gradient.ours.sums(centre)
    yield total_grad, gradient.exact_grad.sum((2, 3))
    yield total_product, (gradient.exact_grad * (gradient.exact_x - exact_centre)).sum((2, 3))


def _gradient_through_relu(kernels: BlurringKernels, random: _Random, *, saved: _Saved) -> Results:
    gradient = _Gradient(kernels, random, saved)
    passed, total_grad, total_product = gradient.ours.through_relu()
    yield passed.grad, gradient.exact_grad
    yield total_grad, gradient.exact_grad.sum((2, 3))
    yield total_product, (gradient.exact_grad * gradient.exact_x).sum((2, 3))
    # The backward pass continues with the gradient that `through_relu` stored.
    factor, exact_factor = random.table(per_image=True)
    offset, exact_offset = random.table(per_image=True)
    yield passed.line(factor, None, offset), exact_factor * gradient.exact_grad + exact_offset


def _gradient_line(
    kernels: BlurringKernels, random: _Random, *, saved: _Saved, per_image: bool = False, with_bend: bool = True
) -> Results:
    gradient = _Gradient(kernels, random, saved)
    factor, exact_factor = random.table(per_image)
    offset, exact_offset = random.table(per_image)
    bend, exact_bend = random.table() if with_bend else (None, 0.0)
    expected = exact_factor * gradient.exact_grad + exact_bend * gradient.exact_x + exact_offset
    yield gradient.ours.line(factor, bend, offset), expected


# What a norm may have saved for its backward pass: its input, its output, or both, with and without a blur after it.
_GRADIENTS = {
    "input": _Saved(1.0, keeps_x=True),
    "output inverted": _Saved(_SLOPE, keeps_y=True),
    "output without activation": _Saved(1.0, keeps_y=True),
    "input and output": _Saved(_SLOPE, keeps_x=True, keeps_y=True),
    "output inverted, blur": _Saved(_SLOPE, keeps_y=True, blurred=True),
    "input and output, blur": _Saved(_SLOPE, keeps_x=True, keeps_y=True, blurred=True),
}
_RELU = _Saved(0.0, keeps_x=True, keeps_y=True)

# From the name of a kernel and of the case to its check.
CHECKS: dict[str, Callable[[BlurringKernels, _Random], Results]] = {
    "line": partial(_line, negative_slope=1.0),
    "line (leaky ReLU)": partial(_line, negative_slope=_SLOPE),
    "line (per image)": partial(_line, negative_slope=1.0, per_image=True),
    "line (ReLU, shortcut)": partial(_line, negative_slope=0.0, with_shortcut=True),
    "line (per image, ReLU, shortcut)": partial(_line, negative_slope=0.0, per_image=True, with_shortcut=True),
    "line_and_blur": _line_and_blur,
    **{f"OutputGradient.sums ({name})": partial(_gradient_sums, saved=saved) for name, saved in _GRADIENTS.items()},
    "OutputGradient.sums (several programs)": partial(_gradient_sums, saved=_GRADIENTS["input"], sides=_LARGE_SIDES),
    "OutputGradient.through_relu": partial(_gradient_through_relu, saved=_RELU),
    "OutputGradient.through_relu (no activation)": partial(_gradient_through_relu, saved=_GRADIENTS["input"]),
    **{f"OutputGradient.line ({name})": partial(_gradient_line, saved=saved) for name, saved in _GRADIENTS.items()},
    "OutputGradient.line (input, per image)": partial(_gradient_line, per_image=True, saved=_GRADIENTS["input"]),
    "OutputGradient.line (output inverted, no bend)": partial(
        _gradient_line, with_bend=False, saved=_GRADIENTS["output inverted"]
    ),
}
