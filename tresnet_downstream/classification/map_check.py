"""Compares explanation maps with boxes: the share of a map's mass in the boxes of its class, and their area."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tresnet_downstream.classification.classifier import ImageClassifier, build_classifier
from tresnet_downstream.classification.descriptions import read_description
from tresnet_downstream.classification.explain import explain, explanation_method
from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.explanations import mass_inside_boxes
from tresnet_downstream.evaluation.progress import Track, silently
from tresnet_downstream.formats import read_file
from tresnet_downstream.images import read_image
from tresnet_downstream.weights import read_checkpoint


@dataclass(frozen=True)
class MapCheck:
    """Means over all maps. There is a map for each image and each class of which the image has boxes.

    Attributes:
        method: ``attention`` or ``Grad-CAM``.
        images: number of images.
        maps: number of maps.
        empty: number of maps that are 0 everywhere. They are left out of the means.
        mass: share of a map's mass in the boxes of its class.
        area: share of the image's area in these boxes, which is the expected ``mass`` of a constant map.
        above: share of the maps whose mass is above the area.
    """

    method: str
    images: int
    maps: int
    empty: int
    mass: float
    area: float
    above: float


def check_maps(
    model: ImageClassifier,
    annotations: str | Path,
    image_folder: str | Path,
    most: int | None = None,
    track: Track = silently,
) -> MapCheck:
    """Compares the maps of the classes that images show with the boxes of an annotation file.

    Args:
        model: a classifier from :func:`load_model`.
        annotations: an annotation file with boxes, such as COCO's ``instances`` files.
        image_folder: folder of the images, which names in the file are relative to.
        most: number of images, from the first of the file; None for all.
        track: reports progress.

    Raises:
        UserError: as :func:`explain`, and if the file has no boxes or other classes than the model.
    """
    if most is not None and most < 1:
        raise UserError(f"`most` {most}: give a whole number, at least 1")
    method = explanation_method(model)
    names = model.classes or ()
    boxes = boxes_by_class(annotations, names)
    chosen = list(boxes)[:most]
    shares = []
    for image in track(chosen, len(chosen), "maps"):
        path = Path(image_folder) / image
        pixels = read_image(path)
        labels = sorted(boxes[image])
        for label, heat in zip(labels, explain(model, pixels, labels), strict=True):
            shares.append(mass_inside_boxes(heat, boxes[image][label]))
    mass, area = np.array(shares, np.float64).reshape(-1, 2).T
    has_mass = ~np.isnan(mass)
    if not has_mass.any():
        raise UserError(f"{annotations}: none of the {len(mass)} maps of its first {len(chosen)} images has any mass")
    return MapCheck(
        method=method,
        images=len(chosen),
        maps=len(mass),
        empty=int((~has_mass).sum()),
        mass=float(mass[has_mass].mean()),
        area=float(area[has_mass].mean()),
        above=float((mass > area)[has_mass].mean()),
    )


def boxes_by_class(annotations: str | Path, classes: Sequence[str]) -> Mapping[str, Mapping[int, np.ndarray]]:
    """From the name of each image with boxes and the index of a class to its boxes: (B, 4) left, top, width, height.

    Raises:
        UserError: if the file has no boxes, or other classes.
    """
    content = read_file(annotations, classes).content
    if not content:
        raise UserError(f"{annotations}: has no boxes; give a COCO instances file or a list of PASCAL VOC's")
    names = {image["id"]: image["file_name"] for image in content["images"]}
    number = {name: place for place, name in enumerate(classes)}
    categories = {category["id"]: number[category["name"]] for category in content["categories"]}
    lists: dict[str, dict[int, list[Sequence[float]]]] = {}
    for annotation in content["annotations"]:
        of_image = lists.setdefault(names[annotation["image_id"]], {})
        of_image.setdefault(categories[annotation["category_id"]], []).append(annotation["bbox"])
    return {
        image: {label: np.array(rows, np.float64) for label, rows in of_image.items()}
        for image, of_image in lists.items()
    }


def untrained(checkpoint: str | Path, trained: ImageClassifier, seed: int = 0) -> ImageClassifier:
    """The network of a checkpoint with random initial weights.

    Args:
        checkpoint: a checkpoint of this toolkit.
        trained: the same checkpoint from :func:`load_model`, for classes, pipeline and device.
        seed: seed of the weights.

    Raises:
        UserError: if the checkpoint does not describe its network.
    """
    description = read_description(Path(checkpoint), read_checkpoint(checkpoint))
    if description.classifier is None:
        raise UserError(f"{checkpoint}: does not describe its network; give a checkpoint of this toolkit")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        classifier = build_classifier(description.classifier)
    classifier.classes, classifier.pipeline = trained.classes, trained.pipeline
    result: ImageClassifier = classifier.to(next(trained.parameters()).device).eval()
    return result
