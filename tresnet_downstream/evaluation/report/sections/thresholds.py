"""Precision, recall and F1 of multi-label runs by threshold."""

import numpy as np

from tresnet_downstream.evaluation.report import plots
from tresnet_downstream.evaluation.report.data import ReportData
from tresnet_downstream.evaluation.report.parts import Figure, Section, opening_class
from tresnet_downstream.evaluation.report.registry import section
from tresnet_downstream.evaluation.report.tasks.multilabel import MultilabelAnalysis

_CHOOSING = (
    "The command tresnet thresholds chooses thresholds, for each class or for all, and tresnet predict uses them. "
    "Scores on the images that the thresholds were chosen on are too high: choose on one split, score on another."
)


@section("multilabel", place=30)
def thresholds(data: ReportData[MultilabelAnalysis]) -> Section:
    """Computes a plot for each run, for the selected class."""
    first = data.analyses[0].scores
    selected = opening_class(first.ap, first.support)
    figures = []
    for place, analysis in enumerate(data.analyses):
        curves = analysis.curves
        recall, precision = curves.recall[selected], curves.precision[selected]
        total = np.where(precision + recall == 0, 1, precision + recall)
        drawing, frame = plots.curves(
            [
                ("precision", "precision", curves.thresholds[selected], precision),
                ("recall", "recall", curves.thresholds[selected], recall),
                ("f1", "F1", curves.thresholds[selected], 2 * precision * recall / total),
            ],
            "threshold",
            "score",
            [
                ("used", "threshold in use", float(analysis.limits[selected])),
                ("best", "greatest F1", float(curves.best_threshold[selected])),
            ],
        )
        figures.append(
            Figure(
                f"thresholds{data.run_suffix(place)}",
                f"Precision, recall and F1 by threshold{data.of_run(place)}",
                "A class is predicted if its score is above the threshold.",
                drawing,
                chart="thresholds",
                frame=frame,
                run=place,
            )
        )
    return Section("Thresholds", figures=figures, footnotes=[_CHOOSING])
