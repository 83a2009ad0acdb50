"""Confidence intervals of scores by the bootstrap over images.

A resample draws N of the N images with replacement; a class without a positive in it is left out of that resample's
mean. Runs with the same seed get the same resamples, so the differences of their scores are paired.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tresnet_downstream.evaluation.multilabel_scores import columns, masks_to_count, operating_point
from tresnet_downstream.evaluation.progress import Track, silently
from tresnet_downstream.evaluation.threads import in_threads

Floats = NDArray[np.float64]

# Resamples computed at once: many enough for long rows in memory, few enough for the processor's cache.
_BLOCK = 100


class Interval(NamedTuple):
    """A 95% interval; both ends are NaN if the resamples do not differ."""

    low: float
    high: float


def resample_weights(num_images: int, resamples: int, seed: int = 0) -> NDArray[np.int16]:
    """How often each resample contains each image.

    Args:
        num_images: N.
        resamples: R.
        seed: seed of the random numbers.

    Returns:
        (R, N) counts; each row sums to N.

    Examples:
        >>> weights = resample_weights(num_images=5, resamples=3)
        >>> weights.shape, weights.sum(1).tolist()
        ((3, 5), [5, 5, 5])
    """
    generator = np.random.default_rng(seed)
    weights = np.empty((resamples, num_images), np.int16)
    for row in weights:
        row[:] = np.bincount(generator.integers(num_images, size=num_images), minlength=num_images)
    return weights


def bootstrap_ap(
    scores: np.ndarray, targets: np.ndarray, weights: NDArray[np.int16], track: Track = silently
) -> Floats:
    """Average precision of each class in each resample.

    Args:
        scores: (N, C), as for :func:`multilabel_scores`.
        targets: (N, C) of 1 (present), 0 (absent) and -1 (unknown).
        weights: (R, N) from :func:`resample_weights`.
        track: counts the classes.

    Returns:
        (R, C) in percent; NaN where the resample has no positive of the class.
    """
    by_image = np.ascontiguousarray(weights.T)
    ap = np.full((len(weights), scores.shape[1]), np.nan)

    def of_class(item: tuple[int, tuple[np.ndarray, np.ndarray]]) -> None:
        place, (column, labels) = item
        _class_ap(column, labels, by_image, ap[:, place])

    done = in_threads(of_class, enumerate(columns(scores, targets)))
    for _ in track(done, scores.shape[1], "resample"):
        pass
    return ap


def _class_ap(scores: np.ndarray, targets: np.ndarray, weights: NDArray[np.int16], ap: Floats) -> None:
    """Fill (R,) average precisions of one class; ``weights`` is (N, R)."""
    positive = np.flatnonzero(targets == 1)
    if not positive.size:
        return
    # One step for each distinct score of a positive, highest first. Entries below the lowest do not change AP.
    steps = np.unique(scores[positive])
    step_of = len(steps) - np.searchsorted(steps, scores, side="right")
    known = np.flatnonzero((targets != -1) & (step_of < len(steps)))
    entries = known[np.argsort(step_of[known], kind="stable")]
    starts = np.searchsorted(step_of[entries], np.arange(len(steps)))
    positive = positive[np.argsort(step_of[positive], kind="stable")]
    hit_starts = np.searchsorted(step_of[positive], np.arange(len(steps)))
    for first in range(0, weights.shape[1], _BLOCK):
        block = np.ascontiguousarray(weights[:, first : first + _BLOCK])
        new_hits = np.add.reduceat(block[positive], hit_starts, axis=0, dtype=np.int32)
        retrieved = np.add.reduceat(block[entries], starts, axis=0, dtype=np.int32).cumsum(axis=0)
        hits = new_hits.cumsum(axis=0)
        total = hits[-1]
        # Where nothing has been retrieved yet, the precision is 0 / 1 instead of 0 / 0.
        precision = hits / np.maximum(retrieved, 1)
        with np.errstate(invalid="ignore"):
            ap[first : first + _BLOCK] = 100 * (precision * new_hits).sum(axis=0) / total


def bootstrap_operating_points(
    scores: np.ndarray, targets: np.ndarray, threshold: float | Floats, top_k: int, weights: NDArray[np.int16]
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """The numbers of :class:`OperatingPoint` in each resample, at the threshold and at the top k.

    Args:
        scores: (N, C), as for :func:`multilabel_scores`.
        targets: (N, C).
        threshold: one number for all classes, or (C,).
        top_k: number of labels of each image at the second operating point.
        weights: (R, N) from :func:`resample_weights`.

    Returns:
        for each of the two operating points, (R,) values in percent by name.
    """
    counts: list[np.ndarray] = []
    first = 0
    for masks in masks_to_count(scores, targets, threshold, top_k):
        # Integers below 2^24 are exact in float32, and matrix products are fast in float32.
        rows = weights[:, first : first + len(masks[0])].astype(np.float32)
        parts = [rows @ mask.astype(np.float32) for mask in masks]
        counts = [total + part for total, part in zip(counts, parts, strict=True)] if counts else parts
        first += rows.shape[1]
    support, _, hits, predicted, top_hits, top_predicted = (part.astype(np.float64) for part in counts)
    return operating_point(hits, predicted, support), operating_point(top_hits, top_predicted, support)


def mean_over_classes(ap: Floats) -> Floats:
    """Mean over the classes of (R, C) values, without those that are NaN: (R,); NaN where all are NaN."""
    known = ~np.isnan(ap)
    means: Floats = np.where(known, ap, 0.0).sum(-1) / np.where(known.any(-1), known.sum(-1), np.nan)
    return means


def interval(samples: Floats, point: float) -> Interval:
    """The basic bootstrap interval of a mean over classes (Davison and Hinkley, 1997, section 5.2.1), in percent.

    The quantiles of the resamples are reflected at the score, ``2 * point - quantile``, and clipped to 0 and 100.
    Percentiles of the resamples are too high for an mAP: images that a resample contains twice make rare classes look
    easier, and over many classes this shift is larger than the spread (docs/reports.md has the coverage of both in a
    simulation).

    Args:
        samples: (R,) scores of the resamples; NaN values are ignored.
        point: the score on all images.

    Returns:
        the 95% interval; both ends are NaN if the resamples do not differ.

    Examples:
        >>> interval(np.array([60.0, 61.0, 62.0, 63.0, 64.0]), point=61.0)
        Interval(low=58.1, high=61.9)
    """
    low, high = difference_interval(samples, point)
    return Interval(min(max(low, 0.0), point), max(min(high, 100.0), point)) if low == low else Interval(low, high)


def class_interval(samples: Floats, point: float) -> Interval:
    """The percentile interval, for the AP of a single class.

    For a single class the spread is larger than the shift, and near 0 and 100 percent the basic interval would extend
    in the wrong direction.
    """
    low, high = _quantiles(samples)
    return Interval(min(low, point), max(high, point)) if low == low else Interval(low, high)


def difference_interval(samples: Floats, point: float) -> Interval:
    """The basic interval of a difference of two scores, which may be negative."""
    low, high = _quantiles(samples)
    return Interval(2 * point - high, 2 * point - low)


def _quantiles(samples: Floats) -> tuple[float, float]:
    """The quantiles at 2.5% and 97.5%; NaN if the samples do not differ."""
    known = samples[~np.isnan(samples)]
    if not known.size or known.min() == known.max():
        return float("nan"), float("nan")
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)
