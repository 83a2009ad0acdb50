"""What is found out about a run with one label per image before it is shown."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tresnet_downstream.evaluation.bootstrap import Interval, class_interval, mean_over_classes
from tresnet_downstream.evaluation.frequency_groups import FrequencyGroup
from tresnet_downstream.evaluation.outcomes import SingleLabelRun
from tresnet_downstream.evaluation.report.options import Options
from tresnet_downstream.evaluation.report.score_rows import (
    Score,
    bootstrap_as_json,
    differences_as_json,
    scores_as_json,
    scores_of_groups,
)
from tresnet_downstream.evaluation.single_label_scores import SingleLabelScores, confidence_bins, single_label_scores

CLASS_COLUMNS = ("run", "class", "recall", "recall_low", "recall_high", "support", "precision", "f1")
# Confused pairs that are told.
PAIRS = 30


@dataclass(frozen=True, eq=False)
class Resampled:
    """Scores in each of R resamples of the images, in percent."""

    top1: NDArray[np.float64]
    top5: NDArray[np.float64]
    recall: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Analysis:
    """What is found out about one run; ``resampled`` is None without a bootstrap."""

    name: str
    run: SingleLabelRun
    scores: SingleLabelScores
    resampled: Resampled | None
    groups: Sequence[FrequencyGroup] = ()

    def scores_told(self) -> Iterator[Score]:
        """Top-1, top-5, the mean over the classes, and how far the probabilities are off."""
        drawn = self.resampled
        means = None if drawn is None else mean_over_classes(drawn.recall)
        yield Score("top1", "top-1", self.scores.top1, None if drawn is None else drawn.top1)
        yield Score("top5", "top-5", self.scores.top5, None if drawn is None else drawn.top5)
        yield Score("mean_per_class", "mean accuracy of the classes", self.scores.mean_per_class, means)
        samples = None if drawn is None else drawn.recall
        title = "mean accuracy of the classes"
        yield from scores_of_groups("mean_per_class", title, self.groups, self.scores.recall, samples)
        yield Score("ECE", "calibration error (lower is better)", self.scores.calibration_error)

    def confidence(self) -> tuple[NDArray, NDArray, NDArray]:
        """By confidence: its mean, the share of right images, and the number of images; NaN in empty bins."""
        count, claimed, right = confidence_bins(self.scores.confidence, self.scores.rank == 0)
        filled = np.where(count > 0, count, np.nan)
        return claimed / filled, right / filled, count


def analyse(
    name: str, run: SingleLabelRun, weights: NDArray[np.int16] | None, groups: Sequence[FrequencyGroup] = ()
) -> Analysis:
    """Scores a run and resamples it.

    Args:
        name: what to call it.
        run: from :func:`read_run`.
        weights: of the bootstrap's resamples, (R, N); None for no intervals.
        groups: of classes by their frequency in training, which get scores of their own.
    """
    scores = single_label_scores(run.probabilities, run.labels, run.classes)
    return Analysis(name, run, scores, None if weights is None else _resampled(scores, run, weights), groups)


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


def class_scores(analysis: Analysis) -> list[dict[str, Any]]:
    """A record for each class, in their order."""
    scores, drawn = analysis.scores, analysis.resampled
    records = []
    for c, name in enumerate(scores.classes):
        spread = Interval(np.nan, np.nan)
        if drawn is not None and scores.support[c]:
            spread = class_interval(drawn.recall[:, c], float(scores.recall[c]))
        records.append(
            {
                "class": name,
                "recall": float(scores.recall[c]),
                "recall_low": spread.low,
                "recall_high": spread.high,
                "support": int(scores.support[c]),
                "precision": float(scores.precision[c]),
                "f1": float(scores.f1[c]),
            }
        )
    return records


def as_json(analyses: Sequence[Analysis], options: Options) -> dict[str, Any]:
    """What ``scores.json`` holds; docs/reports.md describes it."""
    first = analyses[0]
    runs = []
    for analysis in analyses:
        names = analysis.run.classes
        probability, frequency, count = analysis.confidence()
        runs.append(
            {
                "name": analysis.name,
                "about": analysis.run.about,
                "headline": scores_as_json(analysis),
                "log_loss": analysis.scores.log_loss,
                "calibration": {"confidence": probability, "accuracy": frequency, "count": count},
                "confusions": [
                    {"label": names[each.label], "predicted": names[each.predicted], "images": each.count}
                    for each in analysis.scores.confusions[:PAIRS]
                ],
                "per_class": class_scores(analysis),
            }
        )
    return {
        "task": "single_label",
        "num_images": len(first.run.images),
        "classes": first.run.classes,
        **({"bootstrap": bootstrap_as_json(options)} if options.resamples else {}),
        "runs": runs,
        "differences": differences_as_json(analyses),
    }
