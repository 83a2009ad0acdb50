"""Explanation maps: chooses the mistakes that get a map, and measures the share of a map inside boxes."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tresnet_downstream.evaluation.mistakes import worst_images, worst_mistakes
from tresnet_downstream.evaluation.outcomes import MultilabelRun, SingleLabelRun
from tresnet_downstream.evaluation.single_label_scores import single_label_scores

# Side of the maps in a run folder: four times that of the last feature map at 448 pixels; enough for a thumbnail.
MAP_SIDE = 56


def mistakes_to_explain(run: MultilabelRun | SingleLabelRun) -> Mapping[int, list[int]]:
    """The mistakes that a report of the run shows.

    Returns:
        the class indices of the mistakes of each image, by the image's row; with one label per image, the predicted
        class.
    """
    pairs: list[tuple[int, int]] = []
    probabilities = np.asarray(run.probabilities, np.float32)  # with the precision of the run folder
    if isinstance(run, MultilabelRun):
        limits = np.full(len(run.classes), run.threshold, np.float64)
        for mistakes in worst_mistakes(probabilities, run.targets, limits, run.images):
            pairs += [(mistake.image, mistake.label) for mistake in mistakes]
    else:
        scores = single_label_scores(probabilities, run.labels, run.classes)
        for images in worst_images(scores):
            pairs += [(image, int(scores.predicted[image])) for image in images]
    by_image: dict[int, list[int]] = {}
    for image, label in dict.fromkeys(pairs):
        by_image.setdefault(image, []).append(label)
    return by_image


def stored_map(heat: np.ndarray) -> NDArray[np.uint8]:
    """Converts a map with values from 0 to 1 to the data type of run folders."""
    stored: NDArray[np.uint8] = np.rint(255 * np.clip(heat, 0, 1)).astype(np.uint8)
    return stored


def mass_inside_boxes(heat: np.ndarray, boxes: np.ndarray) -> tuple[float, float]:
    """The share of a map's sum inside boxes, and the share of the image's area that the boxes cover.

    For a uniform map both shares are equal; a map that is concentrated on the objects has a larger first share.

    Args:
        heat: (height, width) map of the image, values of 0 or more.
        boxes: (B, 4) left, top, width and height in pixels; where boxes overlap, pixels are counted once.

    Returns:
        two shares from 0 to 1; the first is NaN for a map of zeros.

    Examples:
        >>> heat = np.zeros((4, 4))
        >>> heat[:2, :2] = 1
        >>> heat[3, 3] = 1
        >>> mass_inside_boxes(heat, np.array([[0, 0, 2, 2]]))
        (0.8, 0.25)
    """
    height, width = heat.shape
    across, down = np.arange(width) + 0.5, np.arange(height) + 0.5
    inside = np.zeros(heat.shape, bool)
    for left, top, box_width, box_height in np.asarray(boxes, np.float64).reshape(-1, 4):
        columns = (across >= left) & (across <= left + box_width)
        inside |= ((down >= top) & (down <= top + box_height))[:, None] & columns
    mass = float(np.sum(heat, dtype=np.float64))
    share = float(np.sum(heat[inside], dtype=np.float64)) / mass if mass else float("nan")
    return share, float(inside.mean())
