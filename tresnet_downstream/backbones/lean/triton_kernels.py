"""Triton's kernels for what training does to feature maps between convolutions.

All of it is bound by memory, so what counts is how often a feature map is read or written. In passes over one, of
float32 (torch's operators take up to seven times as many over bfloat16, in copies of float32):

| step                                                | torch, forward | here | torch, backward | here |
|-----------------------------------------------------|----------------|------|-----------------|------|
| norm, leaky ReLU                                    | 4              | 2    | 12              | 5    |
| norm, leaky ReLU, blur                              | 7.25           | 2.25 | 15.25           | 3.5  |
| norm, SE scale, shortcut, ReLU (without the means)  | 7              | 3    | 13              | 7    |
| norm, shortcut, ReLU behind a 1x1 convolution       | 7              | 3    | as torch        |      |

Feature maps are N x C x H x W in channels-last layout, so that the numbers of a pixel lie side by side, in float32 or
a short type; numbers per channel are float32, as is all arithmetic. Sums are taken in two stages, without atomic
additions: their order, and so the result, is the same in every run.
"""

from typing import Any

import torch
import triton
from torch import Tensor

from tresnet_downstream.backbones.lean import triton_programs

# A program's tile: 64 channels of a short type are the 128 bytes that a GPU reads at once. A blur needs the registers
# of several tiles. The number of channels is a constant of the compiled kernel, so that it knows how far rows are
# aligned and loads up to 128 bits at once.
_PIXELS = 64
_PIXELS_AT_BLUR = 32
_COLUMNS = 64
_WARPS = 8
# Pixels that one program sums up: the partial sums are then few beside what they are taken of.
_PIXELS_IN_SUM = 512
# CUDA's limit for the grid's second and third axis, which are pixels and pictures.
_MOST_PROGRAMS = 65535


def fits(x: Tensor) -> bool:
    """Whether grids and offsets reach all of a feature map, N x C x H x W, and of its gradient."""
    n, _, height, width = x.shape
    # The smallest tile makes the largest grid. Offsets inside a picture are of 32 bits.
    most_pixels = _MOST_PROGRAMS * min(_PIXELS, _PIXELS_AT_BLUR)
    return n <= _MOST_PROGRAMS and height * width <= most_pixels and x.numel() < 2**31


def line(
    x: Tensor, slope: Tensor, offset: Tensor, negative_slope: float = 1.0, shortcut: Tensor | None = None
) -> Tensor:
    """``leaky_relu(slope * x + offset + shortcut)``: one read of each, one write.

    Args:
        x: N x C x H x W.
        slope: C, or N x C.
        offset: likewise.
        negative_slope: 1 stands for no activation, 0 for ReLU.
        shortcut: as ``x``; None for 0.
    """
    y = torch.empty_like(x)
    slope, offset, stride = _table(slope, offset)
    size, grid, tile = _launch(x)
    with torch.cuda.device_of(x):
        triton_programs.line_kernel[grid](
            x, slope, offset, shortcut, y, *size, stride, negative_slope, *tile, num_warps=_WARPS
        )
    return y


def line_and_blur(x: Tensor, slope: Tensor, offset: Tensor, negative_slope: float) -> tuple[Tensor, Tensor]:
    """``y = leaky_relu(slope * x + offset)`` and what :class:`BlurPool` makes of it: ``x`` is read once.

    Args:
        x: N x C x H x W, both sides at least 2.
        slope: C.
        offset: C.
        negative_slope: 1 stands for no activation.

    Raises:
        ValueError: if a side is 1 pixel, which has no neighbour to reflect.
    """
    n, channels, height, width = x.shape
    if min(height, width) < 2:
        raise ValueError(f"a blur needs at least 2 x 2 pixels, got {height} x {width}")
    y = torch.empty_like(x)
    halves = n, channels, (height + 1) // 2, (width + 1) // 2
    blurred = torch.empty(halves, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    _, grid, tile = _launch(blurred, tile_pixels=_PIXELS_AT_BLUR)
    with torch.cuda.device_of(x):
        triton_programs.line_and_blur_kernel[grid](
            x, slope, offset, y, blurred, height, width, channels, negative_slope, *tile, num_warps=_WARPS
        )
    return y, blurred


class OutputGradient:
    """The gradient at the output of a norm with leaky ReLU, taken back through the activation as it is read.

    Args:
        grad: gradient of the activation's output, N x C x H x W; of its blur, if ``blurred``.
        x: the norm's input; None to use what it became, the activation's output inverted.
        y: the activation's output; None if there is no activation.
        negative_slope: 1 stands for no activation, 0 for ReLU.
        blurred: whether a blur follows.
    """

    def __init__(
        self, grad: Tensor, x: Tensor | None, y: Tensor | None, negative_slope: float = 1.0, blurred: bool = False
    ) -> None:
        self.grad = grad.contiguous(memory_format=torch.channels_last)
        self.x, self.y, self.negative_slope, self.blurred = x, y, negative_slope, blurred

    def sums(self, centre: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Over each picture, N x C each: the gradient, and its product with the norm's input less ``centre`` (C)."""
        return self._sums(centre, None)

    def through_relu(self) -> tuple["OutputGradient", Tensor, Tensor]:
        """The gradient at the activation's input, as a tensor, and its two sums."""
        passed = None if self.y is None else torch.empty_like(self.grad)
        sums = self._sums(None, passed)
        return self if passed is None else OutputGradient(passed, self.x, None), *sums

    def _sums(self, centre: Tensor | None, passed: Tensor | None) -> tuple[Tensor, Tensor]:
        size, grid, tile = _launch(self._like, self._tile_pixels, _PIXELS_IN_SUM)
        partial = self.grad.new_empty((grid[2], grid[1], 2, self.grad.shape[1]), dtype=torch.float32)
        with torch.cuda.device_of(self.grad):
            triton_programs.sums_kernel[grid](
                *self._pointers, centre, passed, partial, *size, *self._activation, _PIXELS_IN_SUM, *tile,
                num_warps=_WARPS,
            )  # fmt: skip
        total_grad, total_product = partial.sum(1).unbind(1)
        return total_grad, total_product

    def line(self, factor: Tensor, bend: Tensor | None, offset: Tensor) -> Tensor:
        """``factor * gradient + bend * input + offset``, the gradient of the norm's input.

        Args:
            factor: C, or N x C.
            bend: C; None for 0.
            offset: as ``factor``.
        """
        grad_x = torch.empty_like(self._like)
        factor, offset, stride = _table(factor, offset)
        size, grid, tile = _launch(grad_x, self._tile_pixels)
        with torch.cuda.device_of(self.grad):
            triton_programs.grad_line_kernel[grid](
                *self._pointers, factor, bend, offset, grad_x, *size, stride, *self._activation, *tile,
                num_warps=_WARPS,
            )  # fmt: skip
        return grad_x

    @property
    def _like(self) -> Tensor:
        found = self.grad if self.x is None else self.x
        return found if self.y is None else self.y

    @property
    def _tile_pixels(self) -> int:
        return _PIXELS_AT_BLUR if self.blurred else _PIXELS

    @property
    def _pointers(self) -> tuple[Tensor | None, ...]:
        return self.grad, self.x, self.y

    @property
    def _activation(self) -> tuple[Any, ...]:
        return self._like.shape[3], self.negative_slope, self.blurred


def _table(slope: Tensor, offset: Tensor) -> tuple[Tensor, Tensor, int]:
    """Both as C or as N x C, and the step from one picture's values to the next's."""
    channels = slope.shape[-1]
    slope, offset = (values.contiguous() for values in torch.broadcast_tensors(slope, offset))
    return slope, offset, 0 if slope.numel() == channels else channels


def _launch(
    x: Tensor, tile_pixels: int = _PIXELS, program_pixels: int | None = None
) -> tuple[tuple[int, int], tuple[int, int, int], tuple[int, int]]:
    """A picture's pixels and channels; the grid of programs, over channels, pixels and pictures; the tile."""
    n, channels, height, width = x.shape
    columns = min(triton.next_power_of_2(channels), _COLUMNS)
    grid = triton.cdiv(channels, columns), triton.cdiv(height * width, program_pixels or tile_pixels), n
    return (height * width, channels), grid, (tile_pixels, columns)
