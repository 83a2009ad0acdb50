"""The numbers of a report of multi-label runs, for programs and for the page's own script."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tresnet_downstream.evaluation.report.multilabel_analysis import Analysis, class_scores
from tresnet_downstream.evaluation.report.options import Options
from tresnet_downstream.evaluation.report.parts import one_limit
from tresnet_downstream.evaluation.report.score_rows import (
    bootstrap_as_json,
    differences_as_json,
    scores_as_json,
    thresholds_as_json,
)

# Confused pairs that are told.
PAIRS = 15
CLASS_COLUMNS = (
    *("run", "class", "ap", "ap_low", "ap_high", "support", "unknown", "precision", "recall", "f1"),
    *("threshold", "best_threshold", "best_f1"),
)


def as_json(analyses: Sequence[Analysis], options: Options) -> dict[str, Any]:
    """What ``scores.json`` holds; docs/reports.md describes it."""
    first = analyses[0]
    runs = []
    for analysis in analyses:
        found, names = analysis.confusions, analysis.run.classes
        mistakes = (("false_positives", analysis.false_positives), ("false_negatives", analysis.false_negatives))
        runs.append(
            {
                "name": analysis.name,
                "about": analysis.run.about,
                "threshold": analysis.scores.threshold,
                "top_k": analysis.run.top_k,
                "headline": scores_as_json(analysis),
                "calibration": dict(vars(analysis.reliability)),
                "confusions": [
                    {"missed": names[i], "found": names[j], "images": count} for i, j, count, _ in found.pairs(PAIRS)
                ],
                **{
                    key: [
                        {"image": analysis.run.images[m.image], "class": names[m.label], "probability": m.probability}
                        for m in given
                    ]
                    for key, given in mistakes
                },
                "per_class": class_scores(analysis),
            }
        )
    return {
        "task": "multilabel",
        "num_images": len(first.run.images),
        "num_classes": len(first.run.classes),
        "absent": first.scores.absent,
        "thresholds": thresholds_as_json(options),
        "bootstrap": bootstrap_as_json(options),
        "runs": runs,
        "differences": differences_as_json(analyses),
    }


def charts(analyses: Sequence[Analysis], chosen: int) -> dict[str, Any]:
    """Curves for the page's script, rounded to what can be seen; the last of each list is all classes together."""
    names = [*analyses[0].run.classes, "all classes together"]
    return {
        "classes": names,
        "chosen": chosen,
        "runs": [
            {
                "threshold": [np.round(values, 4).tolist() for values in a.curves.thresholds],
                "precision": [np.round(values, 3).tolist() for values in a.curves.precision],
                "recall": [np.round(values, 3).tolist() for values in a.curves.recall],
                "used": np.round([*a.limits, one_limit(a.limits)], 4).tolist(),
                "best": np.round(a.curves.best_threshold, 4).tolist(),
            }
            for a in analyses
        ],
    }
