"""Classifiers: from pictures to logits, one picture of a fixed height and width after the other or several at once."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from tresnet_downstream.backbones import TResNet
from tresnet_downstream.classification.classifier import ImageClassifier, probabilities_of
from tresnet_downstream.classification.transforms import build_pipeline
from tresnet_downstream.deployment.exportable import Exportable, Run, as_network_input, batches, drawn_pictures
from tresnet_downstream.deployment.exported import ExportedFile
from tresnet_downstream.deployment.fuse import fuse
from tresnet_downstream.errors import UserError

# Of the largest logit, or of 1 if that is larger.
TOLERANCE = 1e-4
# Mean difference of probabilities beyond which an int8 model is broken rather than rounded.
INT8_TOLERANCE = 0.05
IMAGES, LOGITS = "images", "logits"


class ExportableClassifier(Exportable[np.ndarray]):
    """A classifier to export, fused: ``images``, N x 3 x H x W in [0, 1], to ``logits``, N x C.

    Args:
        model: from :func:`load_model`, in evaluation mode; stays as it is. H and W are those of its pipeline.

    Raises:
        UserError: for a model in training mode, without a pipeline, or that does not take pictures of that size.
    """

    kind: ClassVar[str] = "classifier"
    inputs: ClassVar[tuple[str, ...]] = (IMAGES,)
    outputs: ClassVar[tuple[str, ...]] = (LOGITS,)
    per_picture: ClassVar[tuple[str, ...]] = (IMAGES,)

    def __init__(self, model: ImageClassifier) -> None:
        if model.training:
            raise UserError("the model is in training mode: call model.eval() first")
        if not model.pipeline:
            raise UserError("the model does not say how pictures are prepared: load it with load_model")
        self._pipeline = build_pipeline(model.pipeline)
        height, width, _ = self.prepare(np.zeros((64, 64, 3), np.uint8)).shape
        self.size = (height, width)
        copied = fuse(model) if isinstance(model.backbone, TResNet) else copy.deepcopy(model)
        self.module: ImageClassifier = copied.cpu().float()
        with torch.inference_mode():
            # A size that the network does not take would come out of the exporter as an error of its own.
            self.module(torch.zeros(1, 3, *self.size))

    def description(self) -> dict[str, Any]:
        """Classes, whether an image may have several, and the pipeline."""
        return {
            "classes": list(self.module.classes or ()),
            "multi_label": self.module.multi_label,
            "pipeline": [dict(step) for step in self.module.pipeline],
        }

    def prepare(self, picture: np.ndarray) -> np.ndarray:
        """The picture as the pipeline gives it."""
        prepared: np.ndarray = self._pipeline(image=picture)["image"]
        return prepared

    def batch(self, pictures: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """See :class:`Exportable`."""
        return {IMAGES: as_network_input(np.stack(pictures))}

    def example(self) -> tuple[Tensor, ...]:
        """See :class:`Exportable`."""
        return (torch.zeros(2, 3, *self.size),)

    def drawn(self) -> Sequence[np.ndarray]:
        """Four pictures."""
        return list(drawn_pictures(4, *self.size))

    def compare(self, run: Run, pictures: Sequence[np.ndarray], int8: bool) -> str:
        """Compares logits in float32, and probabilities in int8."""
        differences, largest = [], 1.0
        for part in batches(pictures):
            inputs = self.batch(part)
            with torch.inference_mode():
                reference = self.module(torch.from_numpy(inputs[IMAGES]))
            logits = torch.from_numpy(run(inputs)[LOGITS])
            largest = max(largest, float(reference.abs().max()))
            if int8:
                logits, reference = (probabilities_of(each, self.module.multi_label) for each in (logits, reference))
            differences.append((logits - reference).abs().numpy())
        difference = np.concatenate(differences)
        if int8 and not difference.mean() <= INT8_TOLERANCE:
            raise UserError(
                f"not exported: in int8 probabilities differ from torch's by {difference.mean():.2g} on average, "
                "so the network does not stand it, or not with these pictures: export it in float32"
            )
        if not int8 and not difference.max() <= TOLERANCE * largest:
            raise UserError(
                f"not exported: logits of up to {largest:.2g} differ from torch's by up to {difference.max():.2g}"
            )
        return (
            f"{'probabilities' if int8 else 'logits'} differ from torch's by {difference.max():.1e} at most, "
            f"{difference.mean():.1e} on average, on {len(pictures)} pictures"
        )


class ExportedClassifier:
    """An exported classifier for ``predict``, ``predict_each`` and ``label_pictures``.

    Args:
        source: ``.onnx`` or ``.xml`` that :func:`~tresnet_downstream.deployment.export.export` wrote, or one opened.
        device: see :class:`ExportedFile`.

    Attributes:
        kind: ``classifier``.
        path: the file.
        classes, multi_label, pipeline: as of :class:`ImageClassifier`.
        input_size: height and width of the pictures, in pixels.
        training: never.

    Raises:
        UserError: as :class:`ExportedFile`, and for a file of another kind.
    """

    kind: ClassVar[str] = "classifier"
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
            self.pipeline: tuple[dict[str, Any], ...] = tuple(dict(step) for step in content["pipeline"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.path}: does not say its classes; export it with tresnet export") from error

    def logits(self, images: np.ndarray) -> np.ndarray:
        """N x C logits for N x 3 x H x W in [0, 1], float32.

        Raises:
            UserError: for pictures of another size than the model was exported for, and a model that cannot be run.
        """
        if images.shape[1:] != (3, *self.input_size):
            expected, given = (f"{height} x {width}" for height, width in (self.input_size, images.shape[2:]))
            raise UserError(
                f"{self.path}: takes pictures of {expected}, got {given}; export it with `input_size` for others"
            )
        logits = self._file.run({IMAGES: np.ascontiguousarray(images, np.float32)}).get(LOGITS, np.zeros(0))
        expected_shape = (len(images), len(self.classes))
        if logits.shape != expected_shape or logits.dtype != np.float32:
            raise UserError(
                f"{self.path}: gives {logits.dtype} of {logits.shape}, not float32 of {expected_shape}; export it again"
            )
        return logits

    def predict_batch(self, images: np.ndarray) -> np.ndarray:
        """Probabilities, N x C in float32, for uint8 pictures N x H x W x 3."""
        return probabilities_of(torch.from_numpy(self.logits(as_network_input(images))), self.multi_label).numpy()


opened = ExportedClassifier
