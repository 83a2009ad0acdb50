"""Scores of detections by COCO's rules: average precision and recall, overall, by size and by class."""

import contextlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tresnet_downstream.coco_records import CocoDetection, CocoInstances
from tresnet_downstream.evaluation.coco_index import chosen, collector_paused, ready

# COCO's object sizes, in the order of its statistics.
SIZES = ("all", "small", "medium", "large")
# The twelve scores in COCO's order: key, and title in tables.
HEADLINE = {
    "AP": "AP    IoU 0.50 to 0.95",
    "AP50": "AP50  IoU 0.50",
    "AP75": "AP75  IoU 0.75",
    "AP_small": "AP    small, area below 32 x 32",
    "AP_medium": "AP    medium",
    "AP_large": "AP    large, area above 96 x 96",
    "AR_1": "AR    1 detection for each image",
    "AR_10": "AR    10 detections",
    "AR_100": "AR    100 detections",
    "AR_small": "AR    small",
    "AR_medium": "AR    medium",
    "AR_large": "AR    large",
}


@dataclass(frozen=True, eq=False)
class DetectionScores:
    """The scores of a set of detections, in percent; NaN if there is no object.

    AP is the mean precision at 101 recalls, averaged over the classes and the IoU thresholds 0.50, 0.55, ... 0.95. AR
    is the mean of the greatest recalls. At most 100 detections of each class count in each image. Crowds count as
    neither found nor missed.

    Attributes:
        classes: the C class names.
        headline: COCO's twelve scores, by the keys of :data:`HEADLINE`.
        ap: AP of each class, float64 of shape (C,).
        ap50: AP of each class at IoU 0.50, float64 of shape (C,).
        ap75: AP of each class at IoU 0.75, float64 of shape (C,).
        ar: AR of each class at 100 detections, float64 of shape (C,).
        support: number of objects of each class without crowds, int64 of shape (C,).
        num_images: number of images that were scored.
        num_detections: number of detections.
        iou_type: ``bbox`` or ``segm``.
        iou_thresholds: the T of COCO, 0.50 to 0.95.
        precision: (T, 101, C, 4) in [0, 1], the greatest precision at a recall of 0.00, 0.01, ... 1.00 or more, for
            each class and each of :data:`SIZES`; NaN if there is no object.
    """

    classes: tuple[str, ...]
    headline: dict[str, float]
    ap: np.ndarray
    ap50: np.ndarray
    ap75: np.ndarray
    ar: np.ndarray
    support: np.ndarray
    num_images: int
    num_detections: int
    iou_type: str
    iou_thresholds: np.ndarray
    precision: np.ndarray

    def ap_by_size_and_iou(self) -> np.ndarray:
        """AP in percent by size and IoU threshold, (4, T): the mean over the classes with objects of that size."""
        of_class = 100 * self.precision.mean(1)  # (T, C, 4)
        known = ~np.isnan(of_class)
        count = np.where(known.any(1), known.sum(1), np.nan)
        means: np.ndarray = (np.where(known, of_class, 0.0).sum(1) / count).T
        return means


def detection_scores(
    ground_truth: CocoInstances,
    detections: Sequence[CocoDetection],
    classes: Sequence[str] | None = None,
    image_ids: Sequence[int] | None = None,
    iou_type: str = "bbox",
    backend: str = "pycocotools",
) -> DetectionScores:
    """Scores detections in COCO's results format.

    Args:
        ground_truth: the content of a COCO ``instances`` file.
        detections: a dict for each detection, with ``image_id``, ``category_id``, ``score`` and ``bbox`` (left, top,
            width, height) or ``segmentation`` (run lengths).
        classes: class names, in order; None for all classes of the file by category id.
        image_ids: ids of the images; None for all images of the file.
        iou_type: ``bbox``, or ``segm`` for masks.
        backend: ``pycocotools``, or ``faster_coco_eval``, which gives the same scores in less time.

    Raises:
        UserError: if the backend is unknown or not installed, or the file lacks one of the classes or images.

    Examples:
        >>> truth = {
        ...     "images": [{"id": 1}],
        ...     "categories": [{"id": 1, "name": "cat"}],
        ...     "annotations": [
        ...         {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0}
        ...     ],
        ... }
        >>> detections = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.9}]
        >>> round(detection_scores(truth, detections).headline["AP"], 6)
        100.0
    """
    names, categories, scored = chosen(ground_truth, detections, classes, image_ids)
    with collector_paused(), contextlib.redirect_stdout(io.StringIO()):
        run = ready(ground_truth, detections, categories, scored, iou_type, backend)
        run.evaluate()
        run.accumulate()
        run.summarize()
    # Precision by IoU, recall, class, size and limit of detections; recall likewise without its second axis; -1 if
    # there is no object. The libraries sort the classes by id, whatever the order of `classes`.
    places = np.searchsorted(sorted(run.params.catIds), categories)
    precision = np.asarray(run.eval["precision"], np.float64)[:, :, places]
    recall = np.asarray(run.eval["recall"], np.float64)[:, places]
    thresholds = np.asarray(run.params.iouThrs)
    at = {iou: int(np.argmin(abs(thresholds - iou))) for iou in (0.5, 0.75)}
    inside = set(scored)
    annotations = ground_truth["annotations"]
    objects = Counter(a["category_id"] for a in annotations if a["image_id"] in inside and not a.get("iscrowd"))
    return DetectionScores(
        classes=names,
        headline={key: _percent(value) for key, value in zip(HEADLINE, run.stats[:12], strict=True)},
        ap=_class_means(precision[:, :, :, 0, -1]),
        ap50=_class_means(precision[[at[0.5]], :, :, 0, -1]),
        ap75=_class_means(precision[[at[0.75]], :, :, 0, -1]),
        ar=_class_means(recall[:, None, :, 0, -1]),
        support=np.array([objects[category] for category in categories], np.int64),
        num_images=len(scored),
        num_detections=len(detections),
        iou_type=iou_type,
        iou_thresholds=thresholds,
        precision=np.where(precision[..., -1] > -1, precision[..., -1], np.nan),
    )


def _percent(value: float) -> float:
    return 100 * float(value) if value > -1 else float("nan")


def _class_means(values: np.ndarray) -> np.ndarray:
    """Means over the first two axes, in percent; NaN for a class without an object."""
    present = (values > -1).any((0, 1))
    means: np.ndarray = np.where(present, 100 * values.mean((0, 1)), np.nan)
    return means
