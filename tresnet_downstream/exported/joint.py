"""Runs exported joint models, which predict labels and boxes."""

from typing import ClassVar

import numpy as np

from tresnet_downstream.errors import UserError
from tresnet_downstream.exported.detector import ExportedDetector, RawBoxes
from tresnet_downstream.exported.file import JOINT
from tresnet_downstream.prediction.probabilities import probabilities_of


class ExportedJoint(ExportedDetector):
    """An exported joint model: an :class:`ExportedDetector` that also predicts the labels of the image."""

    kind: ClassVar[str] = JOINT

    def label_probabilities(self, boxes: RawBoxes) -> np.ndarray | None:
        """Probabilities of the labels of the image, float32 of shape (C,)."""
        if boxes.logits is None or boxes.logits.shape != (len(self.classes),):
            raise UserError(f"{self.path}: returns no logits for its {len(self.classes)} classes; export it again")
        return probabilities_of(boxes.logits, multi_label=True)
