"""Tables of scores that every kind of report has: with intervals, and run against run."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from tresnet_downstream.evaluation.bootstrap import (
    Interval,
    difference_interval,
    interval,
    mean_over_classes,
)
from tresnet_downstream.evaluation.frequency_groups import FrequencyGroup, frequency_groups, group_scores
from tresnet_downstream.evaluation.outcomes import MultilabelRun, SingleLabelRun
from tresnet_downstream.evaluation.report.comparison import verdict
from tresnet_downstream.evaluation.report.options import Options
from tresnet_downstream.evaluation.report.parts import Column, Section, Table

INTERVALS = (
    "Intervals: bootstrap over images, {:,} resamples; basic ones for means over classes, percentiles for single "
    "classes. They tell how a score may come out on other images of the same kind, not after another training."
)

GROUPS = (
    "Head, middle and tail are classes by the number of training images that show them: thirds of the classes, unless "
    "cutoffs were set. The score of a group is the mean over its classes."
)


def bootstrap_as_json(options: Options) -> dict[str, Any]:
    """How the intervals were made."""
    methods = {"method": "basic", "method_of_classes": "percentile"}
    return {"resamples": options.resamples, "seed": options.seed, "level": 0.95, **methods}


def thresholds_as_json(options: Options) -> dict[str, Any] | None:
    """Which thresholds took the place of the runs' own."""
    given = options.thresholds
    if given is None:
        return None
    return {"objective": given.objective, "scope": given.scope, "chosen_on": given.chosen_on, "source": given.source}


class Score(NamedTuple):
    """A number of a run.

    Attributes:
        key: its name in JSON.
        title: what stands in tables.
        value: in percent.
        samples: (R,) the same in each resample; None where there are none.
    """

    key: str
    title: str
    value: float
    samples: NDArray | None = None

    def interval(self) -> Interval | None:
        """From where to where it may lie."""
        return None if self.samples is None else interval(self.samples, self.value)


def scores_of_groups(
    key: str, title: str, groups: Sequence[FrequencyGroup], of_classes: NDArray, samples: NDArray | None
) -> Iterator[Score]:
    """The mean score of each group of classes.

    Args:
        key: of the mean over all classes.
        title: its title.
        groups: from :func:`~tresnet_downstream.evaluation.frequency_groups.frequency_groups`.
        of_classes: (C,) scores of the classes, in percent, nan without.
        samples: (R, C) the same in each resample; None where there are none.
    """
    for each in group_scores(groups, of_classes):
        drawn = None if samples is None else mean_over_classes(samples[:, each.group.places])
        yield Score(f"{key}/{each.group.name}", f"{title}, {each.group.title}", each.score, drawn)


def groups_of(runs: Sequence[MultilabelRun] | Sequence[SingleLabelRun], options: Options) -> list[FrequencyGroup]:
    """Head, middle and tail by the training data of the first run that tells it, for all runs alike."""
    counts = next((run.training for run in runs if run.training is not None), None)
    if counts is not None and options.frequency_cutoffs is not None:
        counts = replace(counts, cutoffs=options.frequency_cutoffs)
    return frequency_groups(counts, runs[0].classes)


def groups_note(
    runs: Sequence[MultilabelRun] | Sequence[SingleLabelRun], names: Sequence[str], groups: Sequence[FrequencyGroup]
) -> list[str]:
    """What is to say of head, middle and tail: the rule, and that the runs were trained on other data."""
    if not groups:
        return []
    counts_of = [run.training for run in runs]
    told = {name: counts for name, counts in zip(names, counts_of, strict=True) if counts is not None}
    first, counts = next(iter(told.items()))
    notes = [GROUPS]
    if len(told) < len(runs) or any(other.images != counts.images for other in told.values()):
        notes.append(f"The runs do not all say the same of their training data; head, middle and tail are {first}'s.")
    return notes


class Scored(Protocol):
    """What is known of a run."""

    @property
    def name(self) -> str:
        """What the run is called."""

    def scores_told(self) -> Iterator[Score]:
        """The scores of its headline, the same ones in the same order for every run."""


def score_table(runs: Sequence[Scored]) -> Table:
    """A row for each score, and for each run its value and, where there are resamples, its interval."""
    per_run = [list(run.scores_told()) for run in runs]
    with_intervals = any(score.samples is not None for score in per_run[0])
    columns = [Column("score", "score, %", "text")]
    for place, run in enumerate(runs):
        columns.append(Column(f"run_{place}", run.name if len(runs) > 1 else "value"))
        columns += [Column(f"interval_{place}", "95% interval", "interval")] if with_intervals else []
    rows = []
    for scores in zip(*per_run, strict=True):
        # Runs may have been scored at other thresholds.
        row: list[Any] = [" / ".join(dict.fromkeys(score.title for score in scores))]
        for score in scores:
            row += [score.value, *([score.interval()] if with_intervals else [])]
        rows.append(row)
    return Table(columns, rows)


def differences(runs: Sequence[Scored]) -> Iterator[tuple[str, Score, float, Interval | None]]:
    """For each run but the first and each score: the run's name, the score, how much more it is, and the interval."""
    for other in runs[1:]:
        for score, base in zip(other.scores_told(), runs[0].scores_told(), strict=True):
            more = score.value - base.value
            paired = None
            if score.samples is not None and base.samples is not None:
                paired = difference_interval(score.samples - base.samples, more)
            title = " / ".join(dict.fromkeys((base.title, score.title)))
            yield other.name, score._replace(title=title), more, paired


def comparison_section(runs: Sequence[Scored], main: Iterable[str], num_images: int) -> Section:
    """Whether other runs are better than the first; a sentence on each score whose key is in ``main``."""
    told, rows, notes = set(main), [], []
    for name, score, more, paired in differences(runs):
        rows.append([score.title, name, more, paired])
        if score.key in told:
            notes.append(verdict(score.title, (runs[0].name, name), more, paired, num_images))
    if any(row[-1] is not None for row in rows):
        notes.append("Differences are paired: both runs are scored on the same resamples of the images.")
    columns = [
        Column("score", "score", "text"),
        Column("run", "run", "text"),
        Column("difference", f"minus {runs[0].name}", "difference"),
        Column("interval", "95% interval", "interval"),
    ]
    return Section("Which run is better?", notes=notes, tables=[Table(columns, rows)])


def scores_as_json(run: Scored) -> dict[str, Any]:
    """By key: value and, where there are resamples, interval."""
    return {
        score.key: {"value": score.value, **({} if score.samples is None else {"interval": score.interval()})}
        for score in run.scores_told()
    }


def differences_as_json(runs: Sequence[Scored]) -> list[dict[str, Any]]:
    """The same numbers as in the page's table."""
    return [
        {
            "run": name,
            "minus": runs[0].name,
            "score": score.key,
            "difference": more,
            **({} if paired is None else {"interval": paired}),
        }
        for name, score, more, paired in differences(runs)
    ]
