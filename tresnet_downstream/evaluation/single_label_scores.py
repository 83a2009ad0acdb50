"""The scores of classification with one label per image: top-1, top-5, mean per class, calibration, confusions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tresnet_downstream.evaluation.frequency_groups import GroupScore

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

# Entries read at once: ImageNet-21K's scores of 50,000 images are 2 GB.
_BLOCK_ENTRIES = 2**22
CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Confusion:
    """The images of one class that were predicted as another class.

    Attributes:
        label: index of the class.
        predicted: index of the predicted class.
        count: number of images.
    """

    label: int
    predicted: int
    count: int


@dataclass(frozen=True, eq=False)
class SingleLabelScores:
    """The result of `single_label_scores`; scores in percent, C classes, N images.

    Attributes:
        classes: the C names.
        num_images: N.
        top1: share of the images whose class has the highest probability (top-1 accuracy).
        top5: share of the images whose class is among the five most probable; among all classes if there are fewer than
            five.
        mean_per_class: mean of `recall` over the classes that have images.
        log_loss: mean of ``-log(probability of the image's class)``, in nats; probabilities below 1e-12 count as 1e-12.
        calibration_error: expected calibration error (Guo et al., 2017): the mean over the images of the absolute
            difference between confidence and accuracy, in 15 bins of equal width.
        precision: (C,) share of right ones among the images predicted as the class; NaN if there are none.
        recall: (C,) share of the class's images that are predicted as the class; NaN if it has no images.
        f1: (C,) harmonic mean of precision and recall; NaN if the class has no images.
        support: (C,) number of images of the class.
        predicted: (N,) index of the class with the highest probability; of equal ones the first.
        confidence: (N,) highest probability, from 0 to 1.
        of_label: (N,) probability of the image's label, from 0 to 1.
        rank: (N,) number of classes that are ranked before the image's label; 0 if the prediction is right.
        confusions: pairs of a label and a wrong prediction, the most frequent first.
        by_frequency: the mean of `recall` over head, middle and tail, see `frequency_groups`; empty if the frequencies
            in the training data are unknown.
    """

    classes: tuple[str, ...]
    num_images: int
    top1: float
    top5: float
    mean_per_class: float
    log_loss: float
    calibration_error: float
    precision: Floats
    recall: Floats
    f1: Floats
    support: Counts
    predicted: Counts
    confidence: Floats
    of_label: Floats
    rank: Counts
    confusions: tuple[Confusion, ...]
    by_frequency: tuple[GroupScore, ...] = ()


def single_label_scores(
    probabilities: ArrayLike, labels: ArrayLike, classes: Sequence[str] | None = None
) -> SingleLabelScores:
    """Scores probabilities against one label per image.

    Args:
        probabilities: (N, C) in [0, 1], of any float type; may be memory-mapped. Of equal probabilities the first class
            is taken, as with ``numpy.argmax``.
        labels: (N,) class indices, 0 to C - 1.
        classes: C names; "0", "1", ... by default.

    Raises:
        ValueError: if the shapes do not fit, there is no image, a probability is NaN, or a label is out of range.

    Examples:
        >>> scores = single_label_scores([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3]], [0, 2])
        >>> scores.top1, scores.confusions
        (50.0, (Confusion(label=2, predicted=1, count=1),))
    """
    rows, truth = np.asanyarray(probabilities), np.asarray(labels)
    if rows.ndim != 2 or truth.shape != rows.shape[:1] or not rows.size:
        raise ValueError(f"probabilities {rows.shape} and labels {truth.shape}: give (N, C) and (N,), N and C above 0")
    num_images, num_classes = rows.shape
    names = tuple(map(str, range(num_classes))) if classes is None else tuple(classes)
    if len(names) != num_classes:
        raise ValueError(f"classes: {len(names)} names for {num_classes} columns")
    if truth.dtype.kind not in "iu" or truth.min() < 0 or truth.max() >= num_classes:
        raise ValueError(f"labels: give whole numbers from 0 to {num_classes - 1}")
    truth = truth.astype(np.int64)

    predicted, rank = np.empty(num_images, np.int64), np.empty(num_images, np.int64)
    highest, of_truth = np.empty(num_images), np.empty(num_images)
    step = max(1, _BLOCK_ENTRIES // num_classes)
    for first in range(0, num_images, step):
        part = slice(first, first + step)
        block, own = np.asarray(rows[part]), truth[part]
        if np.isnan(block).any():
            raise ValueError("probabilities: some are NaN")
        value = block[np.arange(len(block)), own]
        predicted[part] = block.argmax(1)
        highest[part], of_truth[part] = block.max(1), value
        before = (block == value[:, None]) & (np.arange(num_classes) < own[:, None])
        rank[part] = (block > value[:, None]).sum(1) + before.sum(1)

    right = predicted == truth
    support = np.bincount(truth, minlength=num_classes)
    hits = np.bincount(truth[right], minlength=num_classes)
    taken = np.bincount(predicted, minlength=num_classes)
    recall, precision = 100 * _share(hits, support), 100 * _share(hits, taken)
    return SingleLabelScores(
        classes=names,
        num_images=num_images,
        top1=100 * float(right.mean()),
        top5=100 * float((rank < 5).mean()),
        mean_per_class=float(np.nanmean(recall)),
        log_loss=float(-np.log(np.maximum(of_truth, 1e-12)).mean()),
        calibration_error=_calibration_error(highest, right),
        precision=precision,
        recall=recall,
        f1=100 * _share(2 * hits, np.where(support > 0, support + taken, 0)),
        support=support,
        predicted=predicted,
        confidence=highest,
        of_label=of_truth,
        rank=rank,
        confusions=_confusions(truth[~right], predicted[~right], num_classes),
    )


def _share(part: np.ndarray, whole: np.ndarray) -> Floats:
    """Quotients; NaN where the denominator is 0."""
    return part / np.where(whole > 0, whole, np.nan)


def confidence_bins(confidence: Floats, right: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts images by their highest probability in 15 bins of equal width.

    Args:
        confidence: (N,) the highest probability of each image.
        right: (N,) whether the prediction is right.

    Returns:
        the number of images, the sum of their confidences, and the number of right predictions in each bin.
    """
    place = np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    counts = np.bincount(place, minlength=CALIBRATION_BINS)
    return counts, np.bincount(place, confidence, CALIBRATION_BINS), np.bincount(place, right, CALIBRATION_BINS)


def _calibration_error(confidence: Floats, right: np.ndarray) -> float:
    _, confidences, rights = confidence_bins(confidence, right)
    return float(100 * abs(confidences - rights).sum() / len(confidence))


def _confusions(labels: Counts, predicted: Counts, num_classes: int) -> tuple[Confusion, ...]:
    pairs, counts = np.unique(labels * num_classes + predicted, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return tuple(
        Confusion(int(pairs[place] // num_classes), int(pairs[place] % num_classes), int(counts[place]))
        for place in order
    )
