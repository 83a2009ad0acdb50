"""Chooses thresholds on one run folder, and computes their scores on another."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.detection_matches import DetectionMatches, detection_curves, match_detections
from tresnet_downstream.evaluation.multilabel_scores import columns, masks_to_count, operating_point
from tresnet_downstream.evaluation.multilabel_tables import POINT_TITLES
from tresnet_downstream.evaluation.outcomes import DetectionRun, MultilabelRun, SingleLabelRun
from tresnet_downstream.evaluation.progress import Track, silently
from tresnet_downstream.evaluation.runs import read_run
from tresnet_downstream.evaluation.terminal_tables import aligned, percent, printable
from tresnet_downstream.evaluation.threshold_curves import Objective, threshold_curve
from tresnet_downstream.evaluation.thresholds import Thresholds, choose_thresholds

_KEPT = ("checkpoint", "checkpoint_sha256", "weights", "tta", "config", "data", "date")


def thresholds_for(
    folder: str | Path, objective: Objective, scope: str = "per-class", track: Track = silently
) -> Thresholds:
    """Chooses thresholds on a run; for a detector at IoU 0.5, on its boxes even if it also has masks.

    Args:
        folder: a run folder.
        objective: the objective by which each threshold is chosen.
        scope: ``per-class`` or ``global``.
        track: progress bar that counts the classes.

    Raises:
        UserError: if the folder cannot be read, has no positive, or the scope is unknown.
    """
    run = _run_with_thresholds(folder)
    if isinstance(run, MultilabelRun):
        each = track(columns(run.probabilities, run.targets), len(run.classes), "choose")
        curves = [threshold_curve(*column) for column in each]
        pooled = threshold_curve(run.probabilities, run.targets)
    else:
        curves, pooled = detection_curves(_matches(run))
    about = {key: run.about[key] for key in _KEPT if key in run.about}
    return choose_thresholds(curves, pooled, run.classes, task_of(run), objective, scope, {"run": str(folder), **about})


def _run_with_thresholds(folder: str | Path) -> MultilabelRun | DetectionRun:
    run = read_run(folder)
    if isinstance(run, SingleLabelRun):
        raise UserError(f"{folder}: has one label per image: the most probable class is predicted, without a threshold")
    return run


def judge(run: MultilabelRun | DetectionRun, limits: NDArray[np.float64] | float) -> dict[str, float]:
    """The scores of :class:`OperatingPoint` at (C,) thresholds; for a detector at IoU 0.5.

    Args:
        run: from :func:`read_run`.
        limits: (C,) thresholds; an entry is predicted if its score is above that of its class.
    """
    if isinstance(run, MultilabelRun):
        counts = np.zeros((6, len(run.classes)), np.int64)
        for masks in masks_to_count(run.probabilities, run.targets, limits, run.top_k):
            counts += [np.count_nonzero(mask, axis=0) for mask in masks]
        support, _, hits, predicted, *_ = counts
    else:
        of_class = _matches(run).of_class
        each = np.broadcast_to(np.asarray(limits, np.float64), len(of_class))
        above = [one.score > limit for one, limit in zip(of_class, each, strict=True)]
        hits = np.array([np.count_nonzero(one.matched[0] & over) for one, over in zip(of_class, above, strict=True)])
        counted = [np.count_nonzero(~one.ignored[0] & over) for one, over in zip(of_class, above, strict=True)]
        predicted, support = np.array(counted), np.array([one.objects.sum() for one in of_class])
    return {name: float(value) for name, value in operating_point(hits, predicted, support).items()}


def format_judgement(folder: str | Path, thresholds: Thresholds) -> str:
    """A table of a run's scores at the thresholds, and for a multi-label run also at its config's threshold.

    Args:
        folder: a run folder.
        thresholds: thresholds that were chosen on this run or another.

    Returns:
        lines without a trailing newline; scores in percent.
    """
    run = _run_with_thresholds(folder)
    points = {"chosen": judge(run, thresholds.limits(run.classes, task_of(run)))}
    if isinstance(run, MultilabelRun):
        points = {f"score > {run.threshold:g}": judge(run, run.threshold), **points}
    rows = [[title, *(percent(point[name]) for point in points.values())] for name, title in POINT_TITLES.items()]
    caveats = "; ".join(thresholds.caveats(run.about))
    where = f"{folder} ({caveats})" if caveats else str(folder)
    return "\n".join([where, *aligned(["", *points], rows)])


def notes_on(thresholds: Thresholds, most: int = 5) -> list[str]:
    """Lines that state the thresholds, and the classes without a threshold of their own."""
    limits = {name: limit for name, limit in thresholds.of_class.items() if limit is not None}
    notes = []
    if limits:
        low, high = min(limits, key=lambda name: limits[name]), max(limits, key=lambda name: limits[name])
        notes.append(f"thresholds: {limits[low]:.4f} ({printable(low)}) to {limits[high]:.4f} ({printable(high)})")
        if thresholds.scope == "global":
            notes = [f"threshold: {limits[low]:.4f} for all classes"]
    never = tuple(name for name in thresholds.short if thresholds.of_class[name] is None)
    lowest = tuple(name for name in thresholds.short if thresholds.of_class[name] is not None)
    objective = thresholds.objective
    unreached = "no positive is found" if objective == "f1" else f"no threshold reaches {objective}"
    for names, what in (
        (never, f"{unreached}, so these classes are never predicted and count as 0 in CP"),
        (lowest, f"{unreached}, so they have the lowest threshold, which finds all objects with a detection"),
        (thresholds.borrowed, "no positive here, so they have the threshold of all classes together"),
    ):
        if names:
            some = ", ".join(map(printable, names[:most])) + (", ..." if len(names) > most else "")
            notes.append(f"note: {len(names)} of {len(thresholds.of_class)} classes ({some}): {what}")
    return notes


def task_of(run: MultilabelRun | DetectionRun) -> str:
    """The name of the run's task in run folders."""
    return "multilabel" if isinstance(run, MultilabelRun) else "detection"


def _matches(run: DetectionRun) -> DetectionMatches:
    kind = "bbox" if "bbox" in run.predictions else next(iter(run.predictions))
    return match_detections(run.ground_truth, run.predictions[kind], run.classes, run.image_ids, kind)
