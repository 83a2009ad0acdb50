"""Checks of boxes and masks in COCO's formats. pycocotools' C code accepts any numbers and reads invalid memory."""

import sys
from collections.abc import Mapping
from typing import TypeGuard

import numpy as np

# Largest coordinate in pixels, larger than any in an image; products of two such numbers are exact in float64.
FARTHEST = 2**26


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a finite int or float. Booleans are not numbers."""
    return (type(value) is int or type(value) is float) and abs(value) <= sys.float_info.max


def is_id(value: object) -> TypeGuard[int]:
    """Whether a value is a 64-bit integer."""
    return type(value) is int and -(2**63) <= value < 2**63


def is_box(box: object) -> bool:
    """Whether a value is a list of four numbers, none beyond `FARTHEST`.

    Examples:
        >>> is_box([0, 0, 10.5, 20]), is_box([0, 0, 10])
        (True, False)
    """
    return isinstance(box, list) and len(box) == 4 and all(is_number(n) and abs(n) <= FARTHEST for n in box)


def is_crowd_flag(value: object) -> bool:
    """Whether a value is 0 or 1."""
    return type(value) in (int, bool) and value in (0, 1)


def is_mask(segmentation: object, height: int, width: int) -> bool:
    """Whether a value is a mask of an image: polygons, or run lengths that cover the image.

    Args:
        segmentation: a list of polygons ``[x, y, x, y, ...]`` with at least three points and coordinates of at most
            twice the longer side; or a dict of ``size`` (height, width) and ``counts``, a list or COCO's string.
        height: height of the image in pixels.
        width: width of the image in pixels.
    """
    if isinstance(segmentation, list):
        return len(segmentation) > 0 and all(_is_polygon(polygon, 2 * max(height, width)) for polygon in segmentation)
    if not isinstance(segmentation, Mapping):
        return False
    size = segmentation.get("size")
    if size not in ([height, width], (height, width)) or not all(type(side) is int for side in size):
        return False
    counts = segmentation.get("counts")
    if isinstance(counts, list):
        return all(type(count) is int and 0 <= count < 2**32 for count in counts) and sum(counts) == height * width
    return isinstance(counts, str) and _covers(counts, height * width)


def _is_polygon(polygon: object, farthest: int) -> bool:
    return (
        isinstance(polygon, list)
        and len(polygon) >= 6
        and len(polygon) % 2 == 0
        and all(is_number(value) and abs(value) <= farthest for value in polygon)
    )


def _covers(text: str, area: int) -> bool:
    """Whether COCO's compressed run lengths are well-formed, not negative, and have the sum ``area``.

    A character encodes 5 bits of a number, lowest bits first; its sixth bit is set if more characters follow. From the
    fourth number on, the difference to the number two places before is stored.
    """
    codes = np.frombuffer(text.encode("utf-8", "replace"), np.uint8).astype(np.int64) - 48
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return False
    last = np.flatnonzero(codes & 32 == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    if (last - first).max() > 6:  # more than 35 bits
        return False
    places = np.arange(len(codes)) - np.repeat(first, last - first + 1)
    numbers = np.add.reduceat((codes & 31) << (5 * places), first)
    numbers -= np.where(codes[last] & 16, np.int64(1) << (5 * (last - first + 1)), 0)
    counts = numbers.copy()
    counts[1::2] = np.cumsum(numbers[1::2])
    counts[2::2] = np.cumsum(numbers[2::2])
    return bool((counts >= 0).all() and counts.max() <= area and counts.sum() == area)
