"""Resizing with antialiasing, in integer arithmetic, with the same pixels as torch's kernel for uint8.

Each row of the result is a weighted sum of rows of the image, and each column of columns. As in torch
(``aten/src/ATen/native/cpu/UpSampleKernel.cpp``), weights are rounded to 16-bit integers, sums are exact, and columns
are computed first and rounded to uint8 before the rows are.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

# A function from an image, a height, a width and an interpolation to the resized image.
Resize = Callable[[np.ndarray, int, int, str], np.ndarray]
INTERPOLATIONS = ("bilinear", "bicubic")
_ROWS_AT_ONCE = 16  # fewer need more calls of numpy, more need more multiplications by 0
# The limit up to which all integers are exact in float32.
_EXACT_IN_FLOAT32 = 1 << 24


class _Rows(NamedTuple):
    """Rows ``first`` to ``last`` of a resized image: ``weights`` times the input rows from ``start`` to ``stop``."""

    first: int
    last: int
    start: int
    stop: int
    weights: np.ndarray


def resize(image: np.ndarray, height: int, width: int, interpolation: str = "bilinear") -> np.ndarray:
    """Resizes to ``height`` x ``width`` without keeping the aspect ratio, with antialiasing.

    The result equals that of ``torch.nn.functional.interpolate(..., antialias=True)`` on the CPU exactly.

    Args:
        image: uint8 of shape (height, width, 3), which is not changed.
        height: new height in pixels.
        width: new width in pixels.
        interpolation: ``bilinear`` or ``bicubic``.

    Returns:
        uint8 of shape (``height``, ``width``, 3), contiguous.

    Examples:
        >>> resize(np.arange(4, dtype=np.uint8).reshape(1, 4, 1).repeat(3, 2), 1, 2)[..., 0]
        array([[1, 2]], dtype=uint8)
    """
    columns = _resize_rows(cv2.transpose(np.ascontiguousarray(image)), width, interpolation)
    return _resize_rows(cv2.transpose(columns), height, interpolation)


def resize_and_crop(
    image: np.ndarray, size: int, fraction: float, interpolation: str = "bilinear", resize: Resize = resize
) -> np.ndarray:
    """Resizes the short side to ``size / fraction``, with antialiasing, and crops ``size`` x ``size`` in the centre.

    The pixels differ by at most 1 from torchvision's ``Resize(int(size / fraction))`` and ``CenterCrop(size)`` of a
    Pillow image.

    Args:
        image: uint8 of shape (height, width, 3), which is not changed.
        size: height and width of the crop in pixels.
        fraction: ratio of the crop to the resized short side, above 0 and at most 1.
        interpolation: ``bilinear`` or ``bicubic``.
        resize: the function that resizes. It must have the same results as :func:`resize`.
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
    """Height and width, from one number for both or from two numbers, in pixels.

    Raises:
        ValueError: if they are not integers above 0.
    """
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(f"size is {size}, not a positive whole number or [height, width]")
    return sides[0], sides[1]


def require_interpolation(interpolation: str) -> None:
    """Raises ValueError unless the interpolation is in :data:`INTERPOLATIONS`."""
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation is {interpolation!r}, not {' or '.join(INTERPOLATIONS)}")


def require_crop(size: int, fraction: float, interpolation: str) -> None:
    """Raises ValueError for arguments that :func:`resize_and_crop` does not take."""
    require_interpolation(interpolation)
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"size is {size}, not a positive whole number")
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction is {fraction}, not above 0 and at most 1")


def _resize_rows(image: np.ndarray, count: int, interpolation: str) -> np.ndarray:
    """A copy of the image, resized to ``count`` rows."""
    if len(image) == count:
        outcome: np.ndarray = image.copy()
        return outcome
    parts, precision = _row_weights(len(image), count, interpolation)
    flat = image.reshape(len(image), -1)
    result = np.empty((count, flat.shape[1]), np.uint8)
    for part in parts:
        sums = part.weights @ flat[part.start : part.stop].astype(part.weights.dtype)
        # Rounded half up, as in torch, which adds a half and shifts the integer sum to the right.
        sums += 1 << (precision - 1)
        sums *= 0.5**precision
        np.clip(sums, 0, 255, out=sums)
        result[part.first : part.last] = sums
    return result.reshape(count, *image.shape[1:])


@lru_cache(maxsize=64)  # the images of a data set have few different sizes
def _row_weights(length: int, count: int, interpolation: str) -> tuple[tuple[_Rows, ...], int]:
    """Integer weights from ``length`` rows to ``count``, and the number of their fractional bits."""
    scale = length / count
    reach, kernel = _KERNELS[interpolation]
    support = reach * max(scale, 1.0)
    centres = scale * (np.arange(count) + 0.5)
    starts = np.maximum((centres - support + 0.5).astype(np.int64), 0)
    stops = np.minimum((centres + support + 0.5).astype(np.int64), length)
    taps = np.arange(min(int((stops - starts).max()), 2 * math.ceil(support) + 1))
    weights = kernel((taps + starts[:, None] - centres[:, None] + 0.5) / max(scale, 1.0))
    weights[taps >= (stops - starts)[:, None]] = 0
    weights /= weights.cumsum(1)[:, -1:]  # summed in order, as in torch
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
    """The number of fractional bits, as in torch: the largest for which the largest weight is below 2^15."""
    return next((bits for bits in range(22) if int(0.5 + greatest * (1 << (bits + 1))) >= 1 << 15), 22)


def _triangle(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.maximum(1 - np.abs(x), 0.0)
    return result


def _cubic(x: np.ndarray) -> np.ndarray:
    """The cubic convolution kernel of Keys (1981) with a = -0.5, as in Pillow, and in torch with antialiasing."""
    a, x = -0.5, np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    return np.where(x < 1, near, np.where(x < 2, (((x - 5) * x + 8) * x - 4) * a, 0.0))


# The radius of each kernel, in pixels of the smaller image, and the kernel.
_KERNELS: dict[str, tuple[float, Callable[[np.ndarray], np.ndarray]]] = {
    "bilinear": (1.0, _triangle),
    "bicubic": (2.0, _cubic),
}
