"""The classes that the images of a data set show, for class weights, sampling and initial biases.

The data sets of this package have a method ``class_labels``. A user's data set provides its labels by MMEngine's method
``get_cat_ids(index)``, which returns the numbers of the classes that an image shows.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tresnet_downstream.errors import UserError


@dataclass(frozen=True, eq=False)
class ClassLabels:
    """The classes that each of N samples shows, of C classes.

    Attributes:
        classes: the C class names.
        indptr: the beginning of each sample's classes in ``indices``, and the end of the last ones, int64 of shape
            (N + 1,).
        indices: the classes, int of shape (L,), each once for a sample.
        unknown: number of samples for which each class is unverified, int64 of shape (C,).
        images: number of images that show each class, int64 of shape (C,). An image that is several samples counts
            once.
    """

    classes: tuple[str, ...]
    indptr: NDArray[np.int64]
    indices: NDArray[np.integer]
    unknown: NDArray[np.int64]
    images: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def positives(self) -> NDArray[np.int64]:
        """The number of samples that show each class: (C,)."""
        return np.bincount(self.indices, minlength=len(self.classes))

    def frequencies(self) -> NDArray[np.float64]:
        """The share of samples that show each class, among those for which it is known: (C,), nan if there are none."""
        known = len(self) - self.unknown
        return self.positives() / np.where(known > 0, known, np.nan)

    def classes_without_image(self) -> str:
        """The names of the classes that no image shows, as text; empty if there are none."""
        unseen = np.flatnonzero(self.positives() == 0)
        names = ", ".join(repr(self.classes[c]) for c in unseen[:3])
        return names + (f" and {len(unseen) - 3:,} more" if len(unseen) > 3 else "")

    def digest(self) -> str:
        """A short text that changes with the labels."""
        parts = (self.indptr.astype("<i8"), self.indices.astype("<i8"), self.unknown.astype("<i8"))
        checksum = 0
        for part in parts:
            checksum = zlib.crc32(part.tobytes(), checksum)
        return f"{len(self.indices):,} of {len(self):,} images, checksum {checksum:08x}"


def single_labels(classes: Sequence[str], labels: NDArray[np.integer]) -> ClassLabels:
    """The labels of N images with one label each.

    Args:
        classes: the class names.
        labels: N class indices.

    Examples:
        >>> single_labels(("cat", "dog"), np.array([0, 0, 1])).frequencies().round(3)
        array([0.667, 0.333])
    """
    none = np.zeros(len(classes), np.int64)
    images = np.bincount(labels, minlength=len(classes))
    return ClassLabels(tuple(classes), np.arange(len(labels) + 1), labels, none, images)


def joined_labels(parts: Sequence[ClassLabels], times: int = 1) -> ClassLabels:
    """The concatenated labels of data sets with the same classes, repeated ``times`` times."""
    rows = [part for _ in range(times) for part in parts]
    sizes = np.concatenate([np.diff(part.indptr) for part in rows])
    return ClassLabels(
        classes=parts[0].classes,
        indptr=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        indices=np.concatenate([part.indices for part in rows]),
        unknown=np.sum([part.unknown for part in rows], axis=0),
        images=np.sum([part.images for part in parts], axis=0),
    )


def class_labels_of(dataset: Any, key: str) -> ClassLabels:
    """The classes that each image of a data set shows.

    Args:
        dataset: a data set of this package, or one with ``classes``, a length and the method ``get_cat_ids(index)``.
        key: the config key that needs the labels, for messages.

    Raises:
        UserError: if the data set does not provide the labels, or they are not numbers of its classes.
    """
    if hasattr(dataset, "class_labels"):
        labels: ClassLabels = dataset.class_labels(key)
        return labels
    kind = type(dataset).__name__
    if not hasattr(dataset, "get_cat_ids"):
        raise UserError(
            f"{key}: {kind} does not provide the labels of its images; add a method get_cat_ids(index) that returns "
            f"the numbers of the classes that an image shows, or leave {key} out"
        )
    classes = tuple(dataset.classes)
    rows = [np.unique(np.asarray(list(dataset.get_cat_ids(index)), np.int64)) for index in range(len(dataset))]
    indices = np.concatenate([*rows, np.zeros(0, np.int64)])
    if len(indices) and not 0 <= indices.min() <= indices.max() < len(classes):
        raise UserError(f"{key}: {kind}.get_cat_ids returns {indices.max()}, but there are {len(classes)} classes")
    return ClassLabels(
        classes=classes,
        indptr=np.cumsum([0, *map(len, rows)], dtype=np.int64),
        indices=indices,
        unknown=np.zeros(len(classes), np.int64),
        images=np.bincount(indices, minlength=len(classes)),
    )


def class_labels_or_none(dataset: object) -> ClassLabels | None:
    """As :func:`class_labels_of`; None if the data set does not provide the labels."""
    try:
        return class_labels_of(dataset, "labels")
    except UserError:
        return None
