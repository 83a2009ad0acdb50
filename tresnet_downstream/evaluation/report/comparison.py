"""Runs beside one another: whether they can be compared, and what can be said of a difference."""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.bootstrap import Interval
from tresnet_downstream.evaluation.outcomes import MultilabelRun
from tresnet_downstream.evaluation.report.parts import text_of

T = TypeVar("T")


def require_same(what: str, names: tuple[str, str], first: Sequence[T], second: Sequence[T]) -> None:
    """Raises UserError, which says how they differ, unless both runs have the same ``what``, in any order.

    No name stands twice in a run.
    """
    lacking, extra = set(first) - set(second), set(second) - set(first)
    if not lacking and not extra and len(first) == len(second):
        return
    parts = [
        f"{len(some):,} that {owner} has alone, such as {min(some, key=str)!r}"
        for some, owner in ((lacking, names[0]), (extra, names[1]))
        if some
    ]
    raise UserError(
        f"{names[0]} and {names[1]} cannot be compared: they have {len(first):,} and {len(second):,} {what}"
        + (f", {' and '.join(parts)}" if parts else "")
    )


def in_one_order(runs: Sequence[MultilabelRun], names: Sequence[str]) -> list[MultilabelRun]:
    """The runs with images and classes in the order of the first.

    Raises:
        UserError: their images, classes or targets differ.
    """
    first = runs[0]
    given = [first]
    for name, run in zip(names[1:], runs[1:], strict=True):
        pair = (names[0], name)
        require_same("classes", pair, first.classes, run.classes)
        require_same("images", pair, first.images, run.images)
        if run.classes != first.classes or list(run.images) != list(first.images):
            run = _reordered(run, first)
        different = _first_difference(first.targets, run.targets)
        if different is not None:
            row, column = different
            raise UserError(
                f"{names[0]} and {name} cannot be compared: image {first.images[row]!r} has the targets "
                f"{first.targets[row, column]} and {run.targets[row, column]} for the class {first.classes[column]!r}"
            )
        given.append(run)
    return given


def _reordered(run: MultilabelRun, first: MultilabelRun) -> MultilabelRun:
    rows = {image: place for place, image in enumerate(run.images)}
    places = {name: place for place, name in enumerate(run.classes)}
    order = np.ix_([rows[image] for image in first.images], [places[name] for name in first.classes])
    return MultilabelRun(
        **{
            **vars(run),
            "probabilities": run.probabilities[order],
            "targets": run.targets[order],
            "images": first.images,
            "classes": first.classes,
        }
    )


def _first_difference(one: Any, other: Any) -> tuple[int, int] | None:
    rows = max(1, 2**22 // max(1, one.shape[1]))
    for start in range(0, len(one), rows):
        different = one[start : start + rows] != other[start : start + rows]
        if different.any():
            row, column = np.argwhere(different)[0]
            return int(start + row), int(column)
    return None


def verdict(score: str, names: tuple[str, str], difference: float, interval: Interval | None, images: int) -> str:
    """What a difference between two runs allows to be said, in a sentence or two that do not say more."""
    if np.isnan(difference):
        return f"{score} of {names[0]} and {names[1]} cannot be compared: one of them has none on these images."
    if abs(difference) < 0.005:
        return f"{score} of {names[1]} is the same as that of {names[0]} on these {images:,} images, to two decimals."
    side = "above" if difference > 0 else "below"
    start = (
        f"{score} of {names[1]} is {abs(difference):.2f} points {side} that of {names[0]} on these {images:,} images"
    )
    if interval is None or np.isnan(interval.low):
        return f"{start}; nothing is known of how it would be on other images."
    span = f"95% interval of the difference over images of this kind: {text_of(interval, 'interval')}"
    if interval.low <= 0 <= interval.high:
        return f"{start} ({span}). The interval holds 0: these images do not show which of the two is better."
    winner = names[1] if difference > 0 else names[0]
    return (
        f"{start} ({span}). The interval does not hold 0: on images of this kind {winner} is likely the better of "
        "these two sets of weights. It says nothing of another training, or of images of another kind."
    )
