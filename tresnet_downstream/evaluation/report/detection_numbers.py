"""The numbers of a report of detectors' runs, for programs and for the page's own script."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tresnet_downstream.evaluation.detection_scores import SIZES
from tresnet_downstream.evaluation.report.detection_analysis import DetectionAnalysis, class_records
from tresnet_downstream.evaluation.report.options import Options
from tresnet_downstream.evaluation.report.parts import one_limit, opening_class
from tresnet_downstream.evaluation.report.score_rows import (
    bootstrap_as_json,
    differences_as_json,
    scores_as_json,
    thresholds_as_json,
)

CLASS_COLUMNS = (
    *("run", "kind", "class", "ap", "ap_low", "ap_high", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar100", "support", "threshold", "best_threshold", "best_precision", "best_recall", "best_f1"),
)
_CURVE_POINTS = 100
# Above so many classes a page holds the curves of fewer IoUs.
_MANY_CLASSES = 200


def precision_curves(analysis: DetectionAnalysis) -> list[list[NDArray]]:
    """For each IoU the (101,) precision of each class, and last their mean; empty where there is no object."""
    per_class = analysis.scores.precision[..., 0].transpose(0, 2, 1)  # (T, C, 101)
    present = ~np.isnan(per_class[0, :, 0])
    return [
        [
            *(values if there else values[:0] for values, there in zip(of_iou, present, strict=True)),
            of_iou[present].mean(0) if present.any() else of_iou[0, :0],
        ]
        for of_iou in per_class
    ]


def charts(analyses: Sequence[DetectionAnalysis]) -> dict[str, Any]:
    """Curves for the page's script, rounded to what can be seen; the last of each list is all classes together."""
    first = analyses[0].scores
    thresholds = first.iou_thresholds
    some = [0, 5] if len(first.classes) > _MANY_CLASSES else list(range(len(thresholds)))
    runs = []
    for analysis in analyses:
        curves = [*analysis.curves, analysis.pooled]
        points = [curve.some(_CURVE_POINTS) for curve in curves]
        precision = precision_curves(analysis)
        runs.append(
            {
                **{
                    key: [
                        np.round(getattr(c, of_curve)[p], digits).tolist() for c, p in zip(curves, points, strict=True)
                    ]
                    for key, of_curve, digits in (
                        ("threshold", "thresholds", 4),
                        ("precision", "precision", 3),
                        ("recall", "recall", 3),
                    )
                },
                "used": np.round([*analysis.limits, one_limit(analysis.limits)], 4).tolist(),
                "best": np.round([curve.best_threshold for curve in curves], 4).tolist(),
                "choices": [[np.round(values, 3).tolist() for values in precision[t]] for t in some],
            }
        )
    return {
        "classes": [*first.classes, "all classes together"],
        "chosen": opening_class(first.ap, first.support),
        "choices": {"title": "at IoU", "names": [f"{thresholds[t]:.2f}" for t in some], "chosen": 0},
        "recalls": np.round(np.linspace(0, 1, first.precision.shape[1]), 3).tolist(),
        "runs": runs,
    }


def as_json(of_kind: Mapping[str, Sequence[DetectionAnalysis]], options: Options) -> dict[str, Any]:
    """What ``scores.json`` holds; docs/reports.md describes it."""
    first = next(iter(of_kind.values()))
    runs = []
    for place, analysis in enumerate(first):
        kinds = {kind: analyses[place] for kind, analyses in of_kind.items()}
        runs.append(
            {
                "name": analysis.name,
                "about": analysis.run.about,
                "headline": {kind: scores_as_json(given) for kind, given in kinds.items()},
                "ap_by_size_and_iou": {kind: given.scores.ap_by_size_and_iou() for kind, given in kinds.items()},
                "errors": {
                    kind: {
                        "counts": given.errors.counts,
                        "gain": given.errors.gain,
                        "false_positive_gain": given.errors.false_positive_gain,
                        "false_negative_gain": given.errors.false_negative_gain,
                        "counts_above_threshold": given.shown_errors.counts,
                    }
                    for kind, given in kinds.items()
                },
                "per_class": [
                    {"kind": kind, **record} for kind, given in kinds.items() for record in class_records(given)
                ],
            }
        )
    return {
        "task": "detection",
        "num_images": len(first[0].run.image_ids),
        "num_classes": len(first[0].run.classes),
        "thresholds": thresholds_as_json(options),
        "sizes": SIZES,
        "iou_thresholds": first[0].scores.iou_thresholds,
        "bootstrap": bootstrap_as_json(options),
        "runs": runs,
        "differences": {kind: differences_as_json(analyses) for kind, analyses in of_kind.items()},
    }
