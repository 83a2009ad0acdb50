"""Prepares single-label runs for a report: checks that they can be compared, and computes shared values."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.bootstrap import mean_over_classes
from tresnet_downstream.evaluation.frequency_groups import FrequencyGroup
from tresnet_downstream.evaluation.outcomes import SingleLabelRun
from tresnet_downstream.evaluation.report.comparable import require_same
from tresnet_downstream.evaluation.report.data import ReportData
from tresnet_downstream.evaluation.report.headline import Score, scores_of_groups
from tresnet_downstream.evaluation.report.options import Options
from tresnet_downstream.evaluation.report.parts import text_of
from tresnet_downstream.evaluation.report.tasks.frequency import groups_of
from tresnet_downstream.evaluation.single_label_scores import SingleLabelScores, single_label_scores


@dataclass(frozen=True, eq=False)
class Resampled:
    """The scores in each of R resamples of the images, in percent: (R,), (R,) and (R, C)."""

    top1: NDArray[np.float64]
    top5: NDArray[np.float64]
    recall: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SingleLabelAnalysis:
    """A run and the values that several sections use. Each is computed on first use.

    Attributes:
        name: name of the run.
        run: the run, from :func:`read_run`.
        weights: (R, N) counts of the images in each bootstrap resample; None for no intervals.
        groups: groups of classes by their frequency in training, whose scores are computed as well.
    """

    name: str
    run: SingleLabelRun
    weights: NDArray[np.int16] | None = None
    groups: Sequence[FrequencyGroup] = ()

    @cached_property
    def scores(self) -> SingleLabelScores:
        """Top-1, top-5, and the scores of the classes."""
        return single_label_scores(self.run.probabilities, self.run.labels, self.run.classes)

    @cached_property
    def resampled(self) -> Resampled | None:
        """The scores in each resample; None without resamples."""
        return None if self.weights is None else _resampled(self.scores, self.run, self.weights)

    def headline_scores(self) -> Iterator[Score]:
        """Top-1, top-5, the mean over the classes, and the calibration error."""
        samples = self.resampled
        recalls = None if samples is None else samples.recall
        title = "mean accuracy of the classes"
        yield Score("top1", "top-1", self.scores.top1, None if samples is None else samples.top1)
        yield Score("top5", "top-5", self.scores.top5, None if samples is None else samples.top5)
        means = None if recalls is None else mean_over_classes(recalls)
        yield Score("mean_per_class", title, self.scores.mean_per_class, means)
        yield from scores_of_groups("mean_per_class", title, self.groups, self.scores.recall, recalls)
        yield Score("ECE", "calibration error (lower is better)", self.scores.calibration_error)


def single_label_data(
    runs: Sequence[SingleLabelRun], names: Sequence[str], options: Options, folders: Sequence[Path] = ()
) -> ReportData[SingleLabelAnalysis]:
    """Prepares a report of one or more runs over the same images and classes.

    Raises:
        UserError: if the runs differ in images, classes or labels, or the options have thresholds.
    """
    if options.thresholds is not None:
        raise UserError(
            "thresholds: with one label per image, the most probable class is predicted, without a threshold"
        )
    runs = _in_one_order(runs, names)
    weights = options.weights(len(runs[0].images))
    groups = groups_of(runs, options)
    analyses = [SingleLabelAnalysis(name, run, weights, groups) for name, run in zip(names, runs, strict=True)]
    return ReportData("single_label", {"": analyses}, options, folders, groups, main=["top1"])


def single_label_summary(data: ReportData[SingleLabelAnalysis]) -> str:
    """The main score of each run."""
    scores = [(a.name, f"top-1 {text_of(a.scores.top1, 'percent')}") for a in data.analyses]
    return scores[0][1] if len(scores) == 1 else ", ".join(f"{name}: {text}" for name, text in scores)


def _in_one_order(runs: Sequence[SingleLabelRun], names: Sequence[str]) -> list[SingleLabelRun]:
    """The runs with images and classes in the order of the first."""
    first = runs[0]
    ordered = [first]
    for name, run in zip(names[1:], runs[1:], strict=True):
        pair = (names[0], name)
        require_same("classes", pair, first.classes, run.classes)
        require_same("images", pair, first.images, run.images)
        rows = {image: place for place, image in enumerate(run.images)}
        numbers = {label: place for place, label in enumerate(run.classes)}
        order, columns = [rows[image] for image in first.images], [numbers[label] for label in first.classes]
        labels = np.argsort(columns)[run.labels[order]]
        if len(different := np.flatnonzero(labels != first.labels)):
            image = first.images[different[0]]
            both = [first.classes[each[different[0]]] for each in (first.labels, labels)]
            raise UserError(
                f"{pair[0]} and {name} cannot be compared: image {image!r} has the labels {both[0]!r} and {both[1]!r}"
            )
        same = order == list(range(len(order))) and columns == list(range(len(columns)))
        probabilities = run.probabilities if same else run.probabilities[np.ix_(order, columns)]
        ordered.append(
            replace(run, probabilities=probabilities, labels=labels, images=first.images, classes=first.classes)
        )
    return ordered


def _resampled(scores: SingleLabelScores, run: SingleLabelRun, weights: NDArray[np.int16]) -> Resampled:
    order = np.argsort(run.labels, kind="stable")
    starts = np.searchsorted(run.labels[order], np.arange(len(run.classes)))
    present = scores.support > 0
    right, among5 = scores.rank == 0, scores.rank < 5
    top1, top5 = np.empty(len(weights)), np.empty(len(weights))
    recall = np.full((len(weights), len(run.classes)), np.nan)
    for place, row in enumerate(weights):
        counts = row.astype(np.float64)
        top1[place], top5[place] = counts @ right, counts @ among5
        sums = np.add.reduceat(counts[order], starts[present])
        hits = np.add.reduceat((counts * right)[order], starts[present])
        recall[place, present] = 100 * hits / np.where(sums > 0, sums, np.nan)
    return Resampled(100 * top1 / scores.num_images, 100 * top5 / scores.num_images, recall)
