"""Resizing with antialiasing, in whole numbers: the pixels are those of torch's kernel for uint8, without torch.

Each row of the result is a weighted sum of rows of the picture, and each column of columns. As in torch
(``aten/src/ATen/native/cpu/UpSampleKernel.cpp``), weights are rounded to 16-bit integers, sums are exact, and columns
come first, whose values are rounded to uint8 before the rows.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

# From a picture, a height, a width and an interpolation to the picture of that height and width.
Resize = Callable[[np.ndarray, int, int, str], np.ndarray]
INTERPOLATIONS = ("bilinear", "bicubic")
_ROWS_AT_ONCE = 16  # Fewer take more calls of numpy; more multiply more zeros.
# Up to which float32 holds whole numbers exactly.
_EXACT_IN_FLOAT32 = 1 << 24


class _Rows(NamedTuple):
    """Some rows of a resized picture: ``weights`` (rows x inputs) times the input rows from ``start`` to ``stop``."""

    first: int
    last: int
    start: int
    stop: int
    weights: np.ndarray


def resize(image: np.ndarray, height: int, width: int, interpolation: str = "bilinear") -> np.ndarray:
    """Resize to ``height`` x ``width`` whatever the proportions, with antialiasing.

    The result equals, bit for bit, that of ``torch.nn.functional.interpolate(..., antialias=True)`` on the CPU.

    Args:
        image: uint8 of shape (height, width, 3), left as it is.
        height: in pixels.
        width: in pixels.
        interpolation: ``bilinear`` or ``bicubic``.

    Returns:
        uint8 of shape (``height``, ``width``, 3), contiguous.

    Example:
        >>> resize(np.arange(4, dtype=np.uint8).reshape(1, 4, 1).repeat(3, 2), 1, 2)[..., 0]
        array([[1, 2]], dtype=uint8)
    """
    columns = _resize_rows(cv2.transpose(np.ascontiguousarray(image)), width, interpolation)
    return _resize_rows(cv2.transpose(columns), height, interpolation)


def resize_and_crop(
    image: np.ndarray, size: int, fraction: float, interpolation: str = "bilinear", resize: Resize = resize
) -> np.ndarray:
    """Resize the short side to ``size / fraction``, with antialiasing, and cut ``size`` x ``size`` out of the centre.

    The pixels are within 1 of those of torchvision's ``Resize(int(size / fraction))`` and ``CenterCrop(size)`` on a
    Pillow image.

    Args:
        image: uint8 of shape (height, width, 3), left as it is.
        size: side in pixels.
        fraction: part of the short side that is kept, above 0 and at most 1.
        interpolation: ``bilinear`` or ``bicubic``.
        resize: what resizes; another must give the same pixels.
    """
    height, width = image.shape[:2]
    short = max(int(size / fraction), size)
    if height < width:
        height, width = short, int(short * width / height)
    else:
        height, width = int(short * height / width), short
    top, left = round((height - size) / 2), round((width - size) / 2)
    return resize(image, height, width, interpolation)[top : top + size, left : left + size]


def sides_of(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width: a side in pixels, or both.

    Raises:
        ValueError: for anything but whole numbers above 0.
    """
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(f"size is {size}, not a positive whole number or [height, width]")
    return sides[0], sides[1]


def require_interpolation(interpolation: str) -> None:
    """Raises ValueError for another interpolation than those of :data:`INTERPOLATIONS`."""
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation is {interpolation!r}, neither {' nor '.join(INTERPOLATIONS)}")


def require_crop(size: int, fraction: float, interpolation: str) -> None:
    """Raises ValueError for arguments that :func:`resize_and_crop` does not take."""
    require_interpolation(interpolation)
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"size is {size}, not a positive whole number")
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction is {fraction}, not above 0 and at most 1")


def _resize_rows(image: np.ndarray, count: int, interpolation: str) -> np.ndarray:
    """The picture with ``count`` rows, as a copy."""
    if len(image) == count:
        outcome: np.ndarray = image.copy()
        return outcome
    parts, precision = _row_weights(len(image), count, interpolation)
    flat = image.reshape(len(image), -1)
    result = np.empty((count, flat.shape[1]), np.uint8)
    for part in parts:
        sums = part.weights @ flat[part.start : part.stop].astype(part.weights.dtype)
        # Rounded half up, as the shift to the right of the sum of integers is.
        sums += 1 << (precision - 1)
        sums *= 0.5**precision
        np.clip(sums, 0, 255, out=sums)
        result[part.first : part.last] = sums
    return result.reshape(count, *image.shape[1:])


@lru_cache(maxsize=64)  # Pictures of a collection have few sizes.
def _row_weights(length: int, count: int, interpolation: str) -> tuple[tuple[_Rows, ...], int]:
    """Integer weights from ``length`` rows to ``count``, and the number of bits behind their binary point."""
    scale = length / count
    reach, kernel = _KERNELS[interpolation]
    support = reach * max(scale, 1.0)
    centres = scale * (np.arange(count) + 0.5)
    starts = np.maximum((centres - support + 0.5).astype(np.int64), 0)
    stops = np.minimum((centres + support + 0.5).astype(np.int64), length)
    taps = np.arange(min(int((stops - starts).max()), 2 * math.ceil(support) + 1))
    weights = kernel((taps + starts[:, None] - centres[:, None] + 0.5) / max(scale, 1.0))
    weights[taps >= (stops - starts)[:, None]] = 0
    weights /= weights.cumsum(1)[:, -1:]  # One after the other, as torch adds them up.
    precision = _precision(float(weights.max()))
    scaled = weights * (1 << precision)
    whole = np.trunc(np.where(scaled < 0, scaled - 0.5, scaled + 0.5))
    largest_sum = float(np.abs(whole).sum(1).max()) * 255 + (1 << precision)
    dtype = np.float32 if largest_sum < _EXACT_IN_FLOAT32 else np.float64
    parts = []
    for first in range(0, count, _ROWS_AT_ONCE):
        last = min(first + _ROWS_AT_ONCE, count)
        start, stop = int(starts[first]), int(stops[first:last].max())
        dense = np.zeros((last - first, stop - start), dtype)
        for row in range(first, last):
            dense[row - first, starts[row] - start : stops[row] - start] = whole[row, : stops[row] - starts[row]]
        parts.append(_Rows(first, last, start, stop, dense))
    return tuple(parts), precision


def _precision(greatest: float) -> int:
    """With how many bits behind the binary point the greatest weight is below 2^15, 21 bits at most, as in torch."""
    return next((bits for bits in range(22) if int(0.5 + greatest * (1 << (bits + 1))) >= 1 << 15), 22)


def _triangle(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.maximum(1 - np.abs(x), 0.0)
    return result


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys's cubic convolution with a = -0.5 (1981), as Pillow and torch have it with antialiasing."""
    a, x = -0.5, np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    return np.where(x < 1, near, np.where(x < 2, (((x - 5) * x + 8) * x - 4) * a, 0.0))


# How far a kernel reaches, in pixels of the smaller picture, and the kernel.
_KERNELS: dict[str, tuple[float, Callable[[np.ndarray], np.ndarray]]] = {
    "bilinear": (1.0, _triangle),
    "bicubic": (2.0, _cubic),
}
