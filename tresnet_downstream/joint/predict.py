"""Labels and boxes of many pictures, from one pass: as lines of text or JSON, and drawn."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from tresnet_downstream.classification.labelling import THRESHOLD, labels_below
from tresnet_downstream.classification.predict import labels_of
from tresnet_downstream.detection.drawing import detect_in_pictures
from tresnet_downstream.detection.predict import Detections
from tresnet_downstream.evaluation.thresholds import Thresholds
from tresnet_downstream.joint.model import LabelsAndBoxes


def gives_labels_and_boxes(model: Any) -> bool:
    """Whether a network from :func:`load_detector` gives labels beside its boxes."""
    return isinstance(model, LabelsAndBoxes)


def label_and_detect(
    model: Any,
    images: Sequence[str],
    threshold: float | Thresholds | None = None,
    top_k: int | None = None,
    batch_size: int = 1,
    out: str | Path | None = None,
    as_json: bool = False,
) -> Iterator[str]:
    """A line for each picture, as :func:`detect_in_pictures`, with the labels whose probability is above 0.5.

    Args:
        model: a :class:`LabelsAndBoxes`, from :func:`load_detector`.
        images: paths.
        threshold: of the boxes.
        top_k: of the boxes.
        batch_size: as of :func:`detect_in_pictures`, as the following.
        out: see there.
        as_json: see there.
    """
    labels = _Labels(model.classes)
    return detect_in_pictures(model, images, threshold, top_k, batch_size, out, as_json, labels)


@dataclass(frozen=True)
class _Labels:
    """Labels in a line and below a picture."""

    classes: Sequence[str]

    def of(self, detections: Detections) -> list[tuple[str, float]]:
        assert detections.label_probabilities is not None
        return labels_of(detections.label_probabilities, self.classes, THRESHOLD, None)

    def draw(self, picture: Image.Image, detections: Detections) -> Image.Image:
        return labels_below(picture, self.of(detections))
