"""Creates random ground truth and detections of any size, with which scoring and reports are measured."""

from collections.abc import Iterator
from typing import Any

import numpy as np

WIDTH, HEIGHT = 640, 480
OBJECTS = 7.4  # mean number of objects per image, as in COCO 2017's validation split
FALSE_ALARMS = 60  # number of false positives per image


def random_boxes(
    num_images: int, num_classes: int, seed: int, false_alarms: int = FALSE_ALARMS
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Draws objects, one to four detections near each object, some of another class, and false positives.

    Args:
        num_images: number of images, of 640 x 480 pixels each.
        num_classes: number of classes. Some classes are far more frequent than others.
        seed: seed of all random numbers.
        false_alarms: number of false positives per image.

    Returns:
        the content of a COCO ``instances`` file and detections in COCO's results format.
    """
    draw = np.random.default_rng(seed)
    shares = draw.dirichlet(np.full(num_classes, 0.6))
    annotations: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []
    for image in range(1, num_images + 1):
        objects, image_detections = _boxes_of_image(draw, shares, false_alarms)
        annotations += [{"id": 0, "image_id": image, **each} for each in objects]
        detections += [{"image_id": image, **each} for each in image_detections]
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    images = [
        {"id": number, "file_name": f"{number:06}.jpg", "width": WIDTH, "height": HEIGHT}
        for number in range(1, num_images + 1)
    ]
    categories = [{"id": number + 1, "name": f"class {number}"} for number in range(num_classes)]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    return truth, detections


def _boxes_of_image(
    draw: np.random.Generator, shares: np.ndarray, false_alarms: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Draws the objects and detections of one image."""
    objects: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []
    for _ in range(draw.poisson(OBJECTS)):
        box, category = _box(draw), 1 + int(draw.choice(len(shares), p=shares))
        area = float(box[2] * box[3])
        objects.append({"category_id": category, "bbox": box.tolist(), "area": area, "iscrowd": 0})
        detections += _near(draw, box, category, len(shares))
    for category in 1 + draw.choice(len(shares), false_alarms, p=shares):
        detections.append({"category_id": int(category), "bbox": _box(draw).tolist(), "score": draw.beta(1, 4)})
    return objects, detections


def _near(draw: np.random.Generator, box: np.ndarray, category: int, num_classes: int) -> Iterator[dict[str, Any]]:
    for _ in range(draw.integers(1, 5)):
        near = box + draw.normal(0, 0.08, 4) * np.tile(box[2:], 2)
        predicted = category if draw.random() < 0.8 else 1 + int(draw.integers(num_classes))
        yield {"category_id": predicted, "bbox": near.tolist(), "score": draw.beta(2, 2)}


def _box(draw: np.random.Generator) -> np.ndarray:
    """Draws a box: left, top, width and height in pixels."""
    size = np.exp(draw.uniform(2, 5.5, 2))
    return np.array([*draw.uniform(0, (WIDTH, HEIGHT) - size), *size])
