"""Checks the boxes of a COCO file: boxes without area, outside of their image, or in another format than COCO's."""

from collections.abc import Mapping, Sequence

import numpy as np

from tresnet_downstream.box_faults import box_fault, fit_as_corners, other_convention, reach_beyond_edge
from tresnet_downstream.coco_shapes import FARTHEST, is_box, is_crowd_flag, is_mask
from tresnet_downstream.data_check.listing import ListedImage, Listing, annotation_place


def check_boxes(listing: Listing, known: list[tuple[int, ListedImage]], categories: Mapping[int, str]) -> None:
    """Reports faulty boxes, and adds the labels of the boxes that training uses to their images.

    Args:
        listing: listing of a COCO file; findings are added to it.
        known: position and image of each annotation whose image and category exist.
        categories: class names by category id.
    """
    assert isinstance(listing.content, dict)
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
    convention = other_convention(
        np.array([records[position]["bbox"] for position, _ in sized], float).reshape(-1, 4),
        np.array([image.size for _, image in sized], float).reshape(-1, 2),
    )
    if convention:
        listing.report("box-convention", "warning" if listing.source.trusts_boxes else "error", "", convention)
    crowds = []
    for position, image in formed:
        record = records[position]
        place = f"{annotation_place(record, position)} of {image.name}"
        if not is_crowd_flag(record.get("iscrowd", 0)):
            text = f"`iscrowd` is {repr(record['iscrowd'])[:60]}, not 0 or 1"
            listing.report("malformed-entry", "error", place, text, image.position)
        problem = _problem(record["bbox"], image.size, listing.source.is_training)
        # If the whole file has another format, faults of single boxes only follow from that.
        if problem and (not convention or listing.source.trusts_boxes):
            kind, text = problem
            listing.report(kind, "warning", place, text, image.position, position)
        if problem is None or problem[0] == "box-beyond-edge":
            name = categories[record["category_id"]]
            image.labels.add((name, *record["bbox"]))
            image.shown.add(name)
            crowds.append(bool(record.get("iscrowd")))
        is_used = problem is None or problem[0] in ("box-beyond-edge", "narrow-box")
        if listing.source.needs_masks and image.size and is_used:
            width, height = image.size
            if not is_mask(record.get("segmentation"), height, width):
                text = "`segmentation` is neither polygons near the image nor run lengths of its size"
                listing.report("malformed-mask", "error", place, text, image.position)
    if crowds and all(crowds) and listing.source.is_training:
        text = f"all {len(crowds):,} boxes are crowds (`iscrowd` is 1), which training ignores"
        listing.report("no-labels", "error", "", text)


def _problem(box: Sequence[float], size: tuple[int, int] | None, is_training: bool) -> tuple[str, str] | None:
    """The kind and description of a box's fault; None if it has none."""
    _, _, width, height = box
    fault = box_fault(box, size)
    if fault == "without-area":
        return "box-without-area", f"its size is {width:g} x {height:g}"
    if size and fault == "outside":
        return "box-outside", f"{_text(box)} is outside of an image of {size[0]} x {size[1]}"
    if is_training and min(width, height) < 1:
        return "narrow-box", f"its size is {width:g} x {height:g}; training leaves it out"
    if size and fault == "beyond-edge":
        beyond = reach_beyond_edge(box, size)
        text = f"{_text(box)} reaches {beyond:g} pixels beyond an image of {size[0]} x {size[1]}"
        if fit_as_corners(np.array([box]), np.array([size]))[0]:
            text += "; it would fit as left, top, right, bottom"
        return "box-beyond-edge", text
    return None


def _text(box: Sequence[float]) -> str:
    return "(" + ", ".join(f"{number:g}" for number in box) + ")"
