"""Prepares multi-label runs for a report: checks that they can be compared, and computes shared values."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tresnet_downstream.evaluation.bootstrap import (
    bootstrap_ap,
    bootstrap_operating_points,
    mean_over_classes,
)
from tresnet_downstream.evaluation.calibration import Reliability, reliability
from tresnet_downstream.evaluation.frequency_groups import FrequencyGroup
from tresnet_downstream.evaluation.multilabel_scores import MultilabelScores, columns, multilabel_scores
from tresnet_downstream.evaluation.outcomes import MultilabelRun
from tresnet_downstream.evaluation.report.comparable import in_one_order
from tresnet_downstream.evaluation.report.data import ReportData
from tresnet_downstream.evaluation.report.headline import Score, scores_of_groups
from tresnet_downstream.evaluation.report.options import Options
from tresnet_downstream.evaluation.report.parts import text_of
from tresnet_downstream.evaluation.report.tasks.frequency import groups_of
from tresnet_downstream.evaluation.threshold_curves import ThresholdCurve, threshold_curve

# Numbers of points that keep the page small enough to be mailed: the maximum and minimum of a curve, and the total.
_MOST_CURVE_POINTS, _LEAST_CURVE_POINTS, _ALL_CURVE_POINTS = 100, 12, 150_000
POINT_TITLES = {
    "CP": "CP",
    "CR": "CR",
    "CF1_mean_of_per_class_f1": "CF1, mean of F1s",
    "CF1_of_mean_precision_recall": "CF1 of CP and CR",
    "OP": "OP",
    "OR": "OR",
    "OF1": "OF1",
}


@dataclass(frozen=True, eq=False)
class Curves:
    """Precision and recall of every class, and of all classes together in the last row, at some of the thresholds."""

    thresholds: list[NDArray[np.float64]]
    precision: list[NDArray[np.float64]]
    recall: list[NDArray[np.float64]]
    best_threshold: NDArray[np.float64]
    best_f1: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MultilabelAnalysis:
    """A run and the values that several sections use. Each is computed on first use.

    Attributes:
        name: name of the run.
        run: the run, from :func:`read_run`.
        options: options of the report.
        weights: (R, N) counts of the images in each bootstrap resample; None for no intervals.
        groups: groups of classes by their frequency in training, whose scores are computed as well.
    """

    name: str
    run: MultilabelRun
    options: Options
    weights: NDArray[np.int16] | None = None
    groups: Sequence[FrequencyGroup] = ()

    @cached_property
    def threshold(self) -> float | NDArray[np.float64]:
        """The threshold in use: one number, or (C,) thresholds that were chosen for each class."""
        chosen = self.options.thresholds
        return self.run.threshold if chosen is None else chosen.limits(self.run.classes, "multilabel")

    @cached_property
    def limits(self) -> NDArray[np.float64]:
        """(C,) thresholds in use."""
        return np.broadcast_to(np.asarray(self.threshold, np.float64), len(self.run.classes))

    @cached_property
    def scores(self) -> MultilabelScores:
        """AP, precision, recall and F1."""
        run = self.run
        return multilabel_scores(
            run.probabilities, run.targets, run.classes, self.threshold, run.top_k, self.options.track
        )

    @cached_property
    def curves(self) -> Curves:
        """Precision and recall by threshold."""
        return _curves(self)

    @cached_property
    def reliability(self) -> Reliability:
        """The reliability diagram's values."""
        return reliability(self.run.probabilities, self.run.targets)

    @cached_property
    def ap_samples(self) -> NDArray[np.float64] | None:
        """(R, C) AP in each resample; None without resamples."""
        if self.weights is None:
            return None
        return bootstrap_ap(self.run.probabilities, self.run.targets, self.weights, self.options.track)

    @cached_property
    def point_samples(self) -> tuple[dict[str, NDArray[np.float64]], ...] | None:
        """The scores at the threshold, and at the top k, in each resample; None without resamples."""
        if self.weights is None:
            return None
        run = self.run
        return bootstrap_operating_points(run.probabilities, run.targets, self.threshold, run.top_k, self.weights)

    def headline_scores(self) -> Iterator[Score]:
        """mAP, the scores at both operating points, and the calibration errors."""
        samples = None if self.ap_samples is None else mean_over_classes(self.ap_samples)
        yield Score("mAP", "mAP", self.scores.mAP, samples)
        yield from scores_of_groups("mAP", "mAP", self.groups, self.scores.ap, self.ap_samples)
        limit = f"score > {self.threshold:g}" if isinstance(self.threshold, float) else "chosen thresholds"
        points = (
            ("at_threshold", limit, self.scores.at_threshold),
            ("at_top_k", f"top {self.scores.top_k}", self.scores.at_top_k),
        )
        for place, (key, where, point) in enumerate(points):
            for name, value in asdict(point).items():
                resampled = None if self.point_samples is None else self.point_samples[place][name]
                yield Score(f"{key}/{name}", f"{POINT_TITLES[name]}, {where}", value, resampled)
        yield Score("ECE", "ECE, all entries (lower is better)", self.reliability.error)
        yield Score("ECE_of_classes", "ECE, mean of classes (lower is better)", self.reliability.class_error)


def multilabel_data(
    runs: Sequence[MultilabelRun], names: Sequence[str], options: Options, folders: Sequence[Path] = ()
) -> ReportData[MultilabelAnalysis]:
    """Prepares a report of one or more runs over the same images and classes.

    Raises:
        UserError: if the runs differ in images, classes or targets, or the thresholds lack a class.
    """
    runs = in_one_order(runs, names)
    weights = options.weights(len(runs[0].images))
    groups = groups_of(runs, options)
    analyses = [MultilabelAnalysis(name, run, options, weights, groups) for name, run in zip(names, runs, strict=True)]
    return ReportData("multilabel", {"": analyses}, options, folders, groups, main=["mAP"])


def multilabel_summary(data: ReportData[MultilabelAnalysis]) -> str:
    """The main score of each run."""
    scores = [(a.name, f"mAP {text_of(a.scores.mAP, 'percent')}") for a in data.analyses]
    return scores[0][1] if len(scores) == 1 else ", ".join(f"{name}: {text}" for name, text in scores)


def _curves(analysis: MultilabelAnalysis) -> Curves:
    probabilities, targets = analysis.run.probabilities, analysis.run.targets
    num_classes = probabilities.shape[1]
    points = int(np.clip(_ALL_CURVE_POINTS // num_classes, _LEAST_CURVE_POINTS, _MOST_CURVE_POINTS))
    thresholds, precision, recall, best = [], [], [], []

    def add(curve: ThresholdCurve, most: int) -> None:
        some = curve.some(most)
        thresholds.append(curve.thresholds[some])
        precision.append(curve.precision[some])
        recall.append(curve.recall[some])
        f1 = np.nan if curve.best is None else 100 * curve.f1[curve.best]
        best.append((curve.best_threshold, f1))

    for column in analysis.options.track(columns(probabilities, targets), num_classes, "curves"):
        add(threshold_curve(*column), points)
    add(threshold_curve(probabilities, targets), _MOST_CURVE_POINTS)
    best_threshold, best_f1 = np.array(best).T
    return Curves(thresholds, precision, recall, best_threshold, best_f1)
