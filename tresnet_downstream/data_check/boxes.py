"""Boxes of a COCO file: without area, outside of their image, or in another convention than COCO's."""

from collections.abc import Mapping

import numpy as np

from tresnet_downstream.coco_shapes import FARTHEST, is_box, is_crowd_flag, is_mask
from tresnet_downstream.data_check.listing import ListedImage, Listing, annotation_place

# COCO's own boxes reach beyond the edge by rounding; pixels.
EDGE_TOLERANCE = 1.0
# A file is taken for one of corners if this share of its boxes fits as left, top, right, bottom ...
_FIT_AS_CORNERS = 0.95
# ... and this share does not fit as left, top, width, height.
_DO_NOT_FIT = 0.1


def check_boxes(listing: Listing, known: list[tuple[int, ListedImage]], categories: Mapping[int, str]) -> None:
    """Reports faulty boxes, and gives images the labels of those that training uses.

    Args:
        listing: of a COCO file; gets findings.
        known: position and image of each annotation whose image and category exist.
        categories: the class names by category id.
    """
    records = listing.content["annotations"]
    formed = []
    for position, image in known:
        box = records[position].get("bbox")
        if is_box(box):
            formed.append((position, image))
        else:
            text = f"`bbox` is {repr(box)[:60]}, not four numbers up to {FARTHEST:,}: left, top, width, height"
            listing.report(
                "malformed-box", "error", annotation_place(records[position], position), text, image.position
            )
    sized = [(position, image) for position, image in formed if image.size]
    convention = _other_convention(
        np.array([records[position]["bbox"] for position, _ in sized], float).reshape(-1, 4),
        np.array([image.size for _, image in sized], float).reshape(-1, 2),
    )
    if convention:
        listing.report("box-convention", "error", "", convention)
    for position, image in formed:
        record = records[position]
        place = f"{annotation_place(record, position)} of {image.name}"
        if not is_crowd_flag(record.get("iscrowd", 0)):
            text = f"`iscrowd` is {repr(record['iscrowd'])[:60]}, not 0 or 1"
            listing.report("malformed-entry", "error", place, text, image.position)
        problem = _problem(record["bbox"], image.size, listing.source.is_training)
        # Faults of single boxes only follow from the convention.
        if problem and not convention:
            kind, text = problem
            listing.report(kind, "warning", place, text, image.position, position)
        if problem is None or problem[0] == "box-beyond-edge":
            name = categories[record["category_id"]]
            image.labels.add((name, *record["bbox"]))
            image.shown.add(name)
        is_used = problem is None or problem[0] in ("box-beyond-edge", "narrow-box")
        if listing.source.needs_masks and image.size and is_used:
            width, height = image.size
            if not is_mask(record.get("segmentation"), height, width):
                text = "`segmentation` is no polygons near the image, nor run lengths of its size"
                listing.report("malformed-mask", "error", place, text, image.position)


def clipped(box: list[float], size: tuple[int, int]) -> list[float]:
    """The part of a box (left, top, width, height; pixels) that lies within an image of a size (width, height)."""
    left, top, width, height = box
    right, bottom = min(left + width, size[0]), min(top + height, size[1])
    left, top = max(left, 0), max(top, 0)
    return [left, top, right - left, bottom - top]


def _problem(box: list[float], size: tuple[int, int] | None, is_training: bool) -> tuple[str, str] | None:
    """The kind of a box's fault and its description; None if there is none."""
    left, top, width, height = box
    if width <= 0 or height <= 0:
        return "box-without-area", f"its size is {width:g} x {height:g}"
    is_narrow = is_training and min(width, height) < 1
    if size:
        if min(left + width, size[0]) <= max(left, 0) or min(top + height, size[1]) <= max(top, 0):
            return "box-outside", f"{_text(box)} lies outside of an image of {size[0]} x {size[1]}"
        beyond = max(-left, -top, left + width - size[0], top + height - size[1])
        if beyond > EDGE_TOLERANCE and not is_narrow:
            text = f"{_text(box)} reaches {beyond:g} pixels beyond an image of {size[0]} x {size[1]}"
            if _fits_as_corners(np.array([box]), np.array([size]))[0]:
                text += "; as left, top, right, bottom it would fit"
            return "box-beyond-edge", text
    if is_narrow:
        return "narrow-box", f"its size is {width:g} x {height:g}; training leaves it out"
    return None


def _other_convention(boxes: np.ndarray, sizes: np.ndarray) -> str | None:
    """What the boxes seem to be instead of left, top, width, height; None if they may well be that.

    Args:
        boxes: float of shape (N, 4).
        sizes: width and height of their images, float of shape (N, 2).
    """
    if not len(boxes):
        return None
    if boxes.min() >= 0 and boxes.max() <= 1 and sizes.min() > 8:
        return (
            f"all {len(boxes):,} boxes lie between 0 and 1: fractions of the image's sides, where pixels are expected"
        )
    beyond = (boxes[:, :2] + boxes[:, 2:] > sizes + EDGE_TOLERANCE).any(axis=1)
    fit = _fits_as_corners(boxes, sizes)
    if fit.mean() >= _FIT_AS_CORNERS and (beyond & fit).mean() >= _DO_NOT_FIT:
        return (
            f"{beyond.sum():,} of {len(boxes):,} boxes reach beyond their image, and {fit.sum():,} fit as left, top, "
            "right, bottom: convert them to left, top, width, height"
        )
    return None


def _fits_as_corners(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Whether each box lies inside its image if its last two numbers are right and bottom: bool of shape (N,)."""
    first, last = boxes[:, :2], boxes[:, 2:]
    inside = (first >= -EDGE_TOLERANCE) & (last > first) & (last <= sizes + EDGE_TOLERANCE)
    return np.logical_and.reduce(inside, axis=1)


def _text(box: list[float]) -> str:
    return "(" + ", ".join(f"{number:g}" for number in box) + ")"
