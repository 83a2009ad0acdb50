"""What a run folder may hold: whatever is wrong with a part of it is said in one line that names the part."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tresnet_downstream.coco_files import refuse_duplicates
from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.coco_index import BACKENDS
from tresnet_downstream.evaluation.outcomes import DetectionRun, MultilabelRun

# Entries looked at together: the arrays may be larger than memory.
_BLOCK_ENTRIES = 2**22


def check_description(where: str, content: Mapping[str, Any]) -> None:
    """Names the first key that has another value than it may have."""
    keys: dict[str, tuple[Callable[[Any], bool], str]] = {
        "task": (lambda value: value in ("multilabel", "detection"), "multilabel or detection"),
        "classes": (are_names, "a list of names"),
        "image_folder": (lambda value: isinstance(value, str), "a path"),
        "about": (lambda value: isinstance(value, Mapping), "an object"),
    }
    if content.get("task") == "multilabel":
        keys |= {
            "num_images": (lambda value: type(value) is int and value > 0, "a number of images"),
            "threshold": (lambda value: type(value) in (int, float) and 0 <= value <= 1, "a probability"),
            "top_k": (lambda value: type(value) is int and value > 0, "a number of labels"),
        }
    else:
        keys |= {
            "kinds": (lambda value: are_names(value) and set(value) <= {"bbox", "segm"}, "a list of bbox and segm"),
            "image_ids": (lambda value: isinstance(value, list) and len(value) > 0, "a list of ids"),
            "coco_eval": (lambda value: value in BACKENDS, " or ".join(BACKENDS)),
        }
    for key, (is_right, wanted) in keys.items():
        value = content.get(key)
        if not is_right(value):
            raise UserError(f"{where}: `{key}` is {str(value)[:60]!r}, not {wanted}")


def are_names(value: Any) -> bool:
    """Whether it is a list of texts, and not empty."""
    return isinstance(value, list | tuple) and len(value) > 0 and all(isinstance(name, str) for name in value)


def check_arrays(run: MultilabelRun, where: str) -> None:
    """Names what is twice, and the first image with a value that is none; block by block for the sake of memory."""
    refuse_duplicates(where, "image", run.images)
    refuse_duplicates(where, "class", run.classes)
    wanted = (len(run.images), len(run.classes))
    for name, array in (("probabilities", run.probabilities), ("targets", run.targets)):
        if array.shape != wanted:
            raise UserError(f"{where}: the {name} are of shape {array.shape}, not images x classes, {wanted}")
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
    """Names the first record that lacks something, and the first detection whose score is none."""
    required: dict[str, tuple[Sequence[Mapping[str, Any]], tuple[str, ...]]] = {
        "image": (run.ground_truth["images"], ("id", "file_name", "width", "height")),
        "annotation": (run.ground_truth["annotations"], ("image_id", "category_id", "bbox", "area", "iscrowd")),
        "category": (run.ground_truth["categories"], ("id", "name")),
    }
    for kind, rows in run.predictions.items():
        masks = ("segmentation",) if kind == "segm" else ()
        required[f"prediction ({kind})"] = (rows, ("image_id", "category_id", "bbox", "score", *masks))
    names = {image.get("id"): image.get("file_name") for image in run.ground_truth["images"]}
    for what, (records, keys) in required.items():
        for number, record in enumerate(records):
            if lacking := [key for key in keys if record.get(key) is None]:
                name = names.get(record.get("image_id"), record.get("file_name") or record.get("id", number))
                of_image = "of image " if "image_id" in record else ""
                raise UserError(f"{where}: {what} {of_image}{name!r} has no `{lacking[0]}`")
    refuse_duplicates(where, "image", [image["file_name"] for image in run.ground_truth["images"]])
    refuse_duplicates(where, "class", run.classes)
    for kind, rows in run.predictions.items():
        for row in rows:
            if not all(map(math.isfinite, (row["score"], *row["bbox"]))):
                image = names.get(row["image_id"], row["image_id"])
                raise UserError(f"{where}: image {image!r} has a {kind} with score {row['score']}, box {row['bbox']}")
