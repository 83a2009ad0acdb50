"""The scores of the same training with several seeds: mean, standard deviation and Student's t interval."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.terminal_tables import aligned, percent

LEVEL = 0.95


class RepeatedScores(NamedTuple):
    """Mean, standard deviation and interval of several values of the same score.

    Attributes:
        mean: mean of the scores.
        std: their standard deviation, with n - 1 in the denominator; NaN for one score.
        low: lower end of the 95% t interval of the mean; NaN for one score.
        high: upper end of the interval; NaN for one score.
    """

    mean: float
    std: float
    low: float
    high: float


def repeated_scores(scores: Sequence[float]) -> RepeatedScores:
    """The mean of n scores and its 95% interval, mean +- t * std / sqrt(n), if the scores are normally distributed.

    Args:
        scores: one or more.

    Raises:
        UserError: if ``scores`` is empty.

    Examples:
        >>> [round(value, 3) for value in repeated_scores([70.0, 71.0, 72.0])]
        [71.0, 1.0, 68.516, 73.484]
    """
    if not len(scores):
        raise UserError("scores: give at least one score")
    mean = float(np.mean(scores))
    if len(scores) == 1:
        return RepeatedScores(mean, math.nan, math.nan, math.nan)
    std = float(np.std(scores, ddof=1))
    half = students_t(len(scores) - 1) * std / math.sqrt(len(scores))
    return RepeatedScores(mean, std, mean - half, mean + half)


def students_t(freedom: int, level: float = LEVEL) -> float:
    """The two-sided quantile of Student's t distribution: ``abs(T)`` is below it with probability ``level``.

    Args:
        freedom: degrees of freedom, at least 1.
        level: the probability, above 0 and below 1.
    """
    low, high = 0.0, 1.0
    while _within(high, freedom) < level:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < level else (low, middle)
    return high


def _within(t: float, freedom: int) -> float:
    """The probability of ``abs(T) < t``: Abramowitz, Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, odd = math.cos(angle), freedom % 2
    term = total = cosine if odd else 1.0
    for number in range(2 + odd, freedom - 1, 2):
        term *= (number - 1) / number * cosine**2
        total += term
    if not odd:
        return math.sin(angle) * total
    return 2 / math.pi * (angle + (math.sin(angle) * total if freedom > 1 else 0.0))


def format_seeds(name: str, scores: Mapping[int, float]) -> str:
    """A table of the scores by seed, with their mean, standard deviation and interval.

    Args:
        name: name of the score, which is in percent.
        scores: the score of each seed.
    """
    total = repeated_scores(list(scores.values()))
    rows = [[str(seed), percent(score)] for seed, score in scores.items()]
    rows += [["mean", percent(total.mean)]]
    if len(scores) == 1:
        return "\n".join([*aligned(["seed", name], rows), "one seed has no standard deviation and no interval"])
    rows += [["standard deviation", percent(total.std)]]
    interval = f"95% t interval of the mean: {percent(total.low)} to {percent(total.high)} ({len(scores)} seeds)"
    return "\n".join([*aligned(["seed", name], rows), interval])
