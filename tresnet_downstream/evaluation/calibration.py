"""Calibration: compares predicted probabilities with the frequency of positives, and corrects the probabilities."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tresnet_downstream.errors import UserError

Floats = NDArray[np.float64]

_BLOCK_ENTRIES = 2**20


@dataclass(frozen=True, eq=False)
class Reliability:
    """Probabilities against frequencies in B bins of equal width, over the entries of all classes.

    Attributes:
        edges: (B + 1,) from 0 to 1; a bin holds its lower edge, the last one 1 as well.
        count: (B,) entries.
        probability: (B,) their mean probability; NaN in an empty bin.
        frequency: (B,) the share of them that is present; NaN in an empty bin.
        error: expected calibration error, in percent (Guo et al., 2017, with the probability of presence in the
            place of the top class's): the mean of abs(probability - frequency), weighted by count.
        class_error: the mean over the classes of the same, each in bins of its own (class-wise ECE; Kull et al.,
            2019), which entries near 0 do not hide as much. Both are NaN where every target is unknown.
    """

    edges: Floats
    count: NDArray[np.int64]
    probability: Floats
    frequency: Floats
    error: float
    class_error: float


def reliability(probabilities: NDArray[Any], targets: NDArray[Any], bins: int = 15) -> Reliability:
    """Counts entries by probability; those of unknown target are left out.

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


def platt_scaling(probabilities: NDArray[Any], targets: NDArray[Any]) -> tuple[float, float]:
    """The scale and shift of the logits with which the probabilities fit the targets best (Platt, 1999).

    They maximise the likelihood over the known entries of all classes; the targets are not smoothed, unlike in the
    publication. Use images that are neither trained on nor scored.

    Args:
        probabilities: (N, C) in [0, 1], sigmoids of logits.
        targets: (N, C) of 1, 0 and -1.

    Returns:
        ``scale`` and ``shift``: ``sigmoid(scale * logit + shift)`` is calibrated.

    Raises:
        UserError: entries are all present, all absent or all unknown, or the logits separate them without error.
    """
    known = targets != -1
    # The ends of float32, where a logit would be infinite.
    p = np.clip(probabilities[known].astype(np.float64), 1e-9, 1 - 1e-9)
    x, y = np.log(p / (1 - p)), (targets[known] == 1).astype(np.float64)
    if not len(y) or y.min() == y.max():
        raise UserError("calibration needs entries that are present and others that are absent")
    if x[y == 1].min() > x[y == 0].max():
        raise UserError(
            "the probabilities separate all entries without error, so no scaling fits them best; give more images"
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
        # Newton's step is halved until it helps.
        while share > 1e-10 and not _log_loss((scale - share * step[0]) * x + shift - share * step[1], y) <= loss:
            share /= 2
        scale, shift = scale - share * step[0], shift - share * step[1]
        loss = _log_loss(scale * x + shift, y)
        if abs(share * step).max() < 1e-10:
            break
    return float(scale), float(shift)


def _log_loss(logits: Floats, targets: Floats) -> float:
    return float(np.logaddexp(0, np.where(targets == 1, -logits, logits)).sum())
