"""Checks the content of run folders. Each error is one line that names the wrong part."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TypeGuard

import numpy as np

from tresnet_downstream.coco_records import CocoImage
from tresnet_downstream.coco_shapes import is_box, is_crowd_flag, is_id, is_mask, is_number
from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.coco_index import BACKENDS
from tresnet_downstream.evaluation.frequency_groups import counts_from_json
from tresnet_downstream.evaluation.outcomes import DetectionRun, MultilabelRun, SingleLabelRun
from tresnet_downstream.limits import limit
from tresnet_downstream.text_files import refuse_duplicates

# Entries that are checked at once, since the arrays may be larger than memory.
_BLOCK_ENTRIES = 2**22
# The lists in COCO's instances format.
_PARTS = {"image": "images", "annotation": "annotations", "category": "categories"}


def check_description(where: str, content: Mapping[str, object]) -> None:
    """Raises UserError that names the first key with a wrong value."""
    keys: dict[str, tuple[Callable[[object], bool], str]] = {
        "task": (
            lambda value: value in ("multilabel", "single_label", "detection"),
            "multilabel, single_label or detection",
        ),
        "classes": (are_names, "a list of names"),
        "image_folder": (lambda value: isinstance(value, str), "a path"),
        "about": (lambda value: isinstance(value, Mapping), "an object"),
    }
    if content.get("task") in ("multilabel", "single_label"):
        keys["num_images"] = (lambda value: type(value) is int and value > 0, "a number of images")
    if content.get("task") == "multilabel":
        keys |= {
            "threshold": (lambda value: is_number(value) and 0 <= value <= 1, "a probability"),
            "top_k": (lambda value: type(value) is int and value > 0, "a number of labels"),
        }
    elif content.get("task") == "detection":
        keys |= {
            "kinds": (lambda value: are_names(value) and set(value) <= {"bbox", "segm"}, "a list of bbox and segm"),
            "image_ids": (
                lambda value: isinstance(value, list) and len(value) > 0 and all(map(is_id, value)),
                "a list of ids",
            ),
            "coco_eval": (lambda value: value in BACKENDS, " or ".join(BACKENDS)),
        }
    if content.get("training") is not None:
        keys["training"] = (
            lambda value: counts_from_json(value) is not None,
            "an object of `images`, a number for each class, and `cutoffs`, two numbers or null",
        )
    if content.get("explanations") is not None:
        keys["explanations"] = (_describes_maps, "an object of method, maps and side")
    for key, (is_right, expected) in keys.items():
        value = content.get(key)
        if not is_right(value):
            raise UserError(f"{where}: `{key}` is {str(value)[:60]!r}, not {expected}")


def _describes_maps(value: object) -> bool:
    if not isinstance(value, Mapping) or not isinstance(value.get("method"), str):
        return False
    return all(type(value.get(key)) is int and value[key] >= least for key, least in (("maps", 0), ("side", 1)))


def check_explanations(run: MultilabelRun | SingleLabelRun, where: str) -> None:
    """Raises UserError if the maps' array is wrong, or a map is of an unknown image or class."""
    if run.explanations is None:
        return
    maps, pairs = run.explanations.maps, run.explanations.pairs
    count = len(pairs)
    if maps.ndim != 3 or len(maps) != count or maps.shape[1] != maps.shape[2] or maps.dtype != np.uint8:
        raise UserError(f"{where}: the maps are {maps.dtype} of shape {maps.shape}, not uint8, {count} x side x side")
    images, classes = set(run.images), set(run.classes)
    for image, name in pairs:
        if image not in images or name not in classes:
            raise UserError(f"{where}: has a map of class {name!r} in image {image!r}, which are not both in the run")


def are_names(value: object) -> TypeGuard[Sequence[str]]:
    """Whether the value is a list of strings that is not empty."""
    return isinstance(value, list | tuple) and len(value) > 0 and all(isinstance(name, str) for name in value)


def check_labels(run: SingleLabelRun, where: str) -> None:
    """Raises UserError that names repeated images or classes, or the first wrong label or probability."""
    refuse_duplicates(where, "image", run.images)
    refuse_duplicates(where, "class", run.classes)
    count, num_classes = len(run.images), len(run.classes)
    if run.probabilities.shape != (count, num_classes) or run.labels.shape != (count,):
        raise UserError(
            f"{where}: the probabilities are of shape {run.probabilities.shape} and the labels of {run.labels.shape}, "
            f"for {count} images and {num_classes} classes"
        )
    if run.labels.dtype.kind not in "iu":
        raise UserError(f"{where}: the labels are not integers")
    wrong = np.flatnonzero((run.labels < 0) | (run.labels >= num_classes))
    if len(wrong):
        image = run.images[wrong[0]]
        raise UserError(f"{where}: image {image!r} has the label {run.labels[wrong[0]]}, not 0 to {num_classes - 1}")
    rows = max(1, _BLOCK_ENTRIES // num_classes)
    for first in range(0, count, rows):
        block = run.probabilities[first : first + rows]
        right = (block >= 0) & (block <= 1)  # false for NaN as well
        if not right.all():
            row, column = np.argwhere(~right)[0]
            raise UserError(
                f"{where}: image {run.images[first + row]!r} has {block[row, column]} for the class "
                f"{run.classes[column]!r}, which is not a probability"
            )


def check_arrays(run: MultilabelRun, where: str) -> None:
    """Raises UserError that names repeated images or classes, or the first wrong value; works in blocks."""
    refuse_duplicates(where, "image", run.images)
    refuse_duplicates(where, "class", run.classes)
    expected = (len(run.images), len(run.classes))
    for name, array in (("probabilities", run.probabilities), ("targets", run.targets)):
        if array.shape != expected:
            raise UserError(f"{where}: the {name} are of shape {array.shape}, not images x classes, {expected}")
    rows = max(1, _BLOCK_ENTRIES // max(1, len(run.classes)))
    fractions = run.targets.dtype.kind == "f"
    for first in range(0, len(run.images), rows):
        block, targets = run.probabilities[first : first + rows], run.targets[first : first + rows]
        for values, right, what in (
            (block, (block >= 0) & (block <= 1), "a probability"),  # false for NaN as well
            (
                targets,
                (abs(targets) == 1) | (targets == 0) if fractions else (targets >= -1) & (targets <= 1),
                "1, 0 or -1",
            ),
        ):
            if not right.all():
                row, column = np.argwhere(~right)[0]
                raise UserError(
                    f"{where}: image {run.images[first + row]!r} has {values[row, column]} for the class "
                    f"{run.classes[column]!r}, which is not {what}"
                )


def check_detections(run: DetectionRun, where: str) -> None:
    """Raises UserError that names the first record in which a value is missing or wrong."""
    if not isinstance(run.ground_truth, Mapping):
        raise UserError(f"{where}: the ground truth is not an object with `images`, `annotations` and `categories`")
    keys = {
        "image": ("id", "file_name", "width", "height"),
        "annotation": ("image_id", "category_id", "bbox", "area", "iscrowd"),
        "category": ("id", "name"),
    }
    required = {what: (run.ground_truth.get(part), keys[what]) for what, part in _PARTS.items()}
    for kind, rows in run.predictions.items():
        masks = ("segmentation",) if kind == "segm" else ()
        required[f"prediction ({kind})"] = (rows, ("image_id", "category_id", "bbox", "score", *masks))
    for what, (records, needed) in required.items():
        if not isinstance(records, list | tuple) or not all(isinstance(record, Mapping) for record in records):
            raise UserError(f"{where}: the {what} records are not a list of objects")
        for number, record in enumerate(records):
            if lacking := [key for key in needed if record.get(key) is None]:
                raise UserError(f"{where}: {what} {_named(run, record, number)} has no `{lacking[0]}`")
    _check_ids(run, where)
    images = {image["id"]: image for image in run.ground_truth["images"]}
    of_masks = "segm" in run.predictions
    for number, record in enumerate(run.ground_truth["annotations"]):
        if wrong := _fault_of_record(record, images[record["image_id"]], of_masks):
            raise UserError(f"{where}: annotation {_named(run, record, number)} has {wrong}")
    for kind, rows in run.predictions.items():
        for row in rows:
            if wrong := _fault_of_record(row, images[row["image_id"]], kind == "segm"):
                name = images[row["image_id"]]["file_name"]
                raise UserError(f"{where}: image {name!r} has a {kind} with {wrong}")


def _named(run: DetectionRun, record: Mapping[str, object], number: int) -> str:
    if "image_id" not in record:
        return repr(record.get("file_name") or record.get("id", number))
    image = record["image_id"]
    same = (
        image_record.get("file_name") for image_record in run.ground_truth["images"] if image_record.get("id") == image
    )
    return f"of image {next(same, image)!r}"


def _check_ids(run: DetectionRun, where: str) -> None:
    """Raises UserError that names the first id or name that is wrong, repeated, or unknown in the ground truth."""
    images, categories = run.ground_truth["images"], run.ground_truth["categories"]
    named: list[tuple[str, Sequence[Mapping[str, object]], str]] = [
        ("image", images, "file_name"),
        ("category", categories, "name"),
    ]
    for what, records, key in named:
        for place, record in enumerate(records):
            name = record[key]
            if not is_id(record["id"]) or not isinstance(name, str) or not name:
                raise UserError(
                    f"{where}: {what} {place} has the id {record['id']!r} and the name {name!r}; expected are an "
                    "integer and a text"
                )
        refuse_duplicates(where, f"{what} id", [record["id"] for record in records])
    refuse_duplicates(where, "image", [image["file_name"] for image in images])
    refuse_duplicates(where, "category", [category["name"] for category in categories])
    refuse_duplicates(where, "class", run.classes)
    for image in images:
        sides = image["width"], image["height"]
        if not all(is_id(side) and side > 0 for side in sides) or sides[0] * sides[1] > limit("pixels"):
            raise UserError(
                f"{where}: image {image['file_name']!r} has the size {sides}; expected are two positive integers"
            )
    if unknown := set(run.classes) - {category["name"] for category in categories}:
        raise UserError(f"{where}: the ground truth has no class {min(unknown)!r}")
    known = {"image": {image["id"] for image in images}, "category": {category["id"] for category in categories}}
    lists: list[Sequence[Mapping[str, object]]] = [run.ground_truth["annotations"], *run.predictions.values()]
    for what, ids in known.items():
        ids_in_records = (record[f"{what}_id"] for records in lists for record in records)
        for number in itertools.chain(ids_in_records, run.image_ids if what == "image" else ()):
            if not is_id(number) or number not in ids:
                raise UserError(f"{where}: the ground truth has no {what} {number!r}")


def _fault_of_record(record: Mapping[str, object], image: CocoImage, mask: bool) -> str:
    """What is wrong with an annotation or a prediction; empty if it is right."""
    if not is_box(record["bbox"]) or not is_number(record.get("score", 0)):
        box = f"box {record['bbox']!r:.100}"
        return (f"score {record['score']!r:.60}, {box}" if "score" in record else box) + "; expected are finite numbers"
    if not is_number(record.get("area", 0)) or not is_crowd_flag(record.get("iscrowd", 0)):
        return (
            f"area {record.get('area')!r:.60}, iscrowd {record.get('iscrowd')!r:.60}; expected are a number, and 0 or 1"
        )
    if mask and not is_mask(record.get("segmentation"), image["height"], image["width"]):
        return "a `segmentation` that is not a mask of the size of the image"
    return ""
