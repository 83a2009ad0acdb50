"""Runs exported classifiers without torch."""

from pathlib import Path
from typing import ClassVar

import numpy as np

from tresnet_downstream.errors import UserError
from tresnet_downstream.exported.arrays import as_network_input
from tresnet_downstream.exported.file import CLASSIFIER, ExportedFile
from tresnet_downstream.prediction.preparation import Preparation, preparation_of
from tresnet_downstream.prediction.probabilities import probabilities_of

IMAGES, LOGITS = "images", "logits"


class ExportedClassifier:
    """An exported classifier for ``predict``, ``predict_each`` and ``label_images``.

    Args:
        source: an ``.onnx`` or ``.xml`` file that :func:`deployment.export.export` wrote, or an :class:`ExportedFile`.
        device: see :class:`ExportedFile`.

    Attributes:
        kind: ``classifier``.
        path: the file.
        classes, multi_label, pipeline: see ``ImageClassifier``.
        input_size: height and width of the input, in pixels.
        training: False.

    Raises:
        UserError: as :class:`ExportedFile`, or if the file has a model of another kind.
    """

    kind: ClassVar[str] = CLASSIFIER
    training = False

    def __init__(self, source: str | Path | ExportedFile, device: str = "cpu") -> None:
        self._file = source if isinstance(source, ExportedFile) else ExportedFile(source, device)
        self._file.require_kind(self.kind)
        self.path = self._file.path
        shape = self._file.shapes.get(IMAGES, ())
        self.input_size = (shape[2], shape[3]) if len(shape) == 4 else (0, 0)
        content = self._file.description
        try:
            self.classes = tuple(str(name) for name in content["classes"])
            self.multi_label = bool(content["multi_label"])
            self.pipeline = tuple(dict(step) for step in content["pipeline"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.path}: has no valid list of classes; export it with tresnet export") from error

    def preparation(self) -> Preparation:
        """A function that prepares an image by the pipeline: uint8 of shape (height, width, 3) in and out.

        If the pipeline has steps that :mod:`prediction.preparation` does not support, it is built from Albumentations'
        transforms and those in :mod:`registry`, which import torch.

        Raises:
            UserError: if a step is not registered, its arguments are invalid, or it needs Albumentations or torch and
                these are not installed.
        """
        prepare = preparation_of(self.pipeline)
        if prepare is not None:
            return prepare
        try:
            from tresnet_downstream.classification.transforms import build_pipeline
        except ImportError as error:
            steps = ", ".join(str(step.get("type")) for step in self.pipeline)
            raise UserError(
                f"{self.path}: its pipeline ({steps}) needs torch and Albumentations ({error}): pip install "
                "tresnet-downstream"
            ) from error
        pipeline = build_pipeline(self.pipeline)
        return lambda image: pipeline(image=image)["image"]

    def logits(self, images: np.ndarray) -> np.ndarray:
        """N x 3 x H x W images in [0, 1] to N x C logits, float32.

        Raises:
            UserError: if the size of the images is not that of the exported model, or the model cannot be run.
        """
        if images.shape[1:] != (3, *self.input_size):
            expected, actual = (f"{height} x {width}" for height, width in (self.input_size, images.shape[2:]))
            raise UserError(
                f"{self.path}: takes images of {expected}, got {actual}; export it with `input_size` for others"
            )
        logits = self._file.run({IMAGES: np.ascontiguousarray(images, np.float32)}).get(LOGITS, np.zeros(0))
        expected_shape = (len(images), len(self.classes))
        if logits.shape != expected_shape or logits.dtype != np.float32:
            raise UserError(
                f"{self.path}: returns {logits.dtype} of {logits.shape}, not float32 of {expected_shape}; export it "
                "again"
            )
        return logits

    def predict_batch(self, images: np.ndarray) -> np.ndarray:
        """Probabilities, N x C in float32, of prepared uint8 images N x H x W x 3."""
        return probabilities_of(self.logits(as_network_input(images)), self.multi_label)
