"""Pillow's operations on pixels, over uint8 arrays of shape (height, width, 3) in RGB, to the same values.

Pillow keeps four bytes for each pixel, so an array that goes there and back is copied four times. OpenCV's tables,
maps and filters work on the array itself. Where Pillow's arithmetic is its own (float32 and float64 that it cuts off,
luma in 16-bit fractions), it is done here in the same steps and precision.
"""

import math
from collections.abc import Iterator
from functools import lru_cache

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

ROWS_AT_ONCE = 32  # whose float values stay in the cache
CUT_OFF = -0.499  # added before rounding: Pillow cuts off, but float32 may be a hair below a whole number
LUMA = np.array([19595, 38470, 7471], np.float32)  # 0.299, 0.587 and 0.114 in 1/65536


def look_up(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Replace every value by the one that stands at its place in ``table``, uint8 of (256,)."""
    return cv2.LUT(image, table)


def invert(image: np.ndarray) -> np.ndarray:
    """Turn every value v into 255 - v."""
    return cv2.bitwise_not(image)


def posterize(image: np.ndarray, bits: int) -> np.ndarray:
    """Keep the highest ``bits`` of each value, 1 to 8."""
    return image & np.uint8(0x100 - (1 << (8 - bits)))


def solarize(image: np.ndarray, threshold: int) -> np.ndarray:
    """Invert values from ``threshold`` up, 0 to 256."""
    return image ^ (image >= threshold).view(np.uint8) * np.uint8(255)


def auto_contrast(image: np.ndarray) -> np.ndarray:
    """Stretch each channel to the whole range."""
    rows = image.reshape(len(image), -1)
    lows, highs = (extreme.reshape(-1, 3) for extreme in (rows.min(0), rows.max(0)))
    tables = [_stretching(low, high) for low, high in zip(lows.min(0), highs.max(0), strict=True)]
    if all(np.array_equal(table, np.arange(256)) for table in tables):
        return image.copy()
    return cv2.merge([cv2.LUT(channel, table) for channel, table in zip(cv2.split(image), tables, strict=True)])


def _stretching(low: np.uint8, high: np.uint8) -> np.ndarray:
    values, lowest, highest = np.arange(256), int(low), int(high)
    if highest > lowest:
        scale = 255.0 / (highest - lowest)
        values = (values * scale - lowest * scale).astype(np.int64)
    return np.clip(values, 0, 255).astype(np.uint8)


def equalize(image: np.ndarray) -> np.ndarray:
    """Spread each channel's values so that all are about as frequent."""
    return cv2.merge([_equalized(channel) for channel in cv2.split(image)])


def _equalized(channel: np.ndarray) -> np.ndarray:
    counts = cv2.calcHist([channel], [0], None, [256], [0, 256]).reshape(-1).astype(np.int64)
    step = (channel.size - counts[counts.nonzero()[0][-1]]) // 255
    if step == 0:
        return channel
    values = (np.cumsum(counts) - counts + step // 2) // step
    return cv2.LUT(channel, np.clip(values, 0, 255).astype(np.uint8))


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend with black: 0 gives black, 1 the picture, more than 1 a brighter one."""
    return look_up(image, _blend(np.float32(0), np.arange(256, dtype=np.float32), factor))


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend with the grey of the mean luma: 0 gives that grey, 1 the picture."""
    grey = luma(image)
    mean = np.float32(int(cv2.sumElems(grey)[0] / grey.size + 0.5))
    return look_up(image, _blend(mean, np.arange(256, dtype=np.float32), factor))


def colour(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend with the picture in grey: 0 gives grey, 1 the picture."""
    return _blend_pictures(cv2.cvtColor(luma(image), cv2.COLOR_GRAY2RGB), image, factor)


def sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend with the smoothed picture: 0 gives that, 1 the picture, more than 1 a sharper one."""
    kernel = np.full((3, 3), 1 / 13, np.float32)
    kernel[1, 1] = 5 / 13
    smooth = cv2.filter2D(image, -1, kernel)
    # Pillow smooths no border.
    smooth[[0, -1]], smooth[:, [0, -1]] = image[[0, -1]], image[:, [0, -1]]
    return _blend_pictures(smooth, image, factor)


def paint(image: np.ndarray, rows: slice, columns: slice, colour: tuple[int, int, int]) -> np.ndarray:
    """Give a copy with one rectangle in one colour; what of it lies outside is left out."""
    image = image.copy()
    area = image[rows, columns]
    area[:] = _plain((1, *area.shape[1:]), colour)
    return image


def luma(image: np.ndarray) -> np.ndarray:
    """Weigh red, green and blue by 0.299, 0.587 and 0.114: uint8 of shape (height, width), rounded half up."""
    result = np.empty(image.shape[:2], np.uint8)
    for rows in _blocks(len(image)):
        # Whole numbers below 2**24, which float32 holds exactly.
        weighted = cv2.transform(image[rows].astype(np.float32), LUMA[None])
        weighted += 1 << 15
        weighted *= 1 / (1 << 16)
        result[rows] = weighted
    return result


def translate(image: np.ndarray, columns: float, rows: float, fill: tuple[int, int, int]) -> np.ndarray:
    """Show at each place the nearest pixel of ``columns`` further right and ``rows`` further down."""
    moved = _plain(image.shape, fill)
    (to_rows, from_rows), (to_columns, from_columns) = (
        _overlap(side, math.floor(shift + 0.5)) for side, shift in zip(image.shape, (rows, columns), strict=False)
    )
    moved[to_rows, to_columns] = image[from_rows, from_columns]
    return moved


def rotate(image: np.ndarray, degrees: float, fill: tuple[int, int, int]) -> np.ndarray:
    """Turn counter-clockwise around the centre, nearest pixel; up to 32,767 pixels a side."""
    places = _rotated_places(*image.shape[:2], degrees)
    return cv2.remap(image, places, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=fill)


@lru_cache(maxsize=9)  # as many as there are magnitudes, for pictures of one size
def _rotated_places(height: int, width: int, degrees: float) -> np.ndarray:
    """Which pixel, column and row, is shown at each place: int16 of (height, width, 2)."""
    cosine, sine = (round(f(-math.radians(degrees % 360)), 15) for f in (math.cos, math.sin))
    from_x = cosine * (-width / 2) + sine * (-height / 2) + width / 2
    from_y = -sine * (-width / 2) + cosine * (-height / 2) + height / 2
    # Pillow's fixed point: 16 bits behind the point.
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
    """Show at each place the picture ``slope`` times the row further right, bicubic; within 1 of Pillow's values."""
    height, width = image.shape[:2]
    moves = slope * (np.arange(height) + 0.5)
    whole = np.floor(moves).astype(np.int64)
    parts = moves - whole
    left, right = max(-whole.min(), 0), max(whole.max(), 0)
    # A row moves by a part of a pixel, for which four are weighed, and then by whole ones, out of a wider picture,
    # whose rows stand in the order of their parts.
    order = np.argsort(np.round(parts, 9), kind="stable")
    wide = _plain((height, left + width + 1 + right, 3), fill)
    between = wide[:, left : left + width + 1]
    _weigh_between_pixels(image[order], np.round(parts[order], 9), between)
    # What lies beyond the first or last pixel by half a pixel or more is not in the picture.
    is_beyond = parts[order] >= 0.5
    between[is_beyond, -1] = fill
    between[~is_beyond, 0] = fill
    starts = sliding_window_view(wide.reshape(height, -1), 3 * width, axis=1)
    return starts[np.argsort(order), 3 * (left + 1 + whole)].reshape(image.shape)


def shear_y(image: np.ndarray, slope: float, fill: tuple[int, int, int]) -> np.ndarray:
    """Show at each place the picture ``slope`` times the column further down, bicubic; within 1 of Pillow's values."""
    return cv2.transpose(shear_x(cv2.transpose(image), slope, fill))


def _weigh_between_pixels(image: np.ndarray, parts: np.ndarray, out: np.ndarray) -> None:
    """Give the values ``parts`` of a pixel behind every pixel of a row, and before them that behind the border's.

    Args:
        image: uint8 of shape (height, width, 3); outside, the border goes on.
        parts: for each row, 0 to 1, in order.
        out: uint8 of shape (height, width + 1, 3), to be filled.
    """
    image = cv2.copyMakeBorder(image, 0, 0, 1, 0, cv2.BORDER_REPLICATE)
    # Rows that share a part, as slopes of few digits have many, are weighed at once.
    values, starts = np.unique(parts, return_index=True)
    for part, start, stop in zip(values, starts, [*starts[1:], len(image)], strict=True):
        out[start:stop] = cv2.filter2D(
            image[start:stop], -1, _cubic_weights(part), anchor=(1, 0), delta=CUT_OFF, borderType=cv2.BORDER_REPLICATE
        )


def _cubic_weights(part: float) -> np.ndarray:
    """What the two pixels before and the two behind count, ``part`` of a pixel after the second: (1, 4)."""
    squared, cubed = part**2, part**3
    return np.array(
        [[2 * squared - part - cubed, 1 - 2 * squared + cubed, part + squared - cubed, cubed - squared]], np.float32
    )


def _plain(shape: tuple[int, ...], colour: tuple[int, int, int]) -> np.ndarray:
    """A picture of one colour, filled row by row, which numpy is far quicker at than pixel by pixel."""
    picture = np.empty(shape, np.uint8)
    picture[:] = np.tile(np.array(colour, np.uint8), shape[1]).reshape(shape[1], 3)
    return picture


def _overlap(side: int, shift: int) -> tuple[slice, slice]:
    """Where to, and where from, pixels go that move ``shift`` places towards the start."""
    length = max(side - abs(shift), 0)
    to, source = max(-shift, 0), max(shift, 0)
    return slice(to, to + length), slice(source, source + length)


def _blend_pictures(low: np.ndarray, high: np.ndarray, factor: float) -> np.ndarray:
    if _is_weighed_alike(factor):
        return _weigh(low, high, factor)
    result = np.empty_like(high)
    for rows in _blocks(len(high)):
        result[rows] = _blend(low[rows].astype(np.float32), high[rows].astype(np.float32), factor)
    return result


@lru_cache(maxsize=64)
def _is_weighed_alike(factor: float) -> bool:
    """Whether OpenCV's weighted sum, four times as fast, gives what `_blend` gives, tried on every pair of values."""
    low, high = np.mgrid[:256, :256].astype(np.uint8)
    expected = _blend(low.astype(np.float32), high.astype(np.float32), factor)
    return np.array_equal(_weigh(low, high, factor), expected)


def _weigh(low: np.ndarray, high: np.ndarray, factor: float) -> np.ndarray:
    return cv2.addWeighted(high, factor, low, 1 - factor, CUT_OFF)


def _blend(low: np.ndarray, high: np.ndarray, factor: float) -> np.ndarray:
    """Go ``factor`` times the way from ``low`` to ``high``, both float32; gives uint8, cut off as Pillow does."""
    value = high - low
    value *= np.float32(factor)
    value += low
    if factor > 1:
        np.clip(value, 0, 255, out=value)
    return value.astype(np.uint8)


def _blocks(rows: int) -> Iterator[slice]:
    return (slice(start, start + ROWS_AT_ONCE) for start in range(0, rows, ROWS_AT_ONCE))
