"""Calibration: compares predicted probabilities with the frequency of positives, and corrects the probabilities."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tresnet_downstream.errors import UserError

Floats = NDArray[np.float64]

_BLOCK_ENTRIES = 2**20


@dataclass(frozen=True, eq=False)
class Reliability:
    """Probabilities against frequencies in B bins of equal width, over the entries of all classes.

    Attributes:
        edges: (B + 1,) bin edges from 0 to 1. A bin includes its lower edge; the last bin also includes 1.
        count: (B,) number of entries in each bin.
        probability: (B,) mean probability in each bin; NaN if the bin is empty.
        frequency: (B,) share of positives in each bin; NaN if the bin is empty.
        error: expected calibration error, in percent: the mean of abs(probability - frequency), weighted by count (Guo
            et al., 2017, with the probability of each class in place of that of the top class); NaN if every target is
            unknown.
        class_error: class-wise expected calibration error, in percent: the same error computed for each class and
            averaged over the classes (Kull et al., 2019). The many entries near 0 hide less of it; NaN if every target
            is unknown.
    """

    edges: Floats
    count: NDArray[np.int64]
    probability: Floats
    frequency: Floats
    error: float
    class_error: float


def reliability(probabilities: np.ndarray, targets: np.ndarray, bins: int = 15) -> Reliability:
    """Counts entries by probability. Entries with an unknown target are left out.

    Args:
        probabilities: (N, C) in [0, 1].
        targets: (N, C) of 1, 0 and -1.
        bins: number of bins.

    Examples:
        >>> bins = reliability(np.array([[0.8], [0.8]]), np.array([[1], [0]]), bins=5)
        >>> bins.count.tolist(), float(bins.frequency[4]), round(bins.error, 6)
        ([0, 0, 0, 0, 2], 0.5, 30.0)
    """
    num_classes = probabilities.shape[1]
    count, total, present = np.zeros((3, bins * num_classes))
    rows = max(1, _BLOCK_ENTRIES // num_classes)
    for first in range(0, len(probabilities), rows):
        block, labels = probabilities[first : first + rows], targets[first : first + rows]
        known = labels != -1
        place = np.minimum((block * bins).astype(np.int64), bins - 1) * num_classes + np.arange(num_classes)
        place, values = place[known], block[known].astype(np.float64)
        count += np.bincount(place, minlength=bins * num_classes)
        total += np.bincount(place, values, bins * num_classes)
        present += np.bincount(place, labels[known] == 1, bins * num_classes)
    count, total, present = (part.reshape(bins, num_classes) for part in (count, total, present))
    known_classes = count.sum(0) > 0
    errors = (abs(total - present).sum(0) / np.maximum(count.sum(0), 1))[known_classes]
    all_count, all_total, all_present = count.sum(1), total.sum(1), present.sum(1)
    filled = np.where(all_count > 0, all_count, np.nan)
    return Reliability(
        edges=np.linspace(0, 1, bins + 1),
        count=all_count.astype(np.int64),
        probability=all_total / filled,
        frequency=all_present / filled,
        error=float(100 * abs(all_total - all_present).sum() / all_count.sum()) if len(errors) else float("nan"),
        class_error=float(100 * errors.mean()) if len(errors) else float("nan"),
    )


def platt_scaling(probabilities: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """Fits a scale and a shift of the logits to the targets (Platt scaling; Platt, 1999).

    Scale and shift maximise the likelihood of the known entries of all classes. Unlike in the publication, the targets
    are not smoothed. Use images that are neither in the training set nor in the set that is scored.

    Args:
        probabilities: (N, C) in [0, 1], sigmoids of logits.
        targets: (N, C) of 1, 0 and -1.

    Returns:
        ``scale`` and ``shift``: ``sigmoid(scale * logit + shift)`` is calibrated.

    Raises:
        UserError: if there are no positives or no negatives, or if the logits separate them without error.
    """
    known = targets != -1
    # Probabilities are kept within float32's range around 0 and 1, where the logits are finite.
    p = np.clip(probabilities[known].astype(np.float64), 1e-9, 1 - 1e-9)
    x, y = np.log(p / (1 - p)), (targets[known] == 1).astype(np.float64)
    if not len(y) or y.min() == y.max():
        raise UserError("calibration needs positives and negatives, but the targets have only one of the two")
    if x[y == 1].min() > x[y == 0].max():
        raise UserError(
            "the probabilities separate positives from negatives without error, so there is no best scale; "
            "use more images"
        )
    scale, shift = 1.0, 0.0
    loss = _log_loss(scale * x + shift, y)
    for _ in range(100):
        z = scale * x + shift
        fitted = 1 / (1 + np.exp(-z))
        error, weight = fitted - y, fitted * (1 - fitted)
        gradient = np.array([(error * x).sum(), error.sum()])
        hessian = np.array([[(weight * x * x).sum(), (weight * x).sum()], [(weight * x).sum(), weight.sum()]])
        step = np.linalg.solve(hessian + 1e-12 * np.eye(2), gradient)
        share = 1.0
        # The Newton step is halved until the likelihood increases.
        while share > 1e-10 and not _log_loss((scale - share * step[0]) * x + shift - share * step[1], y) <= loss:
            share /= 2
        scale, shift = scale - share * step[0], shift - share * step[1]
        loss = _log_loss(scale * x + shift, y)
        if abs(share * step).max() < 1e-10:
            break
    return float(scale), float(shift)


def _log_loss(logits: Floats, targets: Floats) -> float:
    return float(np.logaddexp(0, np.where(targets == 1, -logits, logits)).sum())
