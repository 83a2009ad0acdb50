"""Matches detections with objects, and computes average precision from the matches for any resample of the images.

Whether a detection matches an object depends only on its own image. Therefore pycocotools matches the images once, and
the average precision of each bootstrap resample is computed from the counts.
"""

import contextlib
import io
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from tresnet_downstream.coco_records import CocoDetection, CocoInstances
from tresnet_downstream.evaluation.coco_index import ImageMatches, chosen, ready
from tresnet_downstream.evaluation.threshold_curves import ThresholdCurve, threshold_curve

# COCO's recalls, computed as in pycocotools: the last bit can decide whether a recall reaches one of them.
_RECALLS = np.linspace(0.0, 1.0, 101)
# Detections times resamples in a block: 2 MiB for each array. Larger blocks are not faster.
_BLOCK_ENTRIES = 2**18


@dataclass(frozen=True, eq=False)
class ClassMatches:
    """The D detections of one class by descending score. Equal scores keep the order of image ids, then of the list.

    Attributes:
        image: index of the detection's image in ``image_ids``, int64 of shape (D,).
        score: score of each detection, float64 of shape (D,).
        row: index in the input list of detections, int64 of shape (D,).
        matched: whether the detection matches an object that counts, at each of T IoU thresholds; bool of shape (T, D).
        ignored: whether the detection counts as neither right nor wrong, for example because it matches a crowd; bool
            of shape (T, D), false where ``matched`` is true.
        objects: the number of objects in each of the N images, without crowds; int64 of shape (N,).
    """

    image: np.ndarray
    score: np.ndarray
    row: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    objects: np.ndarray


@dataclass(frozen=True, eq=False)
class DetectionMatches:
    """The matches in N images, for C classes and T IoU thresholds.

    Attributes:
        classes: the C class names.
        image_ids: ascending, int64 of shape (N,).
        iou_thresholds: 0.50, 0.55, ... 0.95, float64 of shape (T,).
        of_class: the matches of each class, in the order of ``classes``.
    """

    classes: tuple[str, ...]
    image_ids: np.ndarray
    iou_thresholds: np.ndarray
    of_class: tuple[ClassMatches, ...]


def match_detections(
    ground_truth: CocoInstances,
    detections: Sequence[CocoDetection],
    classes: Sequence[str] | None = None,
    image_ids: Sequence[int] | None = None,
    iou_type: str = "bbox",
) -> DetectionMatches:
    """Matches detections with objects by pycocotools: objects of any size, 100 detections of a class and image.

    Args:
        ground_truth: the content of a COCO ``instances`` file.
        detections: in COCO's results format, as :func:`detection_scores` takes them.
        classes: class names, in order; None for all classes of the file by category id.
        image_ids: ids of the images; None for all images of the file.
        iou_type: ``bbox``, or ``segm`` for masks.

    Raises:
        UserError: if pycocotools is not installed, or the file lacks one of the classes or images.
    """
    names, categories, scored = chosen(ground_truth, detections, classes, image_ids)
    run = ready(ground_truth, detections, categories, scored, iou_type)
    run.params.areaRng = run.params.areaRng[:1]  # the first size is "all"
    with contextlib.redirect_stdout(io.StringIO()):
        run.evaluate()
    thresholds = np.asarray(run.params.iouThrs, np.float64)
    # One entry for each class and image, both by id; None if the image has neither object nor detection of the class.
    first = {number: place * len(scored) for place, number in enumerate(sorted(set(categories)))}
    return DetectionMatches(
        classes=names,
        image_ids=np.array(scored, np.int64),
        iou_thresholds=thresholds,
        of_class=tuple(
            _class_matches(run.evalImgs[first[number] : first[number] + len(scored)], len(thresholds))
            for number in categories
        ),
    )


def average_precisions(matches: DetectionMatches, weights: np.ndarray | None = None) -> np.ndarray:
    """COCO's average precision (the mean precision at 101 recalls) of each class and IoU threshold.

    Args:
        matches: of N images, C classes and T IoU thresholds.
        weights: how often each image is drawn, (N,) counts of 0 or more; None for once each. If an image is drawn k
            times, each of its detections is ranked k times.

    Returns:
        Percent, float64 of shape (T, C); NaN for a class without an object in the drawn images.

    Raises:
        ValueError: if ``weights`` has another shape or a negative count.
    """
    taken = np.ones(len(matches.image_ids)) if weights is None else np.asarray(weights)
    block = _checked(taken[None], len(matches.image_ids))
    return np.stack([_class_ap(one, block)[0] for one in matches.of_class], axis=-1)


def bootstrap_ap(matches: DetectionMatches, weights: Iterable[np.ndarray]) -> np.ndarray:
    """:func:`average_precisions` of many resamples of the images, rounded to float32.

    1,000 resamples of 5,000 images with 80 classes of 6,000 detections take half a minute and less than 100 MiB on
    two cores, in blocks of 100.

    Args:
        matches: of N images, C classes and T IoU thresholds.
        weights: blocks of shape (B, N) with any B: how often each resample draws each image.

    Returns:
        Percent, float32 of shape (resamples, T, C), in the order of the weights; NaN for a class without an object in
        the resample.

    Raises:
        ValueError: if a block has another shape or a negative count.
    """
    parts = [np.empty((0, len(matches.iou_thresholds), len(matches.classes)), np.float32)]
    # Threads suffice, since numpy releases the interpreter lock in its long loops.
    with ThreadPoolExecutor() as pool:
        for of_block in weights:
            block = _checked(np.asarray(of_block), len(matches.image_ids))
            of_class = pool.map(lambda one, block=block: _class_ap(one, block).astype(np.float32), matches.of_class)
            parts.append(np.stack(list(of_class), axis=-1))
    return np.concatenate(parts)


def detection_curves(matches: DetectionMatches) -> tuple[list[ThresholdCurve], ThresholdCurve]:
    """Precision and recall by score threshold at IoU 0.5: a curve for each class, and one for all classes together."""
    parts = []
    for one in matches.of_class:
        # Right, wrong, or neither.
        targets = np.where(one.ignored[0], -1, one.matched[0]).astype(np.int8)
        parts.append((one.score, targets, int(one.objects.sum())))
    scores, targets, objects = zip(*parts, strict=True)
    pooled = threshold_curve(np.concatenate(scores), np.concatenate(targets), sum(objects))
    return [threshold_curve(*part) for part in parts], pooled


def _class_matches(records: Sequence[ImageMatches | None], num_thresholds: int) -> ClassMatches:
    """Joins the matches of one class over all images, and ranks the detections."""
    seen = [(place, record) for place, record in enumerate(records) if record is not None]
    objects = np.zeros(len(records), np.int64)
    for place, record in seen:
        objects[place] = np.count_nonzero(np.asarray(record["gtIgnore"]) == 0)
    # The first, empty arrays give shape and type if there is nothing to join.
    none = np.zeros((num_thresholds, 0), bool)
    ignored = np.concatenate([none, *(record["dtIgnore"] for _, record in seen)], axis=1)
    matched = np.concatenate([none, *(record["dtMatches"] > 0 for _, record in seen)], axis=1) & ~ignored
    score = np.array([score for _, record in seen for score in record["dtScores"]], np.float64)
    row = np.array([number - 1 for _, record in seen for number in record["dtIds"]], np.int64)  # loadRes: from 1
    image = np.array([place for place, record in seen for _ in record["dtIds"]], np.int64)
    order = np.argsort(-score, kind="stable")
    return ClassMatches(image[order], score[order], row[order], matched[:, order], ignored[:, order], objects)


def _checked(weights: np.ndarray, num_images: int) -> np.ndarray:
    """Checks the weights and returns them as float64, in which sums of counts are exact."""
    if weights.ndim != 2 or weights.shape[1] != num_images:
        raise ValueError(f"weights must hold a count for each of {num_images} images, got shape {weights.shape[-2:]}")
    if (weights < 0).any():
        raise ValueError(f"weights must be counts from 0 up, got {weights.min()}")
    return weights.astype(np.float64)


def _class_ap(one: ClassMatches, weights: np.ndarray) -> np.ndarray:
    """AP in percent of one class, (B, T), for weights of shape (B, N)."""
    width = max(1, _BLOCK_ENTRIES // max(1, len(one.image)))
    right = [np.flatnonzero(matched) for matched in one.matched]
    skipped = [np.flatnonzero(ignored) for ignored in one.ignored]
    ap = np.empty((len(weights), len(right)))
    for start in range(0, len(weights), width):
        part = np.ascontiguousarray(weights[start : start + width].T)  # resamples last, so that steps along D are wide
        objects = one.objects.astype(np.float64) @ part
        taken = np.take(part, one.image, axis=0)  # (D, width)
        ranks = np.cumsum(taken, axis=0)
        for threshold, (right_rows, ignored) in enumerate(zip(right, skipped, strict=True)):
            num_detections = ranks[right_rows]
            if len(ignored):
                passed = np.cumsum(taken[ignored], axis=0)
                before = np.searchsorted(ignored, right_rows)  # ignored detections that rank before each right one
                num_detections[before > 0] -= passed[before[before > 0] - 1]
            num_right = np.cumsum(taken[right_rows], axis=0)
            ap[start : start + width, threshold] = interpolated_ap(num_right, num_detections, objects)
    return ap


def interpolated_ap(num_right: np.ndarray, num_detections: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """COCO's AP in percent for B rankings at once, from the counts at each right detection.

    Between two right detections the recall is constant and the precision falls, so the greatest precision at or above a
    recall is reached at a right detection.

    Args:
        num_right: number of right detections up to and including the m-th right one, (M, B).
        num_detections: number of right or wrong detections up to and including it, (M, B).
        objects: number of objects, (B,).

    Returns:
        Percent, (B,); NaN where there is no object.
    """
    # np.spacing avoids 0 / 0, as in pycocotools; it occurs in resamples without the first detections.
    precision = num_right / (num_detections + np.spacing(1))
    best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    recall = num_right / np.maximum(objects, 1)
    reached = np.searchsorted(_RECALLS, recall, side="right")  # of the 101 recalls; recall 0 is always reached
    # Added one after another, unlike in `sum`, so that a ranking's AP does not depend on the other rankings of the
    # block.
    area = np.cumsum(best * np.diff(reached, axis=0, prepend=0), axis=0)[-1] if len(best) else np.zeros(len(objects))
    return np.where(objects > 0, 100 * area / len(_RECALLS), np.nan)
