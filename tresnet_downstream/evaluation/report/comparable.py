"""Checks that runs can be compared: they must have the same images and classes."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.outcomes import MultilabelRun

T = TypeVar("T")


def require_same(what: str, names: tuple[str, str], first: Sequence[T], second: Sequence[T]) -> None:
    """Checks that two runs have the same images, or the same classes, in any order.

    Args:
        what: ``images`` or ``classes``, for the error message.
        names: names of the two runs.
        first: those of the first run, without repetition.
        second: those of the second run, without repetition.

    Raises:
        UserError: if they differ; the message says how.
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
        UserError: if their images, classes or targets differ.
    """
    first = runs[0]
    ordered = [first]
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
        ordered.append(run)
    return ordered


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


def _first_difference(one: np.ndarray, other: np.ndarray) -> tuple[int, int] | None:
    rows = max(1, 2**22 // max(1, one.shape[1]))
    for start in range(0, len(one), rows):
        different = one[start : start + rows] != other[start : start + rows]
        if different.any():
            row, column = np.argwhere(different)[0]
            return int(start + row), int(column)
    return None
