"""The content of a run folder in memory: the predictions and labels of a data set, which are scored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tresnet_downstream.evaluation.frequency_groups import TrainingCounts


@dataclass(frozen=True, eq=False)
class Explanations:
    """Maps of where a network looked at its mistakes.

    Attributes:
        method: how they were computed, such as ``Grad-CAM``.
        pairs: for each of M maps the names of its image and its class; no pair twice.
        maps: (M, side, side), uint8: 0 to 255 for 0 to 1; each lies over its whole image.
    """

    method: str
    pairs: Sequence[tuple[str, str]]
    maps: NDArray[np.uint8]

    def by_pair(self) -> dict[tuple[str, str], NDArray[np.float32]]:
        """The maps, 0 to 1, by image and class."""
        maps = np.asarray(self.maps, np.float32) / 255
        return {(image, name): heat for (image, name), heat in zip(self.pairs, maps, strict=True)}


@dataclass(frozen=True, eq=False)
class MultilabelRun:
    """The result of a multi-label network on N images and C classes.

    Attributes:
        probabilities: (N, C) in [0, 1], float32; may be memory-mapped, as may the targets.
        targets: (N, C) of 1 (present), 0 (absent) and -1 (unknown), int8.
        images: N names, relative to ``image_folder``.
        classes: C names.
        image_folder: where the images lie.
        threshold: an entry counts as predicted if its probability is above it.
        top_k: labels of each image at the other operating point.
        about: model, weights, config, data, date, versions and command, as plain data.
        left_out: why images of the annotation file were not scored, by name; ``read_run`` leaves it empty.
        scored_here: whether this account wrote ``image_folder``; a report follows no other, see :mod:`origin`.
        explanations: where the network looked at its worst mistakes; None if scoring did not compute it.
        training: the number of training images of each class; None if unknown.
    """

    probabilities: NDArray[Any]
    targets: NDArray[Any]
    images: Sequence[str]
    classes: tuple[str, ...]
    image_folder: str
    threshold: float
    top_k: int
    about: Mapping[str, Any]
    left_out: Mapping[str, str] = field(default_factory=dict)
    scored_here: bool = True
    explanations: Explanations | None = None
    training: TrainingCounts | None = None


@dataclass(frozen=True, eq=False)
class SingleLabelRun:
    """The result of a network that chooses one of C classes for each of N images.

    Attributes:
        probabilities: (N, C) in [0, 1], float32; may be memory-mapped.
        labels: (N,) numbers of classes, whole.
        images: N names, relative to ``image_folder``.
        classes: C names.
        image_folder: where the images lie.
        about: as of :class:`MultilabelRun`.
        left_out: as of :class:`MultilabelRun`.
        scored_here: as of :class:`MultilabelRun`.
        explanations: as of :class:`MultilabelRun`.
        training: as of :class:`MultilabelRun`.
    """

    probabilities: NDArray[Any]
    labels: NDArray[Any]
    images: Sequence[str]
    classes: tuple[str, ...]
    image_folder: str
    about: Mapping[str, Any]
    left_out: Mapping[str, str] = field(default_factory=dict)
    scored_here: bool = True
    explanations: Explanations | None = None
    training: TrainingCounts | None = None


@dataclass(frozen=True, eq=False)
class DetectionRun:
    """The result of a detector.

    Attributes:
        ground_truth: what a COCO instances file holds, with the classes that were scored alone.
        predictions: for each kind, ``bbox`` or ``segm``, detections in COCO's results format.
        image_ids: the images that were scored.
        classes: C names.
        image_folder: where the images lie.
        backend: what computes the scores, see :func:`detection_scores`.
        about: model, weights, config, data, date, versions and command, as plain data.
        left_out: as of :class:`MultilabelRun`.
        scored_here: as of :class:`MultilabelRun`.
    """

    ground_truth: Mapping[str, Any]
    predictions: Mapping[str, Sequence[Mapping[str, Any]]]
    image_ids: Sequence[int]
    classes: tuple[str, ...]
    image_folder: str
    backend: str
    about: Mapping[str, Any]
    left_out: Mapping[str, str] = field(default_factory=dict)
    scored_here: bool = True

    def category_ids(self) -> list[int]:
        """The ids of the classes in the ground truth and the predictions, in the order of the classes."""
        by_name = {category["name"]: category["id"] for category in self.ground_truth["categories"]}
        return [by_name[name] for name in self.classes]


Run: TypeAlias = MultilabelRun | SingleLabelRun | DetectionRun


@dataclass(frozen=True, eq=False)
class JointRun:
    """The result of a network that gives labels and boxes in one pass."""

    labels: MultilabelRun
    boxes: DetectionRun
