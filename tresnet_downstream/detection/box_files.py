"""Reading and checking of box annotations: faults are reported in one line, and dropped boxes are counted."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from tresnet_downstream.box_faults import box_fault, fit_as_corners, other_convention, reach_beyond_edge
from tresnet_downstream.coco_records import CocoAnnotation
from tresnet_downstream.coco_shapes import is_box, is_crowd_flag, is_mask, is_number
from tresnet_downstream.errors import UserError
from tresnet_downstream.formats import FORMATS, LabelledImages, format_of
from tresnet_downstream.formats.coco import whole_numbers
from tresnet_downstream.limits import excess, limit
from tresnet_downstream.text_files import refuse_duplicates

# Faults for which a box is dropped, with their names in messages.
_DROPPED = {"without-area": "without area", "outside": "outside the image"}


def read_boxes(
    path: str,
    labelled: bool = True,
    masks: bool = False,
    trusted: bool = False,
    classes: Sequence[str] | None = None,
) -> tuple[LabelledImages, Counter[str], str]:
    """Reads a COCO or VOC file of boxes, and drops boxes that have no area inside their image.

    If `area` is missing or not above 0, it is set to the area of the box.

    Args:
        path: path of the file.
        labelled: whether it must contain annotations; files of COCO's test images do not.
        masks: whether each annotation must have a mask.
        trusted: whether boxes are accepted although they seem to have another format.
        classes: the first classes, in this order; other classes follow. A COCO file has its own order.

    Returns:
        the file; the number of dropped boxes by reason; and a text about boxes that reach beyond the edge of their
        image, or an empty string.

    Raises:
        UserError: if the file is missing or malformed, or lacks image sizes; if a box, a mask or `iscrowd` is invalid;
            or if the boxes are not left, top, width, height in pixels.
    """
    file = _read(path, labelled, classes)
    sizes = _sizes(path, file)
    annotations = file.content["annotations"]
    refuse_duplicates(path, "annotation id", whole_numbers(path, "annotations", annotations, "id").tolist())
    for annotation in annotations:
        _check_values(path, annotation)
    boxes = np.array([annotation["bbox"] for annotation in annotations], float).reshape(-1, 4)
    if not trusted and (convention := other_convention(boxes, np.array(sizes, float).reshape(-1, 2)[file.image_of])):
        raise UserError(
            f"{path}: {convention}; tresnet check checks the whole file, and trust_boxes=True accepts the boxes "
            "unchanged"
        )
    faults = [
        box_fault(annotation["bbox"], sizes[image_of])
        for annotation, image_of in zip(annotations, file.image_of, strict=True)
    ]
    dropped = Counter(_DROPPED[fault] for fault in faults if fault in _DROPPED)
    beyond = [place for place, fault in enumerate(faults) if fault == "beyond-edge"]
    valid = [place for place, fault in enumerate(faults) if fault not in _DROPPED]
    if masks:
        _require_masks(path, [annotations[place] for place in valid], [sizes[file.image_of[place]] for place in valid])
    text = _beyond_edge(boxes[beyond], [sizes[file.image_of[place]] for place in beyond], len(boxes))
    file.content["annotations"] = [_with_area(annotations[place]) for place in valid]
    return file, dropped, text


def _read(path: str, labelled: bool, classes: Sequence[str] | None) -> LabelledImages:
    """Reads the file. Objects marked as difficult are ignored like COCO's crowds."""
    form = format_of(path)
    if not form.has_boxes:
        others = " or ".join(f"{suffix} ({each.name})" for suffix, each in FORMATS.items() if each.has_boxes)
        raise UserError(f"{path}: has no boxes, which detectors need; give a file of {others}")
    file = form.read(path, classes, others=True) if labelled or not form.read_unlabelled else form.read_unlabelled(path)
    for place in np.flatnonzero(file.difficult).tolist():
        file.content["annotations"][place]["iscrowd"] = 1
    return file


def _sizes(path: str, file: LabelledImages) -> list[tuple[int, int]]:
    """Width and height of each image of the file, checked."""
    images = file.content["images"]
    sides = {key: whole_numbers(path, "images", images, key) for key in ("width", "height")}
    for key, values in sides.items():
        if (values < 1).any():
            raise UserError(f"{path}: an image has a `{key}` below 1, but boxes need the size of their image")
    sizes = list(zip(*(values.tolist() for values in sides.values()), strict=True))
    for image, (width, height) in zip(images, sizes, strict=True):
        if width * height > limit("pixels"):
            what = excess("pixels", f"{width} x {height} are too many pixels")
            raise UserError(f"{path}: image {image['file_name']!r}: {what}")
    return sizes


def _check_values(path: str, annotation: CocoAnnotation) -> None:
    box, number = annotation.get("bbox"), annotation["id"]
    if not is_box(box):
        raise UserError(f"{path}: annotation {number}: `bbox` is {box!r}, not four numbers: left, top, width, height")
    if not is_crowd_flag(annotation.get("iscrowd", 0)):
        raise UserError(f"{path}: annotation {number}: `iscrowd` is {annotation['iscrowd']!r}; write 0 or 1")


def _require_masks(path: str, annotations: Sequence[CocoAnnotation], sizes: Sequence[tuple[int, int]]) -> None:
    """Raises UserError if an annotation has no mask; the message has the numbers."""
    without = [
        annotation
        for annotation, (width, height) in zip(annotations, sizes, strict=True)
        if not is_mask(annotation.get("segmentation"), height, width)
    ]
    if not without:
        return
    lacking = sum(not annotation.get("segmentation") for annotation in without)
    if lacking == len(without):
        what = f"{lacking:,} of {len(annotations):,} annotations have no `segmentation`, the first is"
        raise UserError(
            f"{path}: {what} annotation {without[0]['id']}, but the detector needs masks (with_mask); add polygons or "
            "run lengths, or choose a detector without masks, such as configs/faster_rcnn_tresnet_m.py"
        )
    first = next(annotation for annotation in without if annotation.get("segmentation"))
    raise UserError(
        f"{path}: annotation {first['id']}: `segmentation` is neither polygons of three or more points near the image, "
        f"nor run lengths of its size; {len(without):,} of {len(annotations):,} annotations have no valid mask, "
        f"{lacking:,} of them no `segmentation`"
    )


def _with_area(annotation: CocoAnnotation) -> CocoAnnotation:
    area, (_, _, width, height) = annotation.get("area", 0.0), annotation["bbox"]
    # MMDetection ignores boxes of area 0, and scores are grouped by area.
    is_area = is_number(area) and float(area) > 0
    return {"iscrowd": 0, **annotation, "area": area if is_area else width * height}


def _beyond_edge(boxes: np.ndarray, sizes: Sequence[tuple[int, int]], count: int) -> str:
    """The text about boxes that reach beyond the edge of their image, of ``count`` boxes; empty if there are none."""
    if not len(boxes):
        return ""
    farthest = max(reach_beyond_edge(box, size) for box, size in zip(boxes.tolist(), sizes, strict=True))
    text = f"{len(boxes):,} of {count:,} boxes reach beyond the edge of their image, by up to {farthest:,.0f} pixels"
    fitting = int(fit_as_corners(boxes, np.array(sizes, float)).sum())
    return f"{text}; {fitting:,} of them would fit as left, top, right, bottom" if fitting else text
