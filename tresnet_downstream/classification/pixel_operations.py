"""Pillow's operations on uint8 arrays of shape (height, width, 3) in RGB, with the same results.

Pillow stores four bytes for each pixel, so that a conversion of an array to Pillow and back copies it four times.
OpenCV's tables, maps and filters process the array itself. Where the results depend on Pillow's arithmetic (truncation
of float32 and float64, luma in 16-bit fractions), the same steps are computed in the same precision.
"""

import math
from collections.abc import Iterator
from functools import lru_cache

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

ROWS_AT_ONCE = 32  # few enough that their float values stay in the cache
CUT_OFF = -0.499  # added before rounding, to truncate; not -0.5, since float32 may be slightly below an integer
LUMA = np.array([19595, 38470, 7471], np.float32)  # 0.299, 0.587 and 0.114 in 1/65536


def look_up(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Replaces every value ``v`` by ``table[v]``; the table is uint8 of shape (256,)."""
    result: np.ndarray = cv2.LUT(image, table)
    return result


def invert(image: np.ndarray) -> np.ndarray:
    """Replaces every value ``v`` by ``255 - v``."""
    result: np.ndarray = cv2.bitwise_not(image)
    return result


def posterize(image: np.ndarray, bits: int) -> np.ndarray:
    """Keeps the ``bits`` most significant bits of each value, 1 to 8."""
    result: np.ndarray = image & np.uint8(0x100 - (1 << (8 - bits)))
    return result


def solarize(image: np.ndarray, threshold: int) -> np.ndarray:
    """Inverts values of at least ``threshold``, 0 to 256."""
    result: np.ndarray = image ^ (image >= threshold).view(np.uint8) * np.uint8(255)
    return result


def auto_contrast(image: np.ndarray) -> np.ndarray:
    """Scales each channel to the range 0 to 255."""
    rows = image.reshape(len(image), -1)
    lows, highs = (extreme.reshape(-1, 3) for extreme in (rows.min(0), rows.max(0)))
    tables = [_stretching(low, high) for low, high in zip(lows.min(0), highs.max(0), strict=True)]
    result: np.ndarray = image.copy()
    if not all(np.array_equal(table, np.arange(256)) for table in tables):
        channels = zip(cv2.split(image), tables, strict=True)
        result = cv2.merge([cv2.LUT(channel, table) for channel, table in channels])
    return result


def _stretching(low: np.uint8, high: np.uint8) -> np.ndarray:
    values, lowest, highest = np.arange(256), int(low), int(high)
    if highest > lowest:
        scale = 255.0 / (highest - lowest)
        values = (values * scale - lowest * scale).astype(np.int64)
    return np.clip(values, 0, 255).astype(np.uint8)


def equalize(image: np.ndarray) -> np.ndarray:
    """Equalises the histogram of each channel."""
    result: np.ndarray = cv2.merge([_equalized(channel) for channel in cv2.split(image)])
    return result


def _equalized(channel: np.ndarray) -> np.ndarray:
    counts = cv2.calcHist([channel], [0], None, [256], [0, 256]).reshape(-1).astype(np.int64)
    step = (channel.size - counts[counts.nonzero()[0][-1]]) // 255
    if step == 0:
        return channel
    values = (np.cumsum(counts) - counts + step // 2) // step
    result: np.ndarray = cv2.LUT(channel, np.clip(values, 0, 255).astype(np.uint8))
    return result


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Changes the brightness: a factor of 0 gives black, 1 the image, above 1 a brighter image."""
    return look_up(image, _blend(np.float32(0), np.arange(256, dtype=np.float32), factor))


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Changes the contrast: a factor of 0 gives the grey of the mean luma, 1 the image, above 1 more contrast."""
    grey = luma(image)
    mean = np.float32(int(cv2.sumElems(grey)[0] / grey.size + 0.5))
    return look_up(image, _blend(mean, np.arange(256, dtype=np.float32), factor))


def colour(image: np.ndarray, factor: float) -> np.ndarray:
    """Changes the saturation: a factor of 0 gives the image in grey, 1 the image."""
    return _blend_images(cv2.cvtColor(luma(image), cv2.COLOR_GRAY2RGB), image, factor)


def sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """Changes the sharpness: a factor of 0 gives a smoothed image, 1 the image, above 1 a sharper image."""
    kernel = np.full((3, 3), 1 / 13, np.float32)
    kernel[1, 1] = 5 / 13
    smooth = cv2.filter2D(image, -1, kernel)
    # Pillow does not smooth the border.
    smooth[[0, -1]], smooth[:, [0, -1]] = image[[0, -1]], image[:, [0, -1]]
    return _blend_images(smooth, image, factor)


def paint(image: np.ndarray, rows: slice, columns: slice, colour: tuple[int, int, int]) -> np.ndarray:
    """Returns a copy with a rectangle in one colour, clipped to the image."""
    image = image.copy()
    area = image[rows, columns]
    area[:] = _plain((1, *area.shape[1:]), colour)
    return image


def luma(image: np.ndarray) -> np.ndarray:
    """The luma, 0.299 red + 0.587 green + 0.114 blue, rounded half up: uint8 of shape (height, width)."""
    result = np.empty(image.shape[:2], np.uint8)
    for rows in _blocks(len(image)):
        # Integers below 2**24, which are exact in float32.
        weighted = cv2.transform(image[rows].astype(np.float32), LUMA[None])
        weighted += 1 << 15
        weighted *= 1 / (1 << 16)
        result[rows] = weighted
    return result


def translate(image: np.ndarray, columns: float, rows: float, fill: tuple[int, int, int]) -> np.ndarray:
    """Moves the image by ``columns`` to the left and ``rows`` up, rounded to whole pixels."""
    moved = _plain(image.shape, fill)
    (to_rows, from_rows), (to_columns, from_columns) = (
        _overlap(side, math.floor(shift + 0.5)) for side, shift in zip(image.shape, (rows, columns), strict=False)
    )
    moved[to_rows, to_columns] = image[from_rows, from_columns]
    return moved


def rotate(image: np.ndarray, degrees: float, fill: tuple[int, int, int]) -> np.ndarray:
    """Rotates counter-clockwise around the centre, with the nearest pixel. Sides may have up to 32,767 pixels."""
    places = _rotated_places(*image.shape[:2], degrees)
    result: np.ndarray = cv2.remap(
        image, places, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=fill
    )
    return result


@lru_cache(maxsize=9)  # one for each magnitude, for images of one size
def _rotated_places(height: int, width: int, degrees: float) -> np.ndarray:
    """The column and row of the source of each pixel: int16 of shape (height, width, 2)."""
    cosine, sine = (round(f(-math.radians(degrees % 360)), 15) for f in (math.cos, math.sin))
    from_x = cosine * (-width / 2) + sine * (-height / 2) + width / 2
    from_y = -sine * (-width / 2) + cosine * (-height / 2) + height / 2
    # Pillow's fixed-point numbers have 16 fractional bits.
    x_by_x, x_by_y, y_by_x = (math.floor(value * 65536 + 0.5) for value in (cosine, sine, -sine))
    x_start, y_start = (
        math.floor(value * 65536 + 0.5)
        for value in (from_x + cosine * 0.5 + sine * 0.5, from_y - sine * 0.5 + cosine * 0.5)
    )
    y, x = np.ogrid[:height, :width]
    y, x = y.astype(np.int32), x.astype(np.int32)
    places = np.empty((height, width, 2), np.int16)
    np.right_shift((x_start + x_by_y * y) + x_by_x * x, 16, out=places[..., 0], casting="unsafe")
    np.right_shift((y_start + x_by_x * y) + y_by_x * x, 16, out=places[..., 1], casting="unsafe")
    return places


def shear_x(image: np.ndarray, slope: float, fill: tuple[int, int, int]) -> np.ndarray:
    """Moves each row to the left by ``slope`` times its number, bicubic. Values are within 1 of Pillow's."""
    height, width = image.shape[:2]
    moves = slope * (np.arange(height) + 0.5)
    whole = np.floor(moves).astype(np.int64)
    parts = moves - whole
    left, right = max(-whole.min(), 0), max(whole.max(), 0)
    # A row is first moved by a fraction of a pixel, as a weighted sum of four pixels, into a wider image, and then by
    # whole pixels. Rows are sorted by their fractions.
    order = np.argsort(np.round(parts, 9), kind="stable")
    wide = _plain((height, left + width + 1 + right, 3), fill)
    between = wide[:, left : left + width + 1]
    _interpolate_rows(image[order], np.round(parts[order], 9), between)
    # Positions half a pixel or more outside of the first or last pixel are filled.
    is_beyond = parts[order] >= 0.5
    between[is_beyond, -1] = fill
    between[~is_beyond, 0] = fill
    starts = sliding_window_view(wide.reshape(height, -1), 3 * width, axis=1)
    result: np.ndarray = starts[np.argsort(order), 3 * (left + 1 + whole)].reshape(image.shape)
    return result


def shear_y(image: np.ndarray, slope: float, fill: tuple[int, int, int]) -> np.ndarray:
    """Moves each column up by ``slope`` times its number, bicubic. Values are within 1 of Pillow's."""
    result: np.ndarray = cv2.transpose(shear_x(cv2.transpose(image), slope, fill))
    return result


def _interpolate_rows(image: np.ndarray, parts: np.ndarray, out: np.ndarray) -> None:
    """Interpolates each row at ``parts`` of a pixel after each pixel, and after the replicated border before the first.

    Args:
        image: uint8 of shape (height, width, 3), extended by replicating its border.
        parts: fractions of a pixel for each row, 0 to 1, ascending.
        out: uint8 of shape (height, width + 1, 3), for the result.
    """
    image = cv2.copyMakeBorder(image, 0, 0, 1, 0, cv2.BORDER_REPLICATE)
    # Rows with the same fraction are computed together. Slopes with few digits give many such rows.
    values, starts = np.unique(parts, return_index=True)
    for part, start, stop in zip(values, starts, [*starts[1:], len(image)], strict=True):
        out[start:stop] = cv2.filter2D(
            image[start:stop], -1, _cubic_weights(part), anchor=(1, 0), delta=CUT_OFF, borderType=cv2.BORDER_REPLICATE
        )


def _cubic_weights(part: float) -> np.ndarray:
    """Bicubic weights, (1, 4), of two pixels before and two after a position ``part`` of a pixel after the second."""
    squared, cubed = part**2, part**3
    return np.array(
        [[2 * squared - part - cubed, 1 - 2 * squared + cubed, part + squared - cubed, cubed - squared]], np.float32
    )


def _plain(shape: tuple[int, ...], colour: tuple[int, int, int]) -> np.ndarray:
    """An image of one colour. It is filled by rows, which is much faster in numpy than by pixels."""
    image = np.empty(shape, np.uint8)
    image[:] = np.tile(np.array(colour, np.uint8), shape[1]).reshape(shape[1], 3)
    return image


def _overlap(side: int, shift: int) -> tuple[slice, slice]:
    """The target and source slices of pixels that move ``shift`` positions towards the start."""
    length = max(side - abs(shift), 0)
    to, source = max(-shift, 0), max(shift, 0)
    return slice(to, to + length), slice(source, source + length)


def _blend_images(low: np.ndarray, high: np.ndarray, factor: float) -> np.ndarray:
    if _has_equal_weighted_sums(factor):
        return _weigh(low, high, factor)
    result = np.empty_like(high)
    for rows in _blocks(len(high)):
        result[rows] = _blend(low[rows].astype(np.float32), high[rows].astype(np.float32), factor)
    return result


@lru_cache(maxsize=64)
def _has_equal_weighted_sums(factor: float) -> bool:
    """Whether OpenCV's weighted sum, which is four times as fast, equals `_blend` for every pair of values."""
    low, high = np.mgrid[:256, :256].astype(np.uint8)
    expected = _blend(low.astype(np.float32), high.astype(np.float32), factor)
    return np.array_equal(_weigh(low, high, factor), expected)


def _weigh(low: np.ndarray, high: np.ndarray, factor: float) -> np.ndarray:
    result: np.ndarray = cv2.addWeighted(high, factor, low, 1 - factor, CUT_OFF)
    return result


def _blend(low: np.ndarray, high: np.ndarray, factor: float) -> np.ndarray:
    """``low + factor * (high - low)`` of float32 values, truncated to uint8 as in Pillow."""
    value = high - low
    value *= np.float32(factor)
    value += low
    if factor > 1:
        np.clip(value, 0, 255, out=value)
    result: np.ndarray = value.astype(np.uint8)
    return result


def _blocks(rows: int) -> Iterator[slice]:
    return (slice(start, start + ROWS_AT_ONCE) for start in range(0, rows, ROWS_AT_ONCE))
