"""The elementwise operations and sums of a training step between convolutions, as Triton kernels.

Memory bandwidth limits all of them, so their time is the number of times that a feature map is read or written. The
table counts these passes in float32. In bfloat16, torch's operators make copies in float32 and need up to seven times
as many.

| step                                                | torch, forward | here | torch, backward | here |
|-----------------------------------------------------|----------------|------|-----------------|------|
| norm, leaky ReLU                                    | 4              | 2    | 12              | 5    |
| norm, leaky ReLU, blur                              | 7.25           | 2.25 | 15.25           | 3.5  |
| norm, SE scale, shortcut, ReLU (without the means)  | 7              | 3    | 13              | 7    |
| norm, shortcut, ReLU after a 1x1 convolution        | 7              | 3    | as torch        |      |

Feature maps are N x C x H x W in channels-last layout, in float32, bfloat16 or float16. Values per channel and all
arithmetic are in float32. Sums are computed in two stages without atomic additions, so that their order, and therefore
the result, is the same in every run.
"""

import torch
import triton
from torch import Tensor

from tresnet_downstream.backbones.lean import triton_programs

# The tile of a program, in pixels and channels. A GPU reads 128 bytes at once, which are 64 channels of a short type. A
# blur needs the registers of several tiles. The number of channels is a compile-time constant, so that the compiler
# knows the alignment of rows and loads up to 128 bits at once.
_PIXELS = 64
_PIXELS_AT_BLUR = 32
_COLUMNS = 64
_WARPS = 8
# Pixels that one program sums, many enough that the memory of the partial sums is negligible.
_PIXELS_IN_SUM = 512
# CUDA's limit for the second and third axis of a grid, which are pixels and images.
_MOST_PROGRAMS = 65535


def fits(x: Tensor) -> bool:
    """Whether a feature map N x C x H x W is within the limits of grids and offsets."""
    n, _, height, width = x.shape
    # The smallest tile gives the largest grid. Offsets within an image have 32 bits.
    most_pixels = _MOST_PROGRAMS * min(_PIXELS, _PIXELS_AT_BLUR)
    return n <= _MOST_PROGRAMS and height * width <= most_pixels and x.numel() < 2**31


def line(
    x: Tensor, slope: Tensor, offset: Tensor, negative_slope: float = 1.0, shortcut: Tensor | None = None
) -> Tensor:
    """``leaky_relu(slope * x + offset + shortcut)``, with one read of each feature map and one write.

    Args:
        x: N x C x H x W.
        slope: C, or N x C.
        offset: C, or N x C.
        negative_slope: 1 stands for no activation, 0 for ReLU.
        shortcut: N x C x H x W; None for 0.
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
    """``y = leaky_relu(slope * x + offset)`` and its :class:`BlurPool`, with one read of ``x``.

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
    """The gradient at the output of a norm, computed from the gradient at the output of the leaky ReLU after it.

    Each kernel computes it from what it reads; it is not stored.

    Args:
        grad: gradient of the activation's output, N x C x H x W; of the blurred output if ``blurred``.
        x: the norm's input. None to use the norm's output, recovered by inverting the activation.
        y: the activation's output; None if there is no activation.
        negative_slope: 1 stands for no activation, 0 for ReLU.
        blurred: whether a blur follows the activation.
    """

    def __init__(
        self, grad: Tensor, x: Tensor | None, y: Tensor | None, negative_slope: float = 1.0, blurred: bool = False
    ) -> None:
        self.grad = grad.contiguous(memory_format=torch.channels_last)
        self.x, self.y, self.negative_slope, self.blurred = x, y, negative_slope, blurred

    def sums(self, centre: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Sums over each image, N x C each, of the gradient and of its product with ``input - centre``."""
        return self._sums(centre, None)

    def through_relu(self) -> tuple["OutputGradient", Tensor, Tensor]:
        """The gradient at the norm's output, stored as a tensor, and its two sums, N x C each."""
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
            offset: C, or N x C.
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
        if self.y is not None:
            return self.y
        return self.grad if self.x is None else self.x

    @property
    def _tile_pixels(self) -> int:
        return _PIXELS_AT_BLUR if self.blurred else _PIXELS

    @property
    def _pointers(self) -> tuple[Tensor | None, ...]:
        return self.grad, self.x, self.y

    @property
    def _activation(self) -> tuple[int, float, bool]:
        return self._like.shape[3], self.negative_slope, self.blurred


def _table(slope: Tensor, offset: Tensor) -> tuple[Tensor, Tensor, int]:
    """Slope and offset as C or as N x C, and the stride from the values of one image to those of the next."""
    channels = slope.shape[-1]
    slope, offset = (values.contiguous() for values in torch.broadcast_tensors(slope, offset))
    return slope, offset, 0 if slope.numel() == channels else channels


def _launch(
    x: Tensor, tile_pixels: int = _PIXELS, program_pixels: int | None = None
) -> tuple[tuple[int, int], tuple[int, int, int], tuple[int, int]]:
    """Pixels and channels of an image; the grid of programs over channels, pixels and images; the size of a tile."""
    n, channels, height, width = x.shape
    columns = min(triton.next_power_of_2(channels), _COLUMNS)
    grid = triton.cdiv(channels, columns), triton.cdiv(height * width, program_pixels or tile_pixels), n
    return (height * width, channels), grid, (tile_pixels, columns)
