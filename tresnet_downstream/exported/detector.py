"""Runs exported detectors without torch and MMDetection."""

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
from tresnet_downstream.images import BadImageError, ImageInput, pixels_of
from tresnet_downstream.prediction.boxes import Detections, unread

IMAGES, SIZES, SCALE_FACTORS, SCORE_THRESHOLD = "images", "sizes", "scale_factors", "score_threshold"
BOXES, SCORES, LABELS = "boxes", "scores", "labels"
# The output of a joint model for the labels of the image.
LOGITS = "logits"
Prepared = dict[str, np.ndarray]


@dataclass(frozen=True)
class RawBoxes:
    """The boxes of one image: K x 4 coordinates, K scores and K class indices; for joint models, C logits of labels."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    logits: np.ndarray | None = None


def inputs_of(images: Sequence[Prepared], score_threshold: float) -> dict[str, np.ndarray]:
    """The inputs of an exported file, by name, for images that :class:`Letterbox` prepared."""
    inputs = stacked(images)
    inputs[IMAGES] = as_network_input(inputs[IMAGES])
    return {**inputs, SCORE_THRESHOLD: np.array([score_threshold], np.float32)}


def boxes_of_each(outputs: Mapping[str, np.ndarray]) -> list[RawBoxes]:
    """The boxes of each image, without the padding of the outputs, whose label is -1."""
    count = len(outputs[BOXES])
    label_logits = outputs.get(LOGITS, [None] * count)
    rows = zip(outputs[BOXES], outputs[SCORES], outputs[LABELS], label_logits, strict=True)
    return [
        RawBoxes(boxes[labels >= 0], scores[labels >= 0], labels[labels >= 0], logits)
        for boxes, scores, labels, logits in rows
    ]


class ExportedDetector:
    """An exported detector, with the interface of ``LoadedDetector``.

    Args:
        source: an ``.onnx`` or ``.xml`` file that :func:`deployment.export.export` wrote, or an :class:`ExportedFile`.
        device: see :class:`ExportedFile`.

    Attributes:
        kind: ``detector``.
        path: the file.
        classes: the class names.
        input_size: height and width of the input, in pixels.
        score_threshold: the default threshold of scores; boxes have a score above it.

    Raises:
        UserError: as :class:`ExportedFile`, or if the file has a model of another kind.
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
                f"{self.path}: has no valid list of classes or preparation of images; export it with tresnet export"
            ) from error
        self.input_size = (self._letterbox.height, self._letterbox.width)
        if self._file.shapes.get(IMAGES, ())[1:] != (3, *self.input_size):
            raise UserError(f"{self.path}: its input size differs from its description; export it again")

    def find(
        self, images: ImageInput | Iterable[ImageInput], batch_size: int = 1, score_threshold: float | None = None
    ) -> Iterator[Detections]:
        """Yields the boxes in each image, in order; for an image that cannot be read, the reason.

        Args:
            images: an image or several images: files, Pillow images, or uint8 arrays of shape (height, width, 3) in
                RGB.
            batch_size: largest number of images in a batch.
            score_threshold: boxes have a score above it. None takes the attribute ``score_threshold``.

        Raises:
            UserError: if the batch size is below 1, or the file cannot be run.
        """
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size}: give a whole number, at least 1")
        threshold = self.score_threshold if score_threshold is None else score_threshold
        image_list = [images] if isinstance(images, str | os.PathLike | Image.Image | np.ndarray) else images
        prepared_images = ((image, self._prepared(image)) for image in image_list)
        while batch := list(itertools.islice(prepared_images, batch_size)):
            readable = [prepared for _, prepared in batch if not isinstance(prepared, str)]
            results = iter(self.run(readable, threshold) if readable else ())
            for image, prepared in batch:
                if isinstance(prepared, str):
                    yield unread(image, prepared)
                else:
                    result = next(results)
                    yield Detections(
                        *(image, result.boxes, result.scores, result.labels),
                        label_probabilities=self.label_probabilities(result),
                    )

    def label_probabilities(self, boxes: RawBoxes) -> np.ndarray | None:
        """Probabilities of the labels of the image, float32 of shape (C,); None for detectors."""
        return None

    def run(self, images: Sequence[Prepared], score_threshold: float) -> list[RawBoxes]:
        """The boxes of images that the file's :class:`Letterbox` prepared.

        Raises:
            UserError: if the file cannot be run, or does not return boxes, scores and labels.
        """
        outputs = self._file.run(inputs_of(images, score_threshold))
        shapes = {name: value.shape for name, value in outputs.items()}
        scores = shapes.get(SCORES, ())
        fits = len(scores) == 2 and scores[0] == len(images)
        if not fits or shapes.get(BOXES) != (*scores, 4) or shapes.get(LABELS) != scores:
            raise UserError(f"{self.path}: does not return boxes, scores and labels; export it again")
        boxes_of_images = boxes_of_each(outputs)
        if any((boxes.labels >= len(self.classes)).any() for boxes in boxes_of_images):
            raise UserError(f"{self.path}: returns classes that it has no name for; export it again")
        return boxes_of_images

    def _prepared(self, image: ImageInput) -> Prepared | str:
        try:
            return self._letterbox(pixels_of(image))
        except BadImageError as error:
            return str(error)
