"""Prepares runs of detectors for a report: checks that they can be compared, and computes shared values."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.bootstrap import mean_over_classes
from tresnet_downstream.evaluation.detection_errors import ErrorSplit, error_split
from tresnet_downstream.evaluation.detection_matches import (
    bootstrap_ap,
    detection_curves,
    match_detections,
)
from tresnet_downstream.evaluation.detection_scores import HEADLINE, DetectionScores, detection_scores
from tresnet_downstream.evaluation.outcomes import DetectionRun
from tresnet_downstream.evaluation.report.comparable import require_same
from tresnet_downstream.evaluation.report.data import ReportData
from tresnet_downstream.evaluation.report.headline import Score
from tresnet_downstream.evaluation.report.options import Options
from tresnet_downstream.evaluation.report.parts import text_of
from tresnet_downstream.evaluation.threshold_curves import ThresholdCurve

# Indices of 0.50 and 0.75 in COCO's IoU thresholds.
IOU_50, IOU_75 = 0, 5
# Image, class, box, area, whether it is a crowd, and mask of an object.
_Object: TypeAlias = tuple[str, str, tuple[float, ...], float, bool, str]
_KINDS = ("bbox", "segm")
# Number of resamples that are computed at once.
_BLOCK = 50


@dataclass(frozen=True, eq=False)
class DetectionAnalysis:
    """A run and the values of one kind of prediction that several sections use.

    Attributes:
        name: name of the run.
        run: the run, from :func:`read_run`.
        kind: ``bbox`` or ``segm``.
        scores: COCO's scores.
        curves: threshold curve of each class at IoU 0.5.
        pooled: the curve of all classes together.
        limits: (C,) thresholds in use: the report's, or by default the one with the greatest F1 of all classes
            together.
        errors: errors of all detections.
        shown_errors: errors of the detections above the thresholds in use.
        shown: indices of the predictions above the thresholds in use.
        ap_samples: (R, T, C) AP in each resample; None without resamples.
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

    def headline_scores(self) -> Iterator[Score]:
        """COCO's twelve scores, the first three with resamples."""
        sampled = {"AP": slice(None), "AP50": slice(IOU_50, IOU_50 + 1), "AP75": slice(IOU_75, IOU_75 + 1)}
        for key, title in HEADLINE.items():
            samples = None
            if self.ap_samples is not None and key in sampled:
                samples = mean_over_classes(self.ap_samples[:, sampled[key]].mean(1, dtype=np.float64))
            yield Score(key, " ".join(title.split()), self.scores.headline[key], samples)


def analyse_detections(
    name: str,
    run: DetectionRun,
    kind: str,
    weights: NDArray[np.int16] | None,
    options: Options,
) -> DetectionAnalysis:
    """Scores a run and matches its predictions with the objects.

    Args:
        name: name of the run.
        run: the run, from :func:`read_run`.
        kind: ``bbox`` or ``segm``.
        weights: (R, N) counts of the images, by ascending id, in each bootstrap resample; None for no intervals.
        options: see :class:`Options`.
    """
    arguments = (run.ground_truth, run.predictions[kind], run.classes, run.image_ids, kind)
    # Each step takes up to a minute for a data set of COCO's size.
    steps: list[Callable[[], Any]] = [
        lambda: match_detections(*arguments),
        lambda: detection_scores(*arguments, backend=run.backend),
        lambda: error_split(*arguments),
    ]
    matches, scores, errors = [step() for step in options.track(steps, len(steps), "score")]
    curves, pooled = detection_curves(matches)
    limits = np.full(len(run.classes), 0.0 if pooled.best is None else pooled.best_threshold)
    if options.thresholds is not None:
        limits = options.thresholds.limits(run.classes, "detection")
    limit_of = dict(zip(run.category_ids(), limits, strict=True))
    shown = [
        row
        for row, prediction in enumerate(run.predictions[kind])
        if prediction["score"] > limit_of.get(prediction["category_id"], np.inf)
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


def detection_data(
    runs: Sequence[DetectionRun], names: Sequence[str], options: Options, folders: Sequence[Path] = ()
) -> ReportData[DetectionAnalysis]:
    """Prepares a report of one or more runs over the same images, objects and classes.

    Raises:
        UserError: if the runs differ in images, objects or classes, or the thresholds lack a class.
    """
    for name, run in zip(names[1:], runs[1:], strict=True):
        _require_comparable((names[0], name), runs[0], run)
    weights = options.weights(len(runs[0].image_ids))
    kinds = {
        kind: [analyse_detections(name, run, kind, weights, options) for name, run in zip(names, runs, strict=True)]
        for kind in _KINDS
        if all(kind in run.predictions for run in runs)
    }
    return ReportData("detection", kinds, options, folders, main=["AP"])


def detection_summary(data: ReportData[DetectionAnalysis]) -> str:
    """The main scores of each run."""
    return ", ".join(
        ("" if len(data.analyses) == 1 else f"{a.name}: ")
        + f"AP {text_of(a.scores.headline['AP'], 'percent')}, AP50 {text_of(a.scores.headline['AP50'], 'percent')}"
        for a in data.analyses
    )


def _require_comparable(names: tuple[str, str], first: DetectionRun, second: DetectionRun) -> None:
    require_same("classes", names, first.classes, second.classes)
    require_same("kinds of predictions", names, sorted(first.predictions), sorted(second.predictions))
    require_same("images", names, list(_image_names(first).values()), list(_image_names(second).values()))
    if first.classes != second.classes:
        raise UserError(f"{names[0]} and {names[1]} cannot be compared: their classes have a different order")
    if _image_names(first) != _image_names(second):
        raise UserError(f"{names[0]} and {names[1]} cannot be compared: their images have other ids")
    one, other = _objects(first), _objects(second)
    different = (one - other) | (other - one)
    if different:
        image = min(name for name, *_ in different)
        raise UserError(f"{names[0]} and {names[1]} cannot be compared: image {image!r} has other objects")


def _image_names(run: DetectionRun) -> dict[int, str]:
    scored = set(run.image_ids)
    return {image["id"]: image["file_name"] for image in run.ground_truth["images"] if image["id"] in scored}


def _objects(run: DetectionRun) -> Counter[_Object]:
    images, classes = _image_names(run), dict(zip(run.category_ids(), run.classes, strict=True))
    return Counter(
        (
            images[thing["image_id"]],
            classes[thing["category_id"]],
            tuple(thing["bbox"]),
            thing["area"],
            bool(thing["iscrowd"]),
            json.dumps(thing.get("segmentation")),
        )
        for thing in run.ground_truth["annotations"]
        if thing["image_id"] in images and thing["category_id"] in classes
    )
