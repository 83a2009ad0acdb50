"""The content of a run folder in memory: the predictions and the labels of the scored data set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tresnet_downstream.coco_records import CocoDetection, CocoInstances
from tresnet_downstream.evaluation.frequency_groups import TrainingCounts


@dataclass(frozen=True, eq=False)
class Explanations:
    """Explanation maps of a network's mistakes.

    Attributes:
        method: how they were computed, such as ``Grad-CAM``.
        pairs: for each of M maps, the name of its image and of its class; each pair occurs once.
        maps: (M, side, side), uint8 from 0 to 255 for values from 0 to 1; each map covers its whole image.
    """

    method: str
    pairs: Sequence[tuple[str, str]]
    maps: NDArray[np.uint8]

    def by_pair(self) -> dict[tuple[str, str], NDArray[np.float32]]:
        """The maps, with values from 0 to 1, by image and class."""
        maps = np.asarray(self.maps, np.float32) / 255
        return {(image, name): heat for (image, name), heat in zip(self.pairs, maps, strict=True)}


@dataclass(frozen=True, eq=False)
class MultilabelRun:
    """The result of a multi-label network on N images and C classes.

    Attributes:
        probabilities: (N, C) in [0, 1], float32; may be memory-mapped, as may the targets.
        targets: (N, C) of 1 (present), 0 (absent) and -1 (unknown), int8.
        images: N file names, relative to ``image_folder``.
        classes: C names.
        image_folder: folder of the images.
        threshold: an entry is predicted if its probability is above it.
        top_k: number of labels of each image at the other operating point.
        about: model, weights, config, data, date, versions and command, as plain data.
        left_out: the reason for each image of the annotation file that was not scored, by name; ``read_run`` leaves it
            empty.
        scored_here: whether this account wrote ``image_folder``; otherwise a report does not open it, see
            :mod:`origin`.
        explanations: explanation maps of the worst mistakes; None if scoring did not compute them.
        training: number of training images of each class; None if unknown.
    """

    probabilities: np.ndarray
    targets: np.ndarray
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
    """The result of a single-label network on N images and C classes.

    Attributes:
        probabilities: (N, C) in [0, 1], float32; may be memory-mapped.
        labels: (N,) class indices, integers.
        images: N file names, relative to ``image_folder``.
        classes: C names.
        image_folder: folder of the images.
        about: see :class:`MultilabelRun`.
        left_out: as of :class:`MultilabelRun`.
        scored_here: as of :class:`MultilabelRun`.
        explanations: as of :class:`MultilabelRun`.
        training: as of :class:`MultilabelRun`.
    """

    probabilities: np.ndarray
    labels: np.ndarray
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
        ground_truth: content of a COCO instances file, reduced to the scored classes.
        predictions: by kind, ``bbox`` or ``segm``, the detections in COCO's results format.
        image_ids: ids of the scored images.
        classes: C names.
        image_folder: where the images lie.
        backend: library that computes the scores, see :func:`detection_scores`.
        about: model, weights, config, data, date, versions and command, as plain data.
        left_out: as of :class:`MultilabelRun`.
        scored_here: as of :class:`MultilabelRun`.
    """

    ground_truth: CocoInstances
    predictions: Mapping[str, Sequence[CocoDetection]]
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
