"""Thresholds: precision and recall at each that is worth having, the choice of one, and a file of those chosen."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.text import json_text, read_versioned
from tresnet_downstream.files import whole_result

FORMAT, VERSION = "tresnet_downstream.thresholds", 1
SCOPES = ("per-class", "global")
# Entries sorted at once, for a curve over all classes.
_BLOCK_ENTRIES = 2**24


@dataclass(frozen=True, eq=False)
class ThresholdCurve:
    """What is found just above each threshold that lies right below a positive; K of them, highest first.

    Attributes:
        scores: (K,) the distinct scores of positives, descending.
        thresholds: (K,) float64, midway to the next lower score of any entry, so that other data is decided alike.
        hits: (K,) positives above the threshold.
        predicted: (K,) entries above it, those of unknown target left out.
        positives: how many there are to find.
    """

    scores: NDArray
    thresholds: NDArray[np.float64]
    hits: NDArray[np.int64]
    predicted: NDArray[np.int64]
    positives: int

    @property
    def precision(self) -> NDArray[np.float64]:
        """(K,) in [0, 1]."""
        return self.hits / self.predicted

    @property
    def recall(self) -> NDArray[np.float64]:
        """(K,) in [0, 1]."""
        return self.hits / max(self.positives, 1)

    @property
    def f1(self) -> NDArray[np.float64]:
        """(K,) in [0, 1]."""
        return 2 * self.hits / (self.predicted + self.positives)

    @property
    def best(self) -> int | None:
        """The place of the greatest F1, the highest threshold among equals; None on an empty curve."""
        return int(np.argmax(self.f1)) if len(self.scores) else None

    @property
    def best_threshold(self) -> float:
        """The threshold there; NaN on an empty curve."""
        return float("nan") if self.best is None else float(self.thresholds[self.best])

    def some(self, most: int) -> NDArray[np.int64]:
        """Places of up to ``most`` points, evenly spread, the ends among them."""
        places = np.linspace(0, max(len(self.scores) - 1, 0), most).round().astype(np.int64)
        return np.unique(places)[: len(self.scores)]


def threshold_curve(scores: NDArray, targets: NDArray, positives: int | None = None) -> ThresholdCurve:
    """The curve of a class, or of all classes together where the arrays have two dimensions.

    Args:
        scores: (N,) or (N, C) finite numbers.
        targets: 1, 0 or -1 (unknown, left out) for each.
        positives: how many there are to find, if not all of them have a score; those of ``targets`` by default.
    """
    rows = max(1, _BLOCK_ENTRIES // max(1, scores[:1].size))
    blocks = [slice(first, first + rows) for first in range(0, len(scores), rows)]
    positive_scores = np.sort(np.concatenate([scores[block][targets[block] == 1] for block in blocks] or [scores[:0]]))
    steps, first_of = np.unique(positive_scores, return_index=True)
    below = np.zeros(len(steps), np.int64)
    next_lower = np.full(len(steps), -np.inf)
    known_entries = 0
    for block in blocks:
        ordered = np.sort(scores[block][targets[block] != -1])
        places = np.searchsorted(ordered, steps)
        inside = places > 0
        next_lower[inside] = np.maximum(next_lower[inside], ordered[places[inside] - 1])
        below += places
        known_entries += len(ordered)
    # Below the lowest score of all: half of it, which is still a probability.
    floor = np.where(steps > 0, 0.0, steps - 2.0)
    midway = (steps.astype(np.float64) + np.where(np.isfinite(next_lower), next_lower, floor)) / 2
    return ThresholdCurve(
        scores=steps[::-1],
        thresholds=midway[::-1],
        hits=(len(positive_scores) - first_of)[::-1],
        predicted=(known_entries - below)[::-1],
        positives=len(positive_scores) if positives is None else positives,
    )


@dataclass(frozen=True)
class Objective:
    """What a threshold is chosen for.

    Attributes:
        kind: ``f1`` for the greatest F1, ``precision`` for the greatest recall of those with at least that precision,
            ``recall`` for the greatest precision of those with at least that recall.
        value: the least precision or recall, above 0 and up to 1.
    """

    kind: str
    value: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Objective":
        """Reads ``f1``, ``precision=0.9`` or ``recall=0.9``.

        Raises:
            UserError: for anything else.
        """
        kind, _, number = text.partition("=")
        try:
            value = float(number) if number else 0.0
        except ValueError:
            value = math.nan
        if (kind == "f1" and not number and "=" not in text) or (kind in ("precision", "recall") and 0 < value <= 1):
            return cls(kind, value)
        raise UserError(f"`objective` {text}: write f1, precision=0.9 or recall=0.9, with a number above 0 and up to 1")

    def __str__(self) -> str:
        return self.kind if self.kind == "f1" else f"{self.kind}={self.value:g}"


def choose(curve: ThresholdCurve, objective: Objective) -> int | None:
    """The place of the best threshold on a curve, the highest among equals; None where none will do.

    For a recall that is out of reach, as where a detector misses objects, it is the lowest threshold.
    """
    if not len(curve.scores):
        return None
    if objective.kind == "f1":
        return curve.best
    if objective.kind == "recall":
        enough = np.flatnonzero(curve.recall >= objective.value)
        # The precision may rise again further down.
        return int(enough[np.argmax(curve.precision[enough])]) if enough.size else len(curve.scores) - 1
    enough = np.flatnonzero(curve.precision >= objective.value)
    return int(enough[-1]) if enough.size else None


@dataclass(frozen=True, eq=False)
class Thresholds:
    """A threshold for each class.

    Attributes:
        of_class: by name, in the order of the classes; a score above it counts as predicted. None where nothing of the
            class is to be predicted, since no threshold reaches the precision or no positive is found.
        task: ``multilabel`` or ``detection``.
        objective: as text, see :class:`Objective`.
        scope: ``per-class`` or ``global``.
        borrowed: classes without a positive, which take what was chosen for all classes together.
        short: classes for which no threshold reaches the objective; for a recall they have the lowest there is.
        chosen_on: what is known of the run that they were chosen on.
        source: what errors call them, such as the file that they are from.
    """

    of_class: dict[str, float | None]
    task: str
    objective: str
    scope: str
    borrowed: tuple[str, ...]
    short: tuple[str, ...]
    chosen_on: dict[str, Any]
    source: str = "the thresholds"

    def limits(self, classes: Sequence[str], task: str) -> NDArray[np.float64]:
        """(C,) numbers, infinite for a class that is never predicted.

        Raises:
            UserError: if there is none for one of the classes, or if they were chosen for another task.
        """
        if task != self.task:
            raise UserError(f"{self.source}: chosen for {self.task}, not for {task}")
        if missing := [name for name in classes if name not in self.of_class]:
            raise UserError(
                f"{self.source}: lacks {len(missing)} of the {len(classes)} classes, such as {missing[0]!r}"
            )
        chosen = (self.of_class[name] for name in classes)
        return np.array([math.inf if threshold is None else threshold for threshold in chosen])

    def __str__(self) -> str:
        """Objective, scope and where they were chosen."""
        return f"{self.objective}, {self.scope}, chosen on {self.chosen_on.get('run', 'a run')}"

    def flatter(self, about: Mapping[str, Any]) -> bool:
        """Whether a run is of the data that they were chosen on, as far as its description tells."""
        return bool(about.get("data")) and about.get("data") == self.chosen_on.get("data")

    def caveats(self, about: Mapping[str, Any]) -> list[str]:
        """What to know of them on a run: that they are of its data, or of scores that were made in another way."""
        found = ["chosen on this data, which flatters"] if self.flatter(about) else []
        if self.chosen_on and about.get("tta") != self.chosen_on.get("tta"):
            before, here = ("with" if each.get("tta") else "without" for each in (self.chosen_on, about))
            tta = "another test-time augmentation" if before == here else "test-time augmentation"
            found.append(f"chosen {before} {tta}, scored {here} {'this' if before == here else 'it'}")
        return found


def choose_thresholds(
    curves: Sequence[ThresholdCurve],
    pooled: ThresholdCurve,
    classes: Sequence[str],
    task: str,
    objective: Objective,
    scope: str = "per-class",
    chosen_on: Mapping[str, Any] | None = None,
) -> Thresholds:
    """Chooses on the data of the curves.

    Args:
        curves: one for each class.
        pooled: that of all classes together; a global threshold is chosen on it (so F1 is OF1, and so on), and a
            class without a positive takes that one too.
        classes: C names.
        task: ``multilabel`` or ``detection``.
        objective: what for.
        scope: ``per-class`` or ``global``.
        chosen_on: what to keep about the run.

    Raises:
        UserError: for an unknown scope, and where no class has a positive.
    """
    if scope not in SCOPES:
        raise UserError(f"scope={scope!r}: choose {' or '.join(SCOPES)}")
    if not pooled.positives:
        raise UserError("no class has a positive in this run, so there is nothing to choose thresholds by")
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
    """Writes JSON that :func:`read_thresholds` reads. Other thresholds there are moved aside.

    Raises:
        UserError: the file cannot be written.
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
    """Raises UserError where no thresholds can be written to: a folder, or a file that is none of thresholds."""
    if not Path(path).name or Path(path).is_dir():
        raise UserError(f"{path}: is a folder; name a file, such as thresholds.json")
    if Path(path).exists():
        try:
            read_thresholds(path)
        except UserError as error:
            raise UserError(f"{path}: holds something else than thresholds; name another file") from error


def read_thresholds(path: str | os.PathLike[str]) -> Thresholds:
    """Reads what :func:`write_thresholds` wrote.

    Raises:
        UserError: the file is missing, no such file, of a newer version, or has a threshold that is no number.
    """
    content = read_versioned(path, FORMAT, VERSION, "tresnet thresholds writes such files")
    of_class, chosen_on = content.get("thresholds"), content.get("chosen_on")
    if not isinstance(of_class, dict) or not isinstance(chosen_on, dict):
        raise UserError(
            f"{path}: is malformed: `thresholds` or `chosen_on` is no object; write it again with tresnet thresholds"
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


def _are_classes(names: Any, of_class: Mapping[str, Any]) -> bool:
    return isinstance(names, list) and all(isinstance(name, str) and name in of_class for name in names)
