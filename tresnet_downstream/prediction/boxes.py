"""What detectors find in pictures, in torch or from an exported file."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tresnet_downstream.pictures import Picture


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector finds in one picture, best first.

    Attributes:
        image: the picture, as it was given.
        boxes: left, top, right and bottom in pixels of the picture, float32 of shape (K, 4).
        scores: 0 to 1, float32 of shape (K,).
        labels: classes by position, int64 of shape (K,).
        masks: bool of shape (K, height, width); None if the detector has none.
        error: why the picture cannot be read, in one line; then nothing is found.
        label_probabilities: of each class in the whole picture, float32 of shape (C,); None if the network gives boxes
            alone, see :mod:`tresnet_downstream.joint`.
    """

    image: Picture
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None = None
    error: str = ""
    label_probabilities: np.ndarray | None = None


class BoxFinder(Protocol):
    """What finds boxes in pictures: a ``LoadedDetector``, and an ``ExportedDetector``.

    Attributes:
        classes: names of the classes, by position.
    """

    classes: tuple[str, ...]

    def find(
        self, images: Iterable[Picture], batch_size: int = 1, least_score: float | None = None
    ) -> Iterator[Detections]:
        """What is found in each picture, as they come; those that cannot be read say why.

        Args:
            images: files, Pillow images, or uint8 arrays of shape (height, width, 3) in RGB.
            batch_size: most pictures that go through the network together.
            least_score: gives boxes from this score, also if the detector's config keeps fewer.
        """
        ...


def unread(image: Picture, error: str) -> Detections:
    """What is found in a picture that cannot be read: nothing, and why."""
    return Detections(image, np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), error=error)
