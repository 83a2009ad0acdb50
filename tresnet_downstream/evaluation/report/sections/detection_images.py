"""Images with errors of detectors, each with its objects and predictions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from tresnet_downstream.coco_records import CocoDetection, CocoImage
from tresnet_downstream.evaluation.detection_errors import KINDS, NOT_COUNTED
from tresnet_downstream.evaluation.report.data import ReportData
from tresnet_downstream.evaluation.report.parts import Box, Card, Gallery, Mark, Section, one_limit
from tresnet_downstream.evaluation.report.registry import section
from tresnet_downstream.evaluation.report.small_images import SmallImages, small_images_of
from tresnet_downstream.evaluation.report.tasks.detection import DetectionAnalysis

_IMAGES, _MARKS = 24, 8
_TEXT = (
    "Right predictions are green, wrong ones orange with the kind of error. Objects are dashed white, missed objects "
    "dashed yellow."
)


@dataclass
class _Content:
    """Indices of the objects of an image, and pairs of a prediction and its kind of error (-1 if it is right)."""

    objects: list[int] = field(default_factory=list)
    predictions: list[tuple[CocoDetection, int]] = field(default_factory=list)
    wrong: int = 0
    missed: int = 0

    @property
    def errors(self) -> int:
        return self.wrong + self.missed


@section("detection", place=70)
def detection_images(data: ReportData[DetectionAnalysis]) -> Section:
    """Chooses the images with the most errors above the thresholds in use."""
    galleries, warnings = [], []
    for place, analysis in enumerate(data.analyses):
        run = analysis.run
        contents = _contents(analysis)
        images = {image["id"]: image for image in run.ground_truth["images"]}
        worst = sorted(contents, key=lambda image: (-contents[image].errors, images[image]["file_name"]))
        small = small_images_of(run, data.options)
        shown = [image for image in worst if contents[image].errors][:_IMAGES]
        cards = [_card(analysis, contents[image], images[image], small) for image in shown]
        limit = "the threshold of each class"
        if not math.isnan(one := one_limit(analysis.limits)):
            chosen_here = ", the threshold with the greatest F1 at IoU 0.5 on these images"
            origin = chosen_here if data.options.thresholds is None else ""
            limit = f"{one:.3f}{origin}"
        text = f"Predictions with a score above {limit}."
        title = f"Images{data.of_run(place)}" if data.of_run(place) else ""
        galleries.append(Gallery(f"images{data.run_suffix(place)}", title, text, cards))
        warnings += [small.note()] if small.note() else []
    return Section("Images with the most errors", notes=[_TEXT], galleries=galleries, warnings=warnings)


def _contents(analysis: DetectionAnalysis) -> dict[int, _Content]:
    """The content of each image that has objects, or predictions above the thresholds in use."""
    run, split = analysis.run, analysis.shown_errors
    predictions, objects = run.predictions[analysis.kind], run.ground_truth["annotations"]
    contents: dict[int, _Content] = {}
    for row, kind in zip(analysis.shown, split.kind_of_detection.tolist(), strict=True):
        if kind != NOT_COUNTED:
            content = contents.setdefault(predictions[row]["image_id"], _Content())
            content.predictions.append((predictions[row], kind))
            content.wrong += kind >= 0
    for number in split.missed.tolist():
        contents.setdefault(objects[number]["image_id"], _Content()).missed += 1
    categories = set(run.category_ids())
    for number, thing in enumerate(objects):
        if thing["image_id"] in contents and thing["category_id"] in categories:
            contents[thing["image_id"]].objects.append(number)
    return contents


def _card(analysis: DetectionAnalysis, content: _Content, image: CocoImage, small: SmallImages) -> Card:
    run = analysis.run
    objects, missed = run.ground_truth["annotations"], set(analysis.shown_errors.missed.tolist())
    index = {number: c for c, number in enumerate(run.category_ids())}
    boxes, classes = [], set()
    marks: dict[str, list[Mark]] = {"wrong": [], "missed": [], "right": []}
    for number in content.objects:
        c = index[objects[number]["category_id"]]
        kind = "missed" if number in missed else "truth"
        # A crowd counts as neither found nor missed.
        label = run.classes[c] + (", crowd" if objects[number]["iscrowd"] else "")
        boxes.append(Box(_relative(objects[number]["bbox"], image), label, kind))
        classes.add(c)
        if kind == "missed":
            marks["missed"].append(Mark(run.classes[c], "", "missed"))
    for prediction, error in sorted(content.predictions, key=lambda pair: pair[0]["score"]):
        c = index[prediction["category_id"]]
        kind = "wrong" if error >= 0 else "right"
        name, score = run.classes[c], f"{prediction['score']:.2f}"
        error_name = f", {KINDS[error]}" if error >= 0 else ""
        boxes.append(Box(_relative(prediction["bbox"], image), f"{name} {score}{error_name}", kind))
        marks[kind].insert(0, Mark(f"{name}{error_name}", score, kind))
        classes.add(c)
    count = sum(not objects[number]["iscrowd"] for number in content.objects)
    text = f"{content.wrong} wrong, {content.missed} missed of {count} objects"
    listed = [mark for of_kind in marks.values() for mark in of_kind[:_MARKS]]
    return small.card(image["file_name"], listed, sorted(classes), text, boxes)


def _relative(box: Sequence[float], image: CocoImage) -> tuple[float, float, float, float]:
    """Left, top, width and height relative to the image, clipped at its edges."""
    left, top = max(box[0] / image["width"], 0.0), max(box[1] / image["height"], 0.0)
    right, bottom = (box[0] + box[2]) / image["width"], (box[1] + box[3]) / image["height"]
    return left, top, max(min(right, 1.0) - left, 0.0), max(min(bottom, 1.0) - top, 0.0)
