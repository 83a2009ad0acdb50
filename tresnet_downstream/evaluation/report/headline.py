"""The main scores of a run with their intervals, and the differences between runs."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tresnet_downstream.evaluation.bootstrap import Interval, difference_interval, interval, mean_over_classes
from tresnet_downstream.evaluation.frequency_groups import FrequencyGroup, group_scores
from tresnet_downstream.evaluation.outcomes import Run


class Score(NamedTuple):
    """A score of a run.

    Attributes:
        key: name of the score in JSON.
        title: name of the score in tables.
        value: the score, in percent.
        samples: (R,) the score in each resample; None without resamples.
    """

    key: str
    title: str
    value: float
    samples: NDArray[np.float64] | None = None

    def interval(self) -> Interval | None:
        """The 95% interval of the score."""
        return None if self.samples is None else interval(self.samples, self.value)

    def as_json(self) -> dict[str, object]:
        """The value and, with resamples, the interval."""
        return {"value": self.value, **({} if self.samples is None else {"interval": self.interval()})}


class Analysis(Protocol):
    """A run and the values that were computed from it."""

    @property
    def name(self) -> str:
        """The name of the run."""

    @property
    def run(self) -> Run:
        """The content of the run folder."""

    def headline_scores(self) -> Iterator[Score]:
        """The main scores, the same for every run of a task, in the same order."""


def scores_of_groups(
    key: str,
    title: str,
    groups: Sequence[FrequencyGroup],
    of_classes: NDArray[np.float64],
    samples: NDArray[np.float64] | None,
) -> Iterator[Score]:
    """The mean score of each group of classes.

    Args:
        key: key of the mean over all classes.
        title: title of that mean.
        groups: from :func:`~tresnet_downstream.evaluation.frequency_groups.frequency_groups`.
        of_classes: (C,) scores of the classes, in percent; NaN for a class without a score.
        samples: (R, C) these scores in each resample; None without resamples.
    """
    for each in group_scores(groups, of_classes):
        of_group = None if samples is None else mean_over_classes(samples[:, each.group.places])
        yield Score(f"{key}/{each.group.name}", f"{title}, {each.group.title}", each.score, of_group)


class Difference(NamedTuple):
    """The difference of a run's score from that of the first run.

    Attributes:
        run: name of the run.
        key: name of the score in JSON.
        title: name of the score in tables.
        value: the difference, in points.
        interval: its paired 95% interval; None without resamples.
    """

    run: str
    key: str
    title: str
    value: float
    interval: Interval | None


def differences(analyses: Sequence[Analysis]) -> Iterator[Difference]:
    """The differences of all headline scores of each run from those of the first run."""
    for other in analyses[1:]:
        for score, base in zip(other.headline_scores(), analyses[0].headline_scores(), strict=True):
            difference = score.value - base.value
            paired = None
            if score.samples is not None and base.samples is not None:
                paired = difference_interval(score.samples - base.samples, difference)
            # Runs may have been scored at different thresholds.
            title = " / ".join(dict.fromkeys((base.title, score.title)))
            yield Difference(other.name, score.key, title, difference, paired)
