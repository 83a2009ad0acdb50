"""Exported detectors: from images to boxes, without torch and MMDetection."""

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from tresnet_downstream.errors import UserError
from tresnet_downstream.exported.arrays import as_network_input, stacked
from tresnet_downstream.exported.file import DETECTOR, ExportedFile
from tresnet_downstream.exported.letterbox import Letterbox
from tresnet_downstream.pictures import BadImageError, Picture, pixels_of
from tresnet_downstream.prediction.boxes import Detections, unread

IMAGES, SIZES, SCALE_FACTORS, SCORE_THRESHOLD = "images", "sizes", "scale_factors", "score_threshold"
BOXES, SCORES, LABELS = "boxes", "scores", "labels"
# Of labels of the whole image, which a joint model gives.
LOGITS = "logits"
Prepared = dict[str, np.ndarray]


@dataclass(frozen=True)
class Found:
    """Boxes of one image: K x 4, K scores and K classes; C logits of the whole image, where a model has them."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    logits: np.ndarray | None = None


def inputs_of(images: Sequence[Prepared], score_threshold: float) -> dict[str, np.ndarray]:
    """The inputs of a file for images that :class:`Letterbox` prepared, by name."""
    inputs = stacked(images)
    inputs[IMAGES] = as_network_input(inputs[IMAGES])
    return {**inputs, SCORE_THRESHOLD: np.array([score_threshold], np.float32)}


def found_in(outputs: Mapping[str, np.ndarray]) -> list[Found]:
    """The boxes of each image, without the places where there is none."""
    count = len(outputs[BOXES])
    of_images = outputs.get(LOGITS, [None] * count)
    rows = zip(outputs[BOXES], outputs[SCORES], outputs[LABELS], of_images, strict=True)
    return [
        Found(boxes[labels >= 0], scores[labels >= 0], labels[labels >= 0], logits)
        for boxes, scores, labels, logits in rows
    ]


class ExportedDetector:
    """An exported detector, which finds boxes as :func:`detection.predict.detect` does.

    Args:
        source: ``.onnx`` or ``.xml`` that :func:`deployment.export.export` wrote, or one opened.
        device: see :class:`ExportedFile`.

    Attributes:
        kind: ``detector``.
        path: the file.
        classes: their names.
        input_size: height and width of the images that the file takes.
        score_threshold: boxes have a score above it, unless a lower one is asked for.

    Raises:
        UserError: as :class:`ExportedFile`, and for a file of another kind.
    """

    kind: ClassVar[str] = DETECTOR

    def __init__(self, source: str | Path | ExportedFile, device: str = "cpu") -> None:
        self._file = source if isinstance(source, ExportedFile) else ExportedFile(source, device)
        self._file.require_kind(self.kind)
        self.path, content = self._file.path, self._file.description
        try:
            self.classes = tuple(str(name) for name in content["classes"])
            self.score_threshold = float(content["score_threshold"])
            self._letterbox = Letterbox.of_description(content["picture"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{self.path}: does not say its classes, or how images are prepared; export it with tresnet export"
            ) from error
        self.input_size = (self._letterbox.height, self._letterbox.width)
        if self._file.shapes.get(IMAGES, ())[1:] != (3, *self.input_size):
            raise UserError(f"{self.path}: takes other images than it says; export it again")

    def find(
        self, images: Picture | Iterable[Picture], batch_size: int = 1, least_score: float | None = None
    ) -> Iterator[Detections]:
        """What is found in each image, as they come; those that cannot be read say why.

        Args:
            images: an image or several: files, Pillow images, or uint8 arrays of shape (height, width, 3) in RGB.
            batch_size: most images that go through the network together.
            least_score: boxes have a score above it; None, or a higher one, takes that of the detector's config.

        Raises:
            UserError: for a batch size below 1, and a file that cannot be run.
        """
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size}: give a whole number, at least 1")
        threshold = self.score_threshold if least_score is None else min(self.score_threshold, least_score)
        several = [images] if isinstance(images, str | os.PathLike | Image.Image | np.ndarray) else images
        prepared_images = ((image, self._prepared(image)) for image in several)
        while batch := list(itertools.islice(prepared_images, batch_size)):
            readable = [prepared for _, prepared in batch if not isinstance(prepared, str)]
            found = iter(self.run(readable, threshold) if readable else ())
            for image, prepared in batch:
                if isinstance(prepared, str):
                    yield unread(image, prepared)
                else:
                    boxes = next(found)
                    yield Detections(
                        *(image, boxes.boxes, boxes.scores, boxes.labels),
                        label_probabilities=self.label_probabilities(boxes),
                    )

    def label_probabilities(self, found: Found) -> np.ndarray | None:
        """Probabilities of labels of the whole image, float32 of shape (C,); None of a detector."""
        return None

    def run(self, images: Sequence[Prepared], score_threshold: float) -> list[Found]:
        """The boxes of images that were prepared by the file's :class:`Letterbox`.

        Raises:
            UserError: if the file cannot be run, or gives something else.
        """
        outputs = self._file.run(inputs_of(images, score_threshold))
        shapes = {name: value.shape for name, value in outputs.items()}
        scores = shapes.get(SCORES, ())
        fits = len(scores) == 2 and scores[0] == len(images)
        if not fits or shapes.get(BOXES) != (*scores, 4) or shapes.get(LABELS) != scores:
            raise UserError(f"{self.path}: gives other outputs than boxes, scores and labels; export it again")
        found = found_in(outputs)
        if any((each.labels >= len(self.classes)).any() for each in found):
            raise UserError(f"{self.path}: gives classes that it has no name for; export it again")
        return found

    def _prepared(self, image: Picture) -> Prepared | str:
        try:
            return self._letterbox(pixels_of(image))
        except BadImageError as error:
            return str(error)
