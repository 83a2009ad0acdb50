"""Whether maps fall on what they are of: their mass inside the boxes of the class, beside the boxes' area."""

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
from tresnet_downstream.pictures import read_image
from tresnet_downstream.weights import read_checkpoint


@dataclass(frozen=True)
class MapCheck:
    """Means over all maps: one for each class that a picture has boxes of.

    Attributes:
        method: ``attention`` or ``Grad-CAM``.
        pictures: how many were looked at.
        maps: how many maps.
        empty: how many of them are 0 everywhere; they have no part in the means.
        mass: share of a map's mass inside the boxes of its class.
        area: share of the picture that these boxes cover: what ``mass`` is for maps that know nothing.
        above: share of the maps with more mass than area.
    """

    method: str
    pictures: int
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
    """Measures the maps of the classes that pictures show, by an annotation file with boxes.

    Args:
        model: from :func:`load_model`.
        annotations: a file with boxes, such as COCO's ``instances`` files.
        image_folder: what its pictures' names are relative to.
        most: how many pictures, from the file's first on; None for all.
        track: counts the work.

    Raises:
        UserError: for what :func:`explain` raises, a file without boxes, and classes that are not the model's.
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
        picture = read_image(path)
        labels = sorted(boxes[image])
        for label, heat in zip(labels, explain(model, picture, labels), strict=True):
            shares.append(mass_inside_boxes(heat, boxes[image][label]))
    mass, area = np.array(shares, np.float64).reshape(-1, 2).T
    there = ~np.isnan(mass)
    if not there.any():
        raise UserError(f"{annotations}: none of the {len(mass)} maps of its first {len(chosen)} pictures has any mass")
    return MapCheck(
        method=method,
        pictures=len(chosen),
        maps=len(mass),
        empty=int((~there).sum()),
        mass=float(mass[there].mean()),
        area=float(area[there].mean()),
        above=float((mass > area)[there].mean()),
    )


def boxes_by_class(annotations: str | Path, classes: Sequence[str]) -> Mapping[str, Mapping[int, np.ndarray]]:
    """The boxes of each picture that has any, by its name and the class's number: (B, 4) left, top, width, height.

    Raises:
        UserError: for a file without boxes, or with other classes.
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
    """The network of a checkpoint with the random weights that a training could start from.

    Args:
        checkpoint: of this toolkit.
        trained: the same from :func:`load_model`, which says classes, pipeline and device.
        seed: of the weights.

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
    return classifier.to(next(trained.parameters()).device).eval()
