"""Computes precision and recall at every distinct threshold, and chooses the best threshold."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tresnet_downstream.errors import UserError

# Entries that are sorted at once for a curve over all classes.
_BLOCK_ENTRIES = 2**24


@dataclass(frozen=True, eq=False)
class ThresholdCurve:
    """Counts of entries above K thresholds, one just below each distinct score of a positive; highest first.

    Attributes:
        scores: (K,) the distinct scores of positives, descending.
        thresholds: (K,) float64, halfway between the score and the next lower score of any entry.
        hits: (K,) number of positives above the threshold.
        predicted: (K,) number of entries above the threshold, without those of unknown target.
        positives: number of positives.
    """

    scores: np.ndarray
    thresholds: NDArray[np.float64]
    hits: NDArray[np.int64]
    predicted: NDArray[np.int64]
    positives: int

    @property
    def precision(self) -> NDArray[np.float64]:
        """(K,) in [0, 1]."""
        return self.hits / self.predicted

    @property
    def recall(self) -> NDArray[np.float64]:
        """(K,) in [0, 1]."""
        return self.hits / max(self.positives, 1)

    @property
    def f1(self) -> NDArray[np.float64]:
        """(K,) in [0, 1]."""
        return 2 * self.hits / (self.predicted + self.positives)

    @property
    def best(self) -> int | None:
        """Index of the greatest F1; of equal ones that with the highest threshold. None for an empty curve."""
        return int(np.argmax(self.f1)) if len(self.scores) else None

    @property
    def best_threshold(self) -> float:
        """The threshold with the greatest F1; NaN for an empty curve."""
        return float("nan") if self.best is None else float(self.thresholds[self.best])

    def some(self, most: int) -> NDArray[np.int64]:
        """Indices of up to ``most`` evenly spaced points, including both ends."""
        places = np.linspace(0, max(len(self.scores) - 1, 0), most).round().astype(np.int64)
        return np.unique(places)[: len(self.scores)]


def threshold_curve(scores: np.ndarray, targets: np.ndarray, positives: int | None = None) -> ThresholdCurve:
    """The curve of one class, or of all classes together if the arrays have two dimensions.

    Args:
        scores: (N,) or (N, C) finite numbers.
        targets: 1 (present), 0 (absent) or -1 (unknown, left out), of the same shape.
        positives: number of positives, if some have no score, such as objects without a detection; by default the
            number in ``targets``.

    Examples:
        >>> curve = threshold_curve(np.array([0.9, 0.6, 0.2]), np.array([1, 0, 1]))
        >>> curve.thresholds.tolist(), curve.recall.tolist()
        ([0.75, 0.1], [0.5, 1.0])
    """
    rows = max(1, _BLOCK_ENTRIES // max(1, scores[:1].size))
    blocks = [slice(first, first + rows) for first in range(0, len(scores), rows)]
    positive_scores = np.sort(np.concatenate([scores[block][targets[block] == 1] for block in blocks] or [scores[:0]]))
    steps, first_of = np.unique(positive_scores, return_index=True)
    below = np.zeros(len(steps), np.int64)
    next_lower = np.full(len(steps), -np.inf)
    known_entries = 0
    for block in blocks:
        ordered = np.sort(scores[block][targets[block] != -1])
        places = np.searchsorted(ordered, steps)
        inside = places > 0
        next_lower[inside] = np.maximum(next_lower[inside], ordered[places[inside] - 1])
        below += places
        known_entries += len(ordered)
    # The threshold below the lowest score is half of it, which is still a probability.
    floor = np.where(steps > 0, 0.0, steps - 2.0)
    midway = (steps.astype(np.float64) + np.where(np.isfinite(next_lower), next_lower, floor)) / 2
    return ThresholdCurve(
        scores=steps[::-1],
        thresholds=midway[::-1],
        hits=(len(positive_scores) - first_of)[::-1],
        predicted=(known_entries - below)[::-1],
        positives=len(positive_scores) if positives is None else positives,
    )


@dataclass(frozen=True)
class Objective:
    """The objective by which a threshold is chosen.

    Attributes:
        kind: ``f1`` for the greatest F1; ``precision`` for the greatest recall with at least that precision; ``recall``
            for the greatest precision with at least that recall.
        value: minimum precision or recall, above 0 and up to 1.
    """

    kind: str
    value: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Objective":
        """Reads ``f1``, ``precision=0.9`` or ``recall=0.9``.

        Raises:
            UserError: if the text is something else.

        Examples:
            >>> Objective.parse("precision=0.9")
            Objective(kind='precision', value=0.9)
        """
        kind, _, number = text.partition("=")
        try:
            value = float(number) if number else 0.0
        except ValueError:
            value = math.nan
        if (kind == "f1" and not number and "=" not in text) or (kind in ("precision", "recall") and 0 < value <= 1):
            return cls(kind, value)
        raise UserError(f"`objective` {text}: write f1, precision=0.9 or recall=0.9, with a number above 0 and up to 1")

    def __str__(self) -> str:
        return self.kind if self.kind == "f1" else f"{self.kind}={self.value:g}"


def choose(curve: ThresholdCurve, objective: Objective) -> int | None:
    """Index of the best threshold on a curve; of equal ones the highest. None if no threshold reaches the objective.

    If no threshold reaches the required recall, for example because a detector misses objects, it is the lowest
    threshold.

    Examples:
        >>> curve = threshold_curve(np.array([0.9, 0.6, 0.2]), np.array([1, 0, 1]))
        >>> choose(curve, Objective.parse("recall=0.9")), choose(curve, Objective.parse("precision=0.9"))
        (1, 0)
    """
    if not len(curve.scores):
        return None
    if objective.kind == "f1":
        return curve.best
    if objective.kind == "recall":
        enough = np.flatnonzero(curve.recall >= objective.value)
        # The precision may rise again at lower thresholds.
        return int(enough[np.argmax(curve.precision[enough])]) if enough.size else len(curve.scores) - 1
    enough = np.flatnonzero(curve.precision >= objective.value)
    return int(enough[-1]) if enough.size else None
