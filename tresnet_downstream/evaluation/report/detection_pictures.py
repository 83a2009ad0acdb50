"""The pictures of a detector's report, with objects and predictions."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tresnet_downstream.evaluation.detection_errors import KINDS, NOT_COUNTED
from tresnet_downstream.evaluation.report.detection_analysis import DetectionAnalysis
from tresnet_downstream.evaluation.report.options import Options
from tresnet_downstream.evaluation.report.parts import Box, Gallery, Picture, Section, one_limit
from tresnet_downstream.evaluation.report.thumbnails import thumbnails_of

_PICTURE_SIDE, _PICTURES = 400, 12


def picture_section(analysis: DetectionAnalysis, place: int, several: bool, options: Options) -> Section:
    """The pictures with the most errors above the thresholds in use, with objects and predictions."""
    given = options.thresholds is not None
    run, split = analysis.run, analysis.shown_errors
    thumbnails = thumbnails_of(run, options, _PICTURE_SIDE)
    predictions, objects = run.predictions[analysis.kind], run.ground_truth["annotations"]
    wrong: Counter[int] = Counter()
    found_in: dict[int, list[tuple[Mapping[str, Any], int]]] = {}
    for row, kind in zip(analysis.shown, split.kind_of_detection.tolist(), strict=True):
        image = predictions[row]["image_id"]
        if kind == NOT_COUNTED:
            continue
        wrong[image] += kind >= 0
        found_in.setdefault(image, []).append((predictions[row], kind))
    missed = set(split.missed.tolist())
    missed_in = Counter(objects[number]["image_id"] for number in missed)
    errors = wrong + missed_in
    images = {image["id"]: image for image in run.ground_truth["images"]}
    names = dict(zip(run.category_ids(), run.classes, strict=True))
    worst = sorted(errors, key=lambda image: (-errors[image], images[image]["file_name"]))[:_PICTURES]
    objects_in: dict[int, list[int]] = {image: [] for image in worst}
    for number, thing in enumerate(objects):
        if thing["image_id"] in objects_in and thing["category_id"] in names:
            objects_in[thing["image_id"]].append(number)

    def shown(image: int) -> Picture:
        record = images[image]
        boxes = []
        for number in objects_in[image]:
            name = names[objects[number]["category_id"]]
            # A crowd is neither found nor missed.
            name += ", crowd" if objects[number]["iscrowd"] else ""
            boxes.append(Box(_shares(objects[number]["bbox"], record), name, "missed" if number in missed else "truth"))
        count = sum(not objects[number]["iscrowd"] for number in objects_in[image])
        for found, kind in sorted(found_in.get(image, []), key=lambda pair: pair[0]["score"]):
            label = f"{names[found['category_id']]} {found['score']:.2f}"
            label += f", {KINDS[kind]}" if kind >= 0 else ""
            boxes.append(Box(_shares(found["bbox"], record), label, "wrong" if kind >= 0 else "right"))
        text = f"{wrong[image]} wrong, {missed_in[image]} missed of {count} objects"
        return thumbnails.picture(record["file_name"], f"{errors[image]} errors", "", text, boxes)

    suffix = f"_{place}" if several else ""
    limit = "that of each class"
    if not math.isnan(one := one_limit(analysis.limits)):
        limit = f"{one:.3f}{'' if given else ', which has the greatest F1 at IoU 0.5 here'}"
    gallery = Gallery(
        f"worst_pictures{suffix}",
        "The pictures with the most errors",
        f"Predictions above the threshold in use ({limit}): green if right, orange if wrong, with the kind of error; "
        "objects dashed, yellow if missed.",
        [shown(image) for image in worst],
        large=True,
    )
    note = thumbnails.note()
    title = "Pictures" + (f" of {analysis.name}" if several else "")
    return Section(title, notes=[note] if note else [], galleries=[gallery])


def _shares(box: Sequence[float], image: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """Left, top, width and height in shares of the picture, cut off at its edges."""
    left, top = max(box[0] / image["width"], 0.0), max(box[1] / image["height"], 0.0)
    right, bottom = (box[0] + box[2]) / image["width"], (box[1] + box[3]) / image["height"]
    return left, top, max(min(right, 1.0) - left, 0.0), max(min(bottom, 1.0) - top, 0.0)
