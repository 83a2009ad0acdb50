"""Export of joint models: from images to labels and boxes, in one file."""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from tresnet_downstream.deployment.classifier import INT8_TOLERANCE
from tresnet_downstream.deployment.detector import ExportableDetector
from tresnet_downstream.deployment.detector_graph import DetectorGraph
from tresnet_downstream.deployment.exportable import DifferentOutputsError, Run, batches
from tresnet_downstream.errors import UserError
from tresnet_downstream.exported.detector import LOGITS, Prepared
from tresnet_downstream.exported.file import JOINT
from tresnet_downstream.joint.model import LabelsAndBoxes, mask_of_sizes
from tresnet_downstream.prediction.probabilities import probabilities_of

if TYPE_CHECKING:
    from mmdet.models.detectors import BaseDetector

# Largest difference of the labels' logits, relative to the largest logit or to 1 if that is larger.
LOGIT_TOLERANCE = 1e-4


class JointGraph(DetectorGraph):
    """A :class:`DetectorGraph` with a classification head on the backbone's last feature map."""

    def __init__(self, detector: "BaseDetector", size: tuple[int, int], label_head: nn.Module) -> None:
        super().__init__(detector, size)
        self.label_head, self.size = label_head, size

    def forward(  # type: ignore[override]
        self, images: Tensor, sizes: Tensor, scale_factors: Tensor, score_threshold: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The outputs of :class:`DetectorGraph`, and N x C logits."""
        features = self.backbone(self.pixels(images, sizes))
        logits = self.label_head(features[-1], mask=mask_of_sizes(features[-1], sizes, self.size))
        limits, factors = sizes.flip(1).repeat(1, 2), scale_factors.repeat(1, 2)
        return *self.head(self.neck(features), limits, factors, score_threshold), logits


class ExportableJoint(ExportableDetector):
    """A joint model to export; for its boxes, see :class:`ExportableDetector`.

    Args:
        model: a :class:`LabelsAndBoxes` from :func:`load_detector`; it is not modified.
        size: height and width of the images; None uses the size of the test pipeline.

    Raises:
        UserError: as :class:`ExportableDetector`, and if the model multiplies scores of boxes by label probabilities.
    """

    kind: ClassVar[str] = JOINT
    outputs: ClassVar[tuple[str, ...]] = (*ExportableDetector.outputs, LOGITS)
    int8_modules: ClassVar[tuple[str, ...] | None] = (*(ExportableDetector.int8_modules or ()), "label_head")

    def __init__(self, model: LabelsAndBoxes, size: int | None = None) -> None:
        if model.rescore is not None:
            raise UserError(
                "labels.rescore: exported files cannot multiply the scores of boxes by label probabilities; leave it "
                "out"
            )
        self._model: LabelsAndBoxes = copy.deepcopy(model).cpu().float().eval()
        detector = copy.copy(self._model.detector)
        detector.classes, detector.pipeline = model.classes, model.pipeline
        super().__init__(detector, size)

    def graph(self, detector: "BaseDetector") -> JointGraph:
        """See :class:`ExportableDetector`."""
        return JointGraph(detector, self.size, self._model.label_head)

    def compare(self, run: Run, prepared: Sequence[Prepared], int8: bool) -> str:
        """Compares boxes as :class:`ExportableDetector` does, and logits with those of the model in torch.

        In float32, logits must agree to 1e-4 of the largest (or of 1); in int8, probabilities to 0.05 on average.
        """
        boxes = super().compare(run, prepared, int8)
        references, results = [], []
        for part in batches(prepared):
            results.append(run(self.batch(part))[LOGITS])
            references.append(self._logits(part))
        logits, exported = np.concatenate(references), np.concatenate(results)
        if int8:
            expected, from_file = (probabilities_of(each, multi_label=True) for each in (logits, exported))
            difference = np.abs(expected - from_file)
            if not difference.mean() <= INT8_TOLERANCE:
                raise DifferentOutputsError(
                    f"in int8 probabilities of labels differ from torch's by {difference.mean():.2g} on "
                    f"average, more than {INT8_TOLERANCE}: calibrate with other images, or export the network in "
                    "float32"
                )
            return f"{boxes}\nprobabilities of labels differ by {difference.mean():.1e} on average"
        difference = np.abs(logits - exported)
        if not difference.max() <= LOGIT_TOLERANCE * max(1.0, float(np.abs(logits).max())):
            raise DifferentOutputsError(f"logits of labels differ from torch's by up to {difference.max():.2g}")
        return f"{boxes}\nlogits of labels differ by {difference.max():.1e} at most"

    @torch.inference_mode()
    def _logits(self, prepared: Sequence[Prepared]) -> np.ndarray:
        """The logits of the network that is not fused."""
        images, samples = self.padded(prepared)
        for sample in samples:
            sample.set_metainfo({"batch_input_shape": self.size})
        logits: Tensor = self._model.logits(self._model.detector.backbone(images), samples)
        return logits.numpy()


def exportable_detector(model: nn.Module, size: int | None = None) -> ExportableDetector:
    """A detector or joint model to export.

    Args:
        model: a model from :func:`load_detector`; it is not modified.
        size: height and width of the images; None uses the size of the test pipeline.

    Raises:
        UserError: as :class:`ExportableDetector` and :class:`ExportableJoint`.
    """
    return ExportableJoint(model, size) if isinstance(model, LabelsAndBoxes) else ExportableDetector(model, size)
