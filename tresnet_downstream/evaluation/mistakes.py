"""The worst mistakes of a classifier, and the classes that a multi-label network confuses."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tresnet_downstream.evaluation.multilabel_scores import columns
from tresnet_downstream.evaluation.single_label_scores import SingleLabelScores

# Mistakes of each kind in a report: a number that keeps the page small enough to be mailed.
SHOWN = 24
_BLOCK_ENTRIES = 2**20


class Mistake(NamedTuple):
    """An entry on the wrong side of its threshold.

    Attributes:
        image: row of the image.
        label: column of the class.
        probability: score of the entry.
    """

    image: int
    label: int
    probability: float


def worst_mistakes(
    probabilities: np.ndarray,
    targets: np.ndarray,
    limits: np.ndarray,
    images: Sequence[str],
    count: int = SHOWN,
    per_class: int = 3,
) -> tuple[list[Mistake], list[Mistake]]:
    """The most confident false positives, highest probability first, and false negatives, lowest first.

    Args:
        probabilities: (N, C).
        targets: (N, C) of 1 (present), 0 (absent) and -1 (unknown); an unknown entry is never a mistake.
        limits: (C,) thresholds.
        images: N names; equal probabilities are ordered by name.
        count: maximum number of mistakes of each kind.
        per_class: maximum number of mistakes of each kind and class, so that one class does not fill the list.

    Examples:
        >>> wrong, missed = worst_mistakes(
        ...     np.array([[0.9, 0.1]]), np.array([[0, 1]]), np.array([0.5, 0.5]), ["a.jpg"]
        ... )
        >>> wrong, missed
        ([Mistake(image=0, label=0, probability=0.9)], [Mistake(image=0, label=1, probability=0.1)])
    """
    by_name = np.argsort(np.argsort(np.array(images, object), kind="stable"))
    kinds: tuple[list[Mistake], list[Mistake]] = [], []
    for label, (column, labels) in enumerate(columns(probabilities, targets)):
        predicted = column > limits[label]
        wrong_of_kind = (predicted & (labels == 0), ~predicted & (labels == 1))
        for mistakes, wrong, sign in zip(kinds, wrong_of_kind, (-1, 1), strict=True):
            rows = np.flatnonzero(wrong)
            worst = rows[np.lexsort((by_name[rows], sign * column[rows]))[:per_class]]
            mistakes += [Mistake(int(row), label, float(column[row])) for row in worst]
    false_positives = sorted(kinds[0], key=lambda mistake: -mistake.probability)[:count]
    return false_positives, sorted(kinds[1], key=lambda mistake: mistake.probability)[:count]


def worst_images(scores: SingleLabelScores, count: int = SHOWN) -> tuple[list[int], list[int]]:
    """Rows of images with one label that are predicted as another class, at most ``count`` of each kind.

    The first kind are those with the most confident predictions, the second those whose label has the lowest
    probability.
    """
    wrong = np.flatnonzero(scores.rank > 0)
    most_confident = wrong[np.argsort(-scores.confidence[wrong], kind="stable")[:count]]
    least = wrong[np.argsort(scores.of_label[wrong], kind="stable")[:count]]
    return most_confident.tolist(), least.tolist()


@dataclass(frozen=True, eq=False)
class Confusions:
    """How often one class was missed in an image in which another was predicted by mistake.

    Attributes:
        labels: (K,) the classes with the most mistakes, as columns of the scores.
        missed: (K,) number of false negatives of each class.
        count: (K, K) number of images in which the class of the row was missed and the class of the column was
            predicted by mistake.
    """

    labels: NDArray[np.int64]
    missed: NDArray[np.int64]
    count: NDArray[np.int64]

    def pairs(self, most: int) -> list[tuple[int, int, int, int]]:
        """The most frequent pairs: missed class, class predicted by mistake, images with both, and with the first."""
        order = np.argsort(-self.count, axis=None, kind="stable")[:most]
        rows, places = np.unravel_index(order, self.count.shape)
        return [
            (int(self.labels[i]), int(self.labels[j]), int(self.count[i, j]), int(self.missed[i]))
            for i, j in zip(rows, places, strict=True)
            if self.count[i, j]
        ]


def confusions(
    probabilities: np.ndarray, targets: np.ndarray, limits: np.ndarray, most_classes: int = 256
) -> Confusions:
    """Counts the confusions over all images.

    Args:
        probabilities: (N, C).
        targets: (N, C) of 1, 0 and -1.
        limits: (C,) thresholds.
        most_classes: maximum number of classes that are counted, to limit memory.

    Examples:
        >>> pairs = confusions(np.array([[0.9, 0.1]]), np.array([[0, 1]]), np.array([0.5, 0.5])).pairs(5)
        >>> pairs  # class 1 was missed in one image, in which class 0 was predicted by mistake
        [(1, 0, 1, 1)]
    """
    rows = max(1, _BLOCK_ENTRIES // probabilities.shape[1])
    blocks = [slice(first, first + rows) for first in range(0, len(probabilities), rows)]
    false_positives, false_negatives = np.zeros((2, probabilities.shape[1]), np.int64)
    for block in blocks:
        predicted = probabilities[block] > limits
        false_positives += np.count_nonzero(predicted & (targets[block] == 0), axis=0)
        false_negatives += np.count_nonzero(~predicted & (targets[block] == 1), axis=0)
    order = np.argsort(-(false_positives + false_negatives), kind="stable")[:most_classes]
    labels = np.sort(order)
    count = np.zeros((len(labels), len(labels)))
    for block in blocks:
        predicted, present = probabilities[block][:, labels] > limits[labels], targets[block][:, labels]
        # Exact in float32: each block sums less than 2^24 ones.
        false_negative, false_positive = (~predicted & (present == 1)), (predicted & (present == 0))
        count += false_negative.T.astype(np.float32) @ false_positive.astype(np.float32)
    return Confusions(labels, false_negatives[labels], count.astype(np.int64))
