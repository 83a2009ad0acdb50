"""What is found out about a detector's run before it is shown."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tresnet_downstream.evaluation.bootstrap import Interval, class_interval, mean_over_classes
from tresnet_downstream.evaluation.detection_errors import ErrorSplit, error_split
from tresnet_downstream.evaluation.detection_matches import (
    bootstrap_ap,
    detection_curves,
    match_detections,
)
from tresnet_downstream.evaluation.detection_scores import HEADLINE, DetectionScores, detection_scores
from tresnet_downstream.evaluation.outcomes import DetectionRun
from tresnet_downstream.evaluation.report.options import Options
from tresnet_downstream.evaluation.report.score_rows import Score
from tresnet_downstream.evaluation.thresholds import ThresholdCurve

# Places of 0.50 and 0.75 among COCO's IoU thresholds.
IOU_50, IOU_75 = 0, 5
# Resamples worked on at once.
_BLOCK = 50


@dataclass(frozen=True, eq=False)
class DetectionAnalysis:
    """What is found out about one run and kind.

    Attributes:
        name: what the run is called.
        run: the run.
        kind: ``bbox`` or ``segm``.
        scores: COCO's.
        curves: for each class, at IoU 0.5.
        pooled: all classes together.
        limits: (C,) thresholds in use: those given, or else the one with the greatest F1 of all classes together.
        errors: of all detections.
        shown_errors: of those above the thresholds in use.
        shown: which those are, rows of the predictions.
        ap_samples: (R, T, C) of the bootstrap; None without.
    """

    name: str
    run: DetectionRun
    kind: str
    scores: DetectionScores
    curves: list[ThresholdCurve]
    pooled: ThresholdCurve
    limits: NDArray[np.float64]
    errors: ErrorSplit
    shown_errors: ErrorSplit
    shown: list[int]
    ap_samples: NDArray[np.float32] | None

    def scores_told(self) -> Iterator[Score]:
        """COCO's twelve numbers; resamples for the first three."""
        whole = {"AP": slice(None), "AP50": slice(IOU_50, IOU_50 + 1), "AP75": slice(IOU_75, IOU_75 + 1)}
        for key, title in HEADLINE.items():
            samples = None
            if self.ap_samples is not None and key in whole:
                samples = mean_over_classes(self.ap_samples[:, whole[key]].mean(1, dtype=np.float64))
            yield Score(key, " ".join(title.split()), self.scores.headline[key], samples)


def analyse_detections(
    name: str,
    run: DetectionRun,
    kind: str,
    weights: NDArray[np.int16] | None,
    options: Options,
) -> DetectionAnalysis:
    """Scores a run and looks into it.

    Args:
        name: what to call it.
        run: from :func:`read_run`.
        kind: ``bbox`` or ``segm``.
        weights: (R, N) of the bootstrap's resamples of the images, by ascending id; None for no intervals.
        options: see :class:`Options`.
    """
    given = (run.ground_truth, run.predictions[kind], run.classes, run.image_ids, kind)
    # Each takes up to a minute on a set of COCO's size.
    steps: list[Callable[[], Any]] = [
        lambda: match_detections(*given),
        lambda: detection_scores(*given, backend=run.backend),
        lambda: error_split(*given),
    ]
    matches, scores, errors = [step() for step in options.track(steps, len(steps), "score")]
    curves, pooled = detection_curves(matches)
    limits = np.full(len(run.classes), 0.0 if pooled.best is None else pooled.best_threshold)
    if options.thresholds is not None:
        limits = options.thresholds.limits(run.classes, "detection")
    limit_of = dict(zip(run.category_ids(), limits, strict=True))
    shown = [
        row
        for row, found in enumerate(run.predictions[kind])
        if found["score"] > limit_of.get(found["category_id"], np.inf)
    ]
    samples = None
    if weights is not None:
        blocks = [weights[first : first + _BLOCK] for first in range(0, len(weights), _BLOCK)]
        samples = bootstrap_ap(matches, options.track(blocks, len(blocks), "resample"))
    return DetectionAnalysis(
        name=name,
        run=run,
        kind=kind,
        scores=scores,
        curves=curves,
        pooled=pooled,
        limits=limits,
        errors=errors,
        shown_errors=error_split(
            run.ground_truth, [run.predictions[kind][row] for row in shown], run.classes, run.image_ids, kind
        ),
        shown=shown,
        ap_samples=samples,
    )


def class_records(analysis: DetectionAnalysis) -> list[dict[str, Any]]:
    """A record for each class, in their order."""
    scores, records = analysis.scores, []
    by_size = 100 * scores.precision.mean((0, 1))  # (C, 4)
    for c, name in enumerate(scores.classes):
        spread = Interval(np.nan, np.nan)
        if analysis.ap_samples is not None and scores.support[c]:
            spread = class_interval(analysis.ap_samples[:, :, c].mean(1, dtype=np.float64), float(scores.ap[c]))
        curve = analysis.curves[c]
        at_best = [np.nan] * 3
        if curve.best is not None:
            at_best = [100 * float(column[curve.best]) for column in (curve.precision, curve.recall, curve.f1)]
        records.append(
            {
                "class": name,
                "ap": float(scores.ap[c]),
                "ap_low": spread.low,
                "ap_high": spread.high,
                "ap50": float(scores.ap50[c]),
                "ap75": float(scores.ap75[c]),
                "ap_small": float(by_size[c, 1]),
                "ap_medium": float(by_size[c, 2]),
                "ap_large": float(by_size[c, 3]),
                "ar100": float(scores.ar[c]),
                "support": int(scores.support[c]),
                "threshold": float(analysis.limits[c]),
                "best_threshold": curve.best_threshold,
                "best_precision": at_best[0],
                "best_recall": at_best[1],
                "best_f1": at_best[2],
            }
        )
    return records
