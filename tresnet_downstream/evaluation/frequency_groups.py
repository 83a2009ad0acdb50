"""Scores of frequent and rare classes: head, middle and tail, by the number of training images that show a class.

Two rules are common. LVIS (Gupta et al., 2019) calls classes with 1 to 10 training images rare and with up to 100
common; ImageNet-LT (Liu et al., 2019) calls those below 20 few-shot and those above 100 many-shot. On a data set of
another size such cutoffs may put all classes into one group. So the default is thirds of the classes, in the order of
their counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.terminal_tables import aligned, percent

NAMES = ("head", "middle", "tail")
# With thirds: if the most frequent class has less than this many times the images of the rarest, there are no groups.
LEAST_RATIO = 2


@dataclass(frozen=True, eq=False)
class TrainingCounts:
    """How many training images show each class.

    Attributes:
        images: number of training images, by class name.
        cutoffs: the greatest number of images of a class of the tail, and of the middle; None for thirds of the
            classes.
    """

    images: Mapping[str, int]
    cutoffs: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class FrequencyGroup:
    """Classes of similar frequency.

    Attributes:
        name: ``head``, ``middle`` or ``tail``.
        places: indices of the classes.
        least: smallest number of training images of a class.
        most: greatest number of training images of a class.
    """

    name: str
    places: NDArray[np.int64]
    least: int
    most: int

    @property
    def images_text(self) -> str:
        """The range of the numbers of training images of the classes, such as ``44 to 103``."""
        return f"{self.least:,}" if self.least == self.most else f"{self.least:,} to {self.most:,}"

    @property
    def title(self) -> str:
        """The group's title in reports, such as ``tail (3 classes, 44 to 103 training images)``."""
        count = len(self.places)
        return f"{self.name} ({count:,} class{'es' if count > 1 else ''}, {self.images_text} training images)"


@dataclass(frozen=True, eq=False)
class GroupScore:
    """The score of a group: the mean of its classes' scores, in percent; NaN if no class has a score."""

    group: FrequencyGroup
    score: float


def frequency_groups(counts: TrainingCounts | None, classes: Sequence[str]) -> list[FrequencyGroup]:
    """Divides the classes into head, middle and tail; empty groups are left out.

    With ``cutoffs``, classes with at most the first number of training images form the tail, those with at most the
    second number form the middle, and all others form the head. Without ``cutoffs``, each group is a third of the
    classes by rank, and classes with equal counts are all put in the more frequent group. If the most frequent class
    has less than twice as many images as the least frequent one, there are no groups.

    Args:
        counts: numbers of training images of the classes; None gives no groups.
        classes: C names of the scored classes.

    Examples:
        >>> counts = TrainingCounts({"cat": 900, "dog": 90, "eel": 9})
        >>> [(group.name, group.places.tolist()) for group in frequency_groups(counts, ("eel", "cat", "dog"))]
        [('head', [1]), ('middle', [2]), ('tail', [0])]
    """
    if counts is None or any(name not in counts.images for name in classes):
        return []
    numbers = np.array([counts.images[name] for name in classes], np.int64)
    cutoffs = counts.cutoffs
    if cutoffs is None:
        if len(numbers) < len(NAMES) or numbers.max() < LEAST_RATIO * numbers.min():
            return []
        ordered = np.sort(numbers)[::-1]
        # The counts of the last class of the first third, and of the second third.
        ends = [-(-len(ordered) * part // 3) - 1 for part in (1, 2)]
        head, middle = (ordered[end] for end in ends)
        of = np.where(numbers >= head, 0, np.where(numbers >= middle, 1, 2))
    else:
        of = np.where(numbers > cutoffs[1], 0, np.where(numbers > cutoffs[0], 1, 2))
    groups = []
    for place, name in enumerate(NAMES):
        if len(members := np.flatnonzero(of == place)):
            groups.append(FrequencyGroup(name, members, int(numbers[members].min()), int(numbers[members].max())))
    return groups


def group_scores(groups: Sequence[FrequencyGroup], scores: NDArray[np.float64]) -> tuple[GroupScore, ...]:
    """The mean score of each group, from (C,) scores of the classes; NaN values are ignored."""
    each = []
    for group in groups:
        known = scores[group.places][~np.isnan(scores[group.places])]
        each.append(GroupScore(group, float(known.mean()) if len(known) else float("nan")))
    return tuple(each)


def frequency_table(title: str, scores: Sequence[GroupScore]) -> list[str]:
    """Lines of a table for a terminal, one for each group; empty without groups."""
    rows = [
        [each.group.name, percent(each.score), f"{len(each.group.places):,}", each.group.images_text] for each in scores
    ]
    return aligned([title, "%", "classes", "training images of a class"], rows) if rows else []


def frequencies_as_json(scores: Sequence[GroupScore], classes: Sequence[str]) -> dict[str, object]:
    """The entry ``by_frequency`` of ``scores.json``; empty without groups."""
    groups = [
        {
            "group": each.group.name,
            "score": each.score,
            "classes": [classes[c] for c in each.group.places],
            "training_images": [each.group.least, each.group.most],
        }
        for each in scores
    ]
    return {"by_frequency": groups} if groups else {}


def counts_as_json(counts: TrainingCounts) -> dict[str, object]:
    """Converts the counts to plain data for ``run.json``."""
    return {"images": dict(counts.images), "cutoffs": None if counts.cutoffs is None else list(counts.cutoffs)}


def counts_from_json(content: object) -> TrainingCounts | None:
    """Reads what :func:`counts_as_json` wrote; None for any other data."""
    if not isinstance(content, Mapping):
        return None
    images = content.get("images")
    if not isinstance(images, Mapping) or not images:
        return None
    if not all(isinstance(name, str) and type(count) is int and 0 <= count < 2**53 for name, count in images.items()):
        return None
    cutoffs = content.get("cutoffs")
    if cutoffs is not None and not are_cutoffs(cutoffs):
        return None
    return TrainingCounts(dict(images), None if cutoffs is None else (cutoffs[0], cutoffs[1]))


def require_cutoffs(value: object) -> None:
    """Raises UserError unless the value is None or two whole numbers, the first below the second."""
    if value is not None and not are_cutoffs(value):
        raise UserError(
            f"frequency_cutoffs={value!r}: give two numbers of training images, such as (10, 100), the greatest of a "
            "class of the tail and of the middle, or None for thirds of the classes"
        )


def are_cutoffs(value: object) -> bool:
    """Whether a value is two whole numbers of 0 or more, the first below the second."""
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(type(number) is int for number in value)
        and 0 <= value[0] < value[1]
    )
