"""Faults of boxes in COCO's format (left, top, width, height; pixels), for training and for the check of data."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

Box: TypeAlias = Sequence[float]
BoxFault: TypeAlias = Literal["without-area", "outside", "beyond-edge"]

# In pixels. COCO's own boxes reach beyond the edge of the image because of rounding.
EDGE_TOLERANCE = 1.0
# The boxes of a file are assumed to be corners if this share of them is valid as left, top, right, bottom ...
_FIT_AS_CORNERS = 0.95
# ... and this share is invalid as left, top, width, height.
_DO_NOT_FIT = 0.1


def box_fault(box: Box, size: tuple[int, int] | None) -> BoxFault | None:
    """The fault of a box in an image of a size (width, height; None if unknown); None if the box has no fault.

    Examples:
        >>> box_fault([10, 10, 20, 0], (64, 64)), box_fault([50, 50, 20, 10], (64, 64))
        ('without-area', 'beyond-edge')
    """
    left, top, width, height = box
    if width <= 0 or height <= 0:
        return "without-area"
    if size is None:
        return None
    if min(left + width, size[0]) <= max(left, 0) or min(top + height, size[1]) <= max(top, 0):
        return "outside"
    return "beyond-edge" if reach_beyond_edge(box, size) > EDGE_TOLERANCE else None


def reach_beyond_edge(box: Box, size: tuple[int, int]) -> float:
    """Number of pixels by which a box reaches beyond an image of a size (width, height); negative if it is inside."""
    left, top, width, height = box
    return max(-left, -top, left + width - size[0], top + height - size[1])


def clipped(box: Box, size: tuple[int, int]) -> list[float]:
    """The part of a box that is inside an image of a size (width, height)."""
    left, top, width, height = box
    right, bottom = min(left + width, size[0]), min(top + height, size[1])
    left, top = max(left, 0), max(top, 0)
    return [left, top, right - left, bottom - top]


def fit_as_corners(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Whether each box is inside its image if its last two numbers are right and bottom.

    Args:
        boxes: float of shape (N, 4).
        sizes: width and height of the images, float of shape (N, 2).

    Returns:
        bool of shape (N,).
    """
    first, last = boxes[:, :2], boxes[:, 2:]
    inside = (first >= -EDGE_TOLERANCE) & (last > first) & (last <= sizes + EDGE_TOLERANCE)
    are_inside: np.ndarray = np.logical_and.reduce(inside, axis=1)
    return are_inside


def other_convention(boxes: np.ndarray, sizes: np.ndarray) -> str | None:
    """Describes the format that the boxes of a file seem to have; None if it is left, top, width, height.

    Args:
        boxes: float of shape (N, 4).
        sizes: width and height of their images, float of shape (N, 2).

    Examples:
        >>> corners = np.array([[10.0, 10, 60, 60], [40, 40, 60, 50]])
        >>> other_convention(corners, np.full((2, 2), 64.0))
        '2 of 2 boxes reach beyond their image, and 2 fit as left, top, right, bottom: convert them to left, top, \
width, height'
    """
    if not len(boxes):
        return None
    if boxes.min() >= 0 and boxes.max() <= 1 and sizes.min() > 8:
        return (
            f"all {len(boxes):,} boxes lie between 0 and 1: fractions of the image's sides, where pixels are expected"
        )
    beyond = (boxes[:, :2] + boxes[:, 2:] > sizes + EDGE_TOLERANCE).any(axis=1)
    fit = fit_as_corners(boxes, sizes)
    if fit.mean() >= _FIT_AS_CORNERS and (beyond & fit).mean() >= _DO_NOT_FIT:
        return (
            f"{beyond.sum():,} of {len(boxes):,} boxes reach beyond their image, and {fit.sum():,} fit as left, top, "
            "right, bottom: convert them to left, top, width, height"
        )
    return None
