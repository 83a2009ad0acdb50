"""Average precision of boxes by PASCAL VOC's rules, which differ from COCO's.

A prediction is right if its intersection over union with an object of its class is at least 0.5, and no prediction with
a higher score has matched that object. A prediction whose best object is marked as difficult is ignored, and difficult
objects do not count as objects. The rules of 2007 average the precision at 11 recalls; those from 2010 on use the area
under the curve.

Follows M. Everingham et al., "The PASCAL Visual Object Classes Challenge: A Retrospective" (2015), and its
development kit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tresnet_downstream.coco_records import CocoAnnotation, CocoDetection, CocoInstances
from tresnet_downstream.errors import UserError

Record = TypeVar("Record", CocoAnnotation, CocoDetection)
RULES = ("2007", "2010")
MIN_OVERLAP = 0.5


@dataclass(frozen=True, eq=False)
class VocScores:
    """Average precision by VOC's rules.

    Attributes:
        mAP: mean over the classes with an object that is not difficult, in percent; NaN if there is none.
        per_class: average precision of each class in percent, float64; NaN where the class has no such object.
        classes: C names.
        rules: ``2007`` or ``2010``.
    """

    mAP: float  # noqa: N815 - the field's term
    per_class: np.ndarray
    classes: tuple[str, ...]
    rules: str


def voc_scores(content: CocoInstances, predictions: Sequence[CocoDetection], rules: str = "2007") -> VocScores:
    """Scores predicted boxes by VOC's rules.

    Args:
        content: images, annotations and categories in COCO's form; annotations may have ``difficult`` (0 or 1).
        predictions: in COCO's results format: ``image_id``, ``category_id``, ``bbox`` (left, top, width, height in
            pixels) and ``score``.
        rules: ``2007`` (11 recalls) or ``2010`` (area under the curve).

    Raises:
        UserError: if ``rules`` is neither 2007 nor 2010.

    Examples:
        >>> content = {
        ...     "categories": [{"id": 1, "name": "cat"}],
        ...     "annotations": [{"image_id": 7, "category_id": 1, "bbox": [0, 0, 10, 10]}],
        ... }
        >>> round(voc_scores(content, [{"image_id": 7, "category_id": 1, "bbox": [0, 0, 10, 9], "score": 0.8}]).mAP)
        100
    """
    if rules not in RULES:
        raise UserError(f"`rules`={rules!r}: choose 2007 (11 recalls) or 2010 (area under the curve)")
    categories = sorted(content["categories"], key=lambda category: category["id"])
    objects, detections = _by_class(content["annotations"]), _by_class(predictions)
    scores = [
        _average_precision(objects.get(each["id"], []), detections.get(each["id"], []), rules) for each in categories
    ]
    per_class = 100 * np.array(scores, np.float64)
    known = per_class[~np.isnan(per_class)]
    return VocScores(
        mAP=float(known.mean()) if len(known) else float("nan"),
        per_class=per_class,
        classes=tuple(category["name"] for category in categories),
        rules=rules,
    )


def _by_class(records: Sequence[Record]) -> dict[int, list[Record]]:
    groups: dict[int, list[Record]] = {}
    for record in records:
        groups.setdefault(record["category_id"], []).append(record)
    return groups


def _average_precision(objects: Sequence[CocoAnnotation], predictions: Sequence[CocoDetection], rules: str) -> float:
    """The average precision of one class, from 0 to 1; NaN if all its objects are difficult."""
    total = sum(not item.get("difficult", 0) for item in objects)
    if not total:
        return float("nan")
    by_image: dict[int, list[CocoAnnotation]] = {}
    for item in objects:
        by_image.setdefault(item["image_id"], []).append(item)
    corners = {image: _corners(items) for image, items in by_image.items()}
    was_hit = {image: np.zeros(len(items), bool) for image, items in by_image.items()}
    hits, counted = np.zeros(len(predictions), bool), np.ones(len(predictions), bool)
    order = np.argsort([-each["score"] for each in predictions], kind="stable")
    for place, number in enumerate(order):
        image = predictions[number]["image_id"]
        if image not in corners:
            continue
        overlaps = _overlaps(_corners([predictions[number]])[0], corners[image])
        best = int(overlaps.argmax())
        if overlaps[best] < MIN_OVERLAP:
            continue
        if by_image[image][best].get("difficult", 0):
            counted[place] = False
        elif not was_hit[image][best]:
            was_hit[image][best] = hits[place] = True
    num_hits = np.cumsum(hits[counted])
    precision, recall = num_hits / np.arange(1, len(num_hits) + 1), num_hits / total
    # The precision at a recall is the best one at that recall or beyond.
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    if rules == "2007":
        # The eleven recalls are rounded as in the development kit: 3 * 0.1 is above 0.3.
        first = np.searchsorted(recall, np.arange(11) * 0.1)
        return float(np.append(precision, 0.0)[first].sum() / 11)
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def _corners(records: Sequence[Record]) -> np.ndarray:
    """The corners of boxes: left, top, right and bottom, float64 of shape (N, 4)."""
    boxes = np.array([record["bbox"] for record in records], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def _overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of a box with each of N others, float64 of shape (N,)."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = sides.clip(0).prod(1)
    areas = (others[:, 2:] - others[:, :2]).prod(1) + (box[2:] - box[:2]).prod()
    overlaps: NDArray[np.float64] = shared / np.maximum(areas - shared, np.finfo(float).tiny)
    return overlaps
