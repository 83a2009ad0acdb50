"""Labels beside boxes, where pictures are predicted: in lines of text or JSON, and drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from tresnet_downstream.classification.labelling import THRESHOLD, labels_below
from tresnet_downstream.classification.predict import labels_of
from tresnet_downstream.detection.predict import Detections
from tresnet_downstream.joint.model import LabelsAndBoxes


def gives_labels_and_boxes(model: Any) -> bool:
    """Whether a network from :func:`load_detector` gives labels beside its boxes."""
    return isinstance(model, LabelsAndBoxes)


@dataclass(frozen=True)
class LabelsOfPictures:
    """The labels whose probability is above 0.5, in the lines of :func:`detect_in_pictures` and below its pictures.

    Attributes:
        classes: their names.
    """

    classes: Sequence[str]

    def of(self, detections: Detections) -> list[tuple[str, float]]:
        """Names and probabilities, best first."""
        assert detections.label_probabilities is not None
        return labels_of(detections.label_probabilities, self.classes, THRESHOLD, None)

    def draw(self, picture: Image.Image, detections: Detections) -> Image.Image:
        """The picture with its labels below it."""
        return labels_below(picture, self.of(detections))
