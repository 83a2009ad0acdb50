"""Chosen thresholds: one for each class, and the file that holds them."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.result_files import json_text, read_versioned
from tresnet_downstream.evaluation.threshold_curves import Objective, ThresholdCurve, choose
from tresnet_downstream.files import whole_result

FORMAT, VERSION = "tresnet_downstream.thresholds", 1
SCOPES = ("per-class", "global")


@dataclass(frozen=True, eq=False)
class Thresholds:
    """A threshold for each class.

    Attributes:
        of_class: threshold of each class by name, in the order of the classes; a class is predicted if its score is
            above it. None for a class that is never predicted, because no threshold reaches the precision or no
            positive has a score.
        task: ``multilabel`` or ``detection``.
        objective: the objective as text, see :class:`Objective`.
        scope: ``per-class`` or ``global``.
        borrowed: classes without a positive; their threshold is that of all classes together.
        short: classes for which no threshold reaches the objective; if the objective is a recall, they get the lowest
            threshold.
        chosen_on: description of the run on which the thresholds were chosen.
        source: name of the thresholds in error messages, such as the file that they were read from.
    """

    of_class: dict[str, float | None]
    task: str
    objective: str
    scope: str
    borrowed: tuple[str, ...]
    short: tuple[str, ...]
    chosen_on: dict[str, object]
    source: str = "the thresholds"

    def limits(self, classes: Sequence[str], task: str) -> NDArray[np.float64]:
        """(C,) thresholds; infinite for a class that is never predicted.

        Raises:
            UserError: if a class has no threshold, or the thresholds were chosen for another task.
        """
        if task != self.task:
            raise UserError(
                f"{self.source}: chosen for {self.task}, not for {task}; choose thresholds on a run of this model"
            )
        if missing := [name for name in classes if name not in self.of_class]:
            raise UserError(
                f"{self.source}: lacks {len(missing)} of the {len(classes)} classes, such as {missing[0]!r}; choose "
                "thresholds on a run of this model"
            )
        chosen = (self.of_class[name] for name in classes)
        return np.array([math.inf if threshold is None else threshold for threshold in chosen])

    def __str__(self) -> str:
        """The objective, the scope, and the run on which the thresholds were chosen."""
        return f"{self.objective}, {self.scope}, chosen on {self.chosen_on.get('run', 'a run')}"

    def flatter(self, about: Mapping[str, object]) -> bool:
        """Whether the run's description states the data on which the thresholds were chosen."""
        return bool(about.get("data")) and about.get("data") == self.chosen_on.get("data")

    def caveats(self, about: Mapping[str, object]) -> list[str]:
        """Why scores of a run at these thresholds may be misleading.

        Either they were chosen on the same data, or with another test-time augmentation.
        """
        caveats = ["chosen on this data, so the scores are too high"] if self.flatter(about) else []
        if self.chosen_on and about.get("tta") != self.chosen_on.get("tta"):
            before, here = ("with" if each.get("tta") else "without" for each in (self.chosen_on, about))
            tta = "another test-time augmentation" if before == here else "test-time augmentation"
            caveats.append(f"chosen {before} {tta}, scored {here} {'this' if before == here else 'it'}")
        return caveats


def choose_thresholds(
    curves: Sequence[ThresholdCurve],
    pooled: ThresholdCurve,
    classes: Sequence[str],
    task: str,
    objective: Objective,
    scope: str = "per-class",
    chosen_on: Mapping[str, object] | None = None,
) -> Thresholds:
    """Chooses a threshold for each class.

    Args:
        curves: the curve of each class.
        pooled: the curve of all classes together. A global threshold is chosen on it, so F1 is OF1; classes without a
            positive get the threshold that is chosen on it as well.
        classes: C names.
        task: ``multilabel`` or ``detection``.
        objective: the objective by which each threshold is chosen.
        scope: ``per-class`` or ``global``.
        chosen_on: description of the run, which is stored with the thresholds.

    Raises:
        UserError: if the scope is unknown, or no class has a positive.
    """
    if scope not in SCOPES:
        raise UserError(f"scope={scope!r}: choose {' or '.join(SCOPES)}")
    if not pooled.positives:
        raise UserError("no class has a positive in this run, so thresholds cannot be chosen")
    of_all, all_short = _chosen(pooled, objective)
    own = [scope == "per-class" and curve.positives > 0 for curve in curves]
    chosen = [
        _chosen(curve, objective) if has_own else (of_all, all_short)
        for curve, has_own in zip(curves, own, strict=True)
    ]
    return Thresholds(
        of_class={name: threshold for name, (threshold, _) in zip(classes, chosen, strict=True)},
        task=task,
        objective=str(objective),
        scope=scope,
        borrowed=tuple(
            name for name, curve in zip(classes, curves, strict=True) if scope == "per-class" and not curve.positives
        ),
        short=tuple(name for name, (_, is_short) in zip(classes, chosen, strict=True) if is_short),
        chosen_on=dict(chosen_on or {}),
    )


def _chosen(curve: ThresholdCurve, objective: Objective) -> tuple[float | None, bool]:
    """The threshold, and whether it falls short of the objective."""
    place = choose(curve, objective)
    if place is None:
        return None, True
    return float(curve.thresholds[place]), objective.kind == "recall" and curve.recall[place] < objective.value


def write_thresholds(thresholds: Thresholds, path: str | Path) -> None:
    """Writes thresholds as JSON for :func:`read_thresholds`. If the file has other thresholds, they are moved aside.

    Raises:
        UserError: if the file cannot be written.
    """
    require_place(path)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "task": thresholds.task,
        "objective": thresholds.objective,
        "scope": thresholds.scope,
        "borrowed": thresholds.borrowed,
        "short": thresholds.short,
        "chosen_on": thresholds.chosen_on,
        "thresholds": thresholds.of_class,
    }
    with whole_result(path) as partial:
        partial.write_text(json_text(content), encoding="utf-8", newline="")


def require_place(path: str | Path) -> None:
    """Checks that thresholds can be written to a path.

    Raises:
        UserError: if it is a folder, or a file with other content than thresholds.
    """
    if not Path(path).name or Path(path).is_dir():
        raise UserError(f"{path}: is a folder; name a file, such as thresholds.json")
    if Path(path).exists():
        try:
            read_thresholds(path)
        except UserError as error:
            raise UserError(f"{path}: exists and is not a readable file of thresholds; name another file") from error


def read_thresholds(path: str | os.PathLike[str]) -> Thresholds:
    """Reads what :func:`write_thresholds` wrote.

    Raises:
        UserError: if the file is missing, of another format or a newer version, or has a threshold that is not a
            number.
    """
    content = read_versioned(path, FORMAT, VERSION, "tresnet thresholds writes such files")
    of_class, chosen_on = content.get("thresholds"), content.get("chosen_on")
    if not isinstance(of_class, dict) or not isinstance(chosen_on, dict):
        raise UserError(
            f"{path}: is malformed: `thresholds` or `chosen_on` is not an object; write it again with tresnet "
            "thresholds"
        )
    for name, threshold in of_class.items():
        if threshold is not None and not (type(threshold) in (int, float) and -1e30 < threshold < 1e30):
            raise UserError(f"{path}: the threshold of {name!r} is {threshold!r}, not a number or null")
    right = {
        "task": content.get("task") in ("multilabel", "detection"),
        "objective": isinstance(content.get("objective"), str),
        "scope": content.get("scope") in SCOPES,
        **{key: _are_classes(content.get(key), of_class) for key in ("borrowed", "short")},
    }
    if wrong := [key for key, is_right in right.items() if not is_right]:
        what = f"`{wrong[0]}` is {str(content.get(wrong[0]))[:60]!r}"
        raise UserError(f"{path}: is malformed: {what}; write it again with tresnet thresholds")
    return Thresholds(
        of_class=of_class,
        task=content["task"],
        objective=content["objective"],
        scope=content["scope"],
        borrowed=tuple(content["borrowed"]),
        short=tuple(content["short"]),
        chosen_on=chosen_on,
        source=str(path),
    )


def _are_classes(names: object, of_class: Mapping[str, object]) -> bool:
    return isinstance(names, list) and all(isinstance(name, str) and name in of_class for name in names)
