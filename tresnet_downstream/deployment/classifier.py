"""Export of classifiers: from images of a fixed size to logits, with any batch size."""

import copy
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from tresnet_downstream.backbones import TResNet
from tresnet_downstream.classification.classifier import ImageClassifier, probabilities_of
from tresnet_downstream.deployment.exportable import DifferentOutputsError, Exportable, Run, batches, synthetic_images
from tresnet_downstream.deployment.fuse import fuse
from tresnet_downstream.errors import UserError
from tresnet_downstream.exported.arrays import as_network_input
from tresnet_downstream.exported.classifier import IMAGES, LOGITS
from tresnet_downstream.exported.file import CLASSIFIER, FileDescription

# Largest difference of logits, relative to the largest logit or to 1 if that is larger.
TOLERANCE = 1e-4
# Largest mean difference of probabilities that is accepted as the rounding error of an int8 model.
INT8_TOLERANCE = 0.05


class ExportableClassifier(Exportable[np.ndarray]):
    """A classifier to export, fused. It computes ``logits``, N x C, from ``images``, N x 3 x H x W in [0, 1].

    Args:
        model: a model from :func:`load_model` in evaluation mode; it is not modified. H and W are the size that its
            pipeline gives.

    Raises:
        UserError: if the model is in training mode, has no pipeline, or does not accept images of that size.
    """

    kind: ClassVar[str] = CLASSIFIER
    inputs: ClassVar[tuple[str, ...]] = (IMAGES,)
    outputs: ClassVar[tuple[str, ...]] = (LOGITS,)
    per_image: ClassVar[tuple[str, ...]] = (IMAGES,)

    def __init__(self, model: ImageClassifier) -> None:
        if model.training:
            raise UserError("the model is in training mode: call model.eval() first")
        if not model.pipeline:
            raise UserError("the model does not say how images are prepared: load it with load_model")
        self._prepare = model.preparation()
        height, width, _ = self.prepare(np.zeros((64, 64, 3), np.uint8)).shape
        self.size = (height, width)
        copied = fuse(model) if isinstance(model.backbone, TResNet) else copy.deepcopy(model)
        self.module: ImageClassifier = copied.cpu().float()
        with torch.inference_mode():
            # If the network does not accept the size, this raises a clearer error than the exporter.
            self.module(torch.zeros(1, 3, *self.size))

    def description(self) -> FileDescription:
        """The classes, whether an image may have several labels, and the pipeline."""
        return {
            "classes": list(self.module.classes or ()),
            "multi_label": self.module.multi_label,
            "pipeline": [dict(step) for step in self.module.pipeline],
        }

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """The image after the pipeline."""
        return self._prepare(image)

    def batch(self, images: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """See :class:`Exportable`."""
        return {IMAGES: as_network_input(np.stack(images))}

    def example(self) -> tuple[Tensor, ...]:
        """See :class:`Exportable`."""
        return (torch.zeros(2, 3, *self.size),)

    def drawn(self) -> Sequence[np.ndarray]:
        """Four synthetic images."""
        return list(synthetic_images(4, *self.size))

    def compare(self, run: Run, images: Sequence[np.ndarray], int8: bool) -> str:
        """Compares logits in float32, and probabilities in int8."""
        differences, largest = [], 1.0
        for part in batches(images):
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
            raise DifferentOutputsError(
                f"in int8 probabilities differ from torch's by {difference.mean():.2g} on average, more "
                f"than {INT8_TOLERANCE}: calibrate with other images, or export the network in float32"
            )
        if not int8 and not difference.max() <= TOLERANCE * largest:
            raise DifferentOutputsError(
                f"logits of up to {largest:.2g} differ from torch's by up to {difference.max():.2g}"
            )
        return (
            f"{'probabilities' if int8 else 'logits'} differ from torch's by {difference.max():.1e} at most, "
            f"{difference.mean():.1e} on average, on {len(images)} images"
        )
