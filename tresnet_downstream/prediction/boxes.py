"""The results of detectors, in torch or exported."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from tresnet_downstream.images import ImageInput


@dataclass(frozen=True, eq=False)
class Detections:
    """The K boxes that a detector predicts in one image, best first.

    Attributes:
        image: the image that was passed to the detector.
        boxes: left, top, right and bottom in pixels of the image, float32 of shape (K, 4).
        scores: 0 to 1, float32 of shape (K,).
        labels: class indices, int64 of shape (K,).
        masks: bool of shape (K, height, width); None if the detector predicts none.
        error: the reason why the image cannot be read, in one line; K is 0 then.
        label_probabilities: the probability of each class in the image, float32 of shape (C,); None if the network
            predicts only boxes, see :mod:`tresnet_downstream.joint`.
    """

    image: ImageInput
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None = None
    error: str = ""
    label_probabilities: np.ndarray | None = None

    def above(self, score: float) -> "Detections":
        """The boxes with a score above ``score``.

        Examples:
            >>> boxes, scores = np.zeros((2, 4), np.float32), np.array([0.9, 0.2], np.float32)
            >>> Detections("1.jpg", boxes, scores, np.array([0, 1])).above(0.5).labels.tolist()
            [0]
        """
        chosen = self.scores > score
        return replace(
            self,
            boxes=self.boxes[chosen],
            scores=self.scores[chosen],
            labels=self.labels[chosen],
            masks=None if self.masks is None else self.masks[chosen],
        )


class BoxFinder(Protocol):
    """A detector: a ``LoadedDetector`` or an ``ExportedDetector``.

    Attributes:
        classes: class names, in the order of the class indices.
    """

    classes: tuple[str, ...]

    def find(
        self, images: Iterable[ImageInput], batch_size: int = 1, score_threshold: float | None = None
    ) -> Iterator[Detections]:
        """Yields the boxes in each image, in order; for an image that cannot be read, the reason.

        Args:
            images: files, Pillow images, or uint8 arrays of shape (height, width, 3) in RGB.
            batch_size: largest number of images in a batch.
            score_threshold: boxes have a score above it. None takes the ``score_thr`` of the detector's config.
        """
        ...


def unread(image: ImageInput, error: str) -> Detections:
    """The result for an image that cannot be read: no boxes, and the reason."""
    return Detections(image, np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), error=error)
