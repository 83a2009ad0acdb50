"""What is found out about a multi-label run before it is shown."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tresnet_downstream.evaluation.bootstrap import (
    Interval,
    bootstrap_ap,
    bootstrap_operating_points,
    class_interval,
    mean_over_classes,
)
from tresnet_downstream.evaluation.calibration import Reliability, reliability
from tresnet_downstream.evaluation.frequency_groups import FrequencyGroup
from tresnet_downstream.evaluation.mistakes import Confusions, Mistake, confusions, worst_mistakes
from tresnet_downstream.evaluation.multilabel_scores import MultilabelScores, columns, multilabel_scores
from tresnet_downstream.evaluation.outcomes import MultilabelRun
from tresnet_downstream.evaluation.report.options import Options
from tresnet_downstream.evaluation.report.score_rows import Score, scores_of_groups
from tresnet_downstream.evaluation.thresholds import ThresholdCurve, threshold_curve
from tresnet_downstream.evaluation.tracking import Track

# What a page holds: enough to see everything that matters, little enough to be mailed.
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
    """Precision and recall of every class, and of all together in the last row, at some of the thresholds."""

    thresholds: list[NDArray[np.float64]]
    precision: list[NDArray[np.float64]]
    recall: list[NDArray[np.float64]]
    best_threshold: NDArray[np.float64]
    best_f1: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Analysis:
    """What is found out about one run; samples are those of the bootstrap, None without."""

    name: str
    run: MultilabelRun
    scores: MultilabelScores
    limits: NDArray[np.float64]
    curves: Curves
    reliability: Reliability
    confusions: Confusions
    false_positives: list[Mistake]
    false_negatives: list[Mistake]
    ap_samples: NDArray[np.float64] | None
    point_samples: tuple[dict[str, NDArray], dict[str, NDArray]] | None
    groups: Sequence[FrequencyGroup] = ()

    def scores_told(self) -> Iterator[Score]:
        """mAP, both operating points, and how far the probabilities are off."""
        samples = None if self.ap_samples is None else mean_over_classes(self.ap_samples)
        yield Score("mAP", "mAP", self.scores.mAP, samples)
        yield from scores_of_groups("mAP", "mAP", self.groups, self.scores.ap, self.ap_samples)
        threshold = self.scores.threshold
        limit = f"score > {threshold:g}" if isinstance(threshold, float) else "chosen thresholds"
        points = (
            ("at_threshold", limit, self.scores.at_threshold),
            ("at_top_k", f"top {self.scores.top_k}", self.scores.at_top_k),
        )
        for place, (key, what, point) in enumerate(points):
            for name, value in asdict(point).items():
                drawn = None if self.point_samples is None else self.point_samples[place][name]
                yield Score(f"{key}/{name}", f"{POINT_TITLES[name]}, {what}", value, drawn)
        yield Score("ECE", "ECE, all entries (lower is better)", self.reliability.error)
        yield Score("ECE_of_classes", "ECE, mean of classes (lower is better)", self.reliability.class_error)


def analyse(
    name: str,
    run: MultilabelRun,
    weights: NDArray[np.int16] | None,
    options: Options,
    groups: Sequence[FrequencyGroup] = (),
) -> Analysis:
    """Scores a run and looks into it.

    Args:
        name: what to call it.
        run: from :func:`read_run`.
        weights: of the bootstrap's resamples; None for no intervals.
        options: see :class:`Options`.
        groups: of classes by their frequency in training, which get scores of their own.
    """
    probabilities, targets = run.probabilities, run.targets
    limit: float | NDArray = (
        run.threshold if options.thresholds is None else options.thresholds.limits(run.classes, "multilabel")
    )
    scores = multilabel_scores(probabilities, targets, run.classes, limit, run.top_k, options.track)
    limits = np.broadcast_to(np.asarray(limit, np.float64), len(run.classes))
    false_positives, false_negatives = worst_mistakes(probabilities, targets, limits, run.images)
    ap_samples, point_samples = None, None
    if weights is not None:
        ap_samples = bootstrap_ap(probabilities, targets, weights, options.track)
        point_samples = bootstrap_operating_points(probabilities, targets, limit, run.top_k, weights)
    return Analysis(
        name=name,
        run=run,
        scores=scores,
        limits=limits,
        curves=_curves(probabilities, targets, options.track),
        reliability=reliability(probabilities, targets),
        confusions=confusions(probabilities, targets, limits),
        false_positives=false_positives,
        false_negatives=false_negatives,
        ap_samples=ap_samples,
        point_samples=point_samples,
        groups=groups,
    )


def _curves(probabilities: NDArray, targets: NDArray, track: Track) -> Curves:
    num_classes = probabilities.shape[1]
    points = int(np.clip(_ALL_CURVE_POINTS // num_classes, _LEAST_CURVE_POINTS, _MOST_CURVE_POINTS))
    whole = track(columns(probabilities, targets), num_classes, "curves")
    thresholds, precision, recall, best = [], [], [], []

    def add(curve: ThresholdCurve, most: int) -> None:
        some = curve.some(most)
        thresholds.append(curve.thresholds[some])
        precision.append(curve.precision[some])
        recall.append(curve.recall[some])
        f1 = np.nan if curve.best is None else 100 * curve.f1[curve.best]
        best.append((curve.best_threshold, f1))

    for column in whole:
        add(threshold_curve(*column), points)
    add(threshold_curve(probabilities, targets), _MOST_CURVE_POINTS)
    best_threshold, best_f1 = np.array(best).T
    return Curves(thresholds, precision, recall, best_threshold, best_f1)


def class_scores(analysis: Analysis) -> list[dict[str, Any]]:
    """A record for each class, in their order."""
    scores, curves = analysis.scores, analysis.curves
    spreads = [
        Interval(np.nan, np.nan)
        if analysis.ap_samples is None or not scores.support[c]
        else class_interval(analysis.ap_samples[:, c], float(scores.ap[c]))
        for c in range(len(scores.classes))
    ]
    return [
        {
            "class": name,
            "ap": float(scores.ap[c]),
            "ap_low": spreads[c].low,
            "ap_high": spreads[c].high,
            "support": int(scores.support[c]),
            "unknown": int(scores.unknown[c]),
            "precision": float(scores.precision[c]),
            "recall": float(scores.recall[c]),
            "f1": float(scores.f1[c]),
            "threshold": float(analysis.limits[c]),
            "best_threshold": float(curves.best_threshold[c]),
            "best_f1": float(curves.best_f1[c]),
        }
        for c, name in enumerate(scores.classes)
    ]
