"""Assigns the errors of detections to six kinds, and computes the AP that each kind costs.

After TIDE (Bolya, Foley, Hays and Hoffman, "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV
2020) and its release tidecv 1.0.1. Detections are matched in the order of their scores, the highest of an image first:
each takes the free object of its class with the greatest IoU, if that is at least 0.5. A detection without an object is
an error of the first kind that applies:

- localisation: its greatest IoU with an object of its class is from 0.1 to 0.5;
- classification: its greatest IoU with an object of another class is at least 0.5;
- duplicate: its IoU with an object of its class that another detection has taken is at least 0.5;
- background: its IoU with every object is at most 0.1;
- both: all others, with a wrong class and a wrong place.

An object is missed if no detection takes it, and none of the first two kinds would take it after correction.

The cost of a kind is the AP50 gained if an oracle corrects all errors of that kind and no others. A detection of the
first two kinds then takes the object by which it was judged, if the object is free and no other error of these kinds
with a higher score was judged by it; otherwise the detection is removed. Detections of the next three kinds are
removed. Missed objects are removed from the objects to detect.

Departures from tidecv, and why:

- A detection that takes no object but lies on a crowd of its class is ignored, as in COCO. tidecv leaves it out of AP,
  but still counts it as an error, lets it take an object from the missed ones, and has the oracles correct it. An IoU
  of 0.5 with a crowd is enough here, as in COCO; tidecv requires more.
- AP is averaged over the classes that have an object, as in COCO. tidecv also counts classes with detections only, with
  AP 0. Both count 0 for a class for which an oracle leaves only wrong detections and no object.
- Detections of equal score rank by image id and then in their order in the list, also after an oracle's corrections.
  With an oracle, tidecv ranks the wrong ones first, which lowers its gains.
- The 101 recalls are COCO's floating-point numbers; some of tidecv's differ in the last bit.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from tresnet_downstream.coco_records import CocoAnnotation, CocoDetection, CocoInstances, RunLengths
from tresnet_downstream.evaluation.coco_index import chosen, sizes
from tresnet_downstream.evaluation.detection_matches import interpolated_ap

KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
_CLASSIFICATION, _LOCALISATION, _BOTH, _DUPLICATE, _BACKGROUND, _MISSED = range(len(KINDS))
RIGHT, NOT_COUNTED = -1, -2
Shapes: TypeAlias = Sequence[CocoAnnotation] | Sequence[CocoDetection]

# The IoUs of TIDE, section 2.2, and the largest number of detections of an image, over all classes.
_FOREGROUND_IOU = 0.5
_BACKGROUND_IOU = 0.1
_MOST_DETECTIONS = 100


@dataclass(frozen=True, eq=False)
class ErrorSplit:
    """The errors of a set of detections by kind. AP50 is in percent, and NaN if there is no object.

    Attributes:
        counts: number of errors of each kind, by the keys of :data:`KINDS`: detections, or objects for ``missed``.
        ap50: AP50 of the uncorrected detections.
        gain: by kind, the increase of AP50 in points if all errors of that kind, and no others, were corrected; at
            least 0.
        kind_of_detection: for each detection its index in :data:`KINDS`, or :data:`RIGHT`, or :data:`NOT_COUNTED` if it
            is ignored or not among the 100 highest scores of its image; int8 of shape (detections,).
        missed: indices of the missed objects in ``ground_truth["annotations"]``, ascending, int64.
        false_positive_gain: increase of AP50, in points, if all wrong detections were removed.
        false_negative_gain: increase of AP50, in points, if all objects without a matching detection were removed.
    """

    counts: dict[str, int]
    ap50: float
    gain: dict[str, float]
    kind_of_detection: np.ndarray
    missed: np.ndarray
    false_positive_gain: float
    false_negative_gain: float


class _ImageErrors(NamedTuple):
    """The detections and objects of one image by their indices in the input, and the kind of each error."""

    rows: np.ndarray  # (D,) the detections that count, by descending score
    kinds: np.ndarray  # (D,) index into KINDS, RIGHT or NOT_COUNTED
    corrected_class: np.ndarray  # (D,) the index of the class with which an oracle makes the detection right, or -1
    objects: np.ndarray  # (G,) the objects that are no crowds
    missed: np.ndarray  # the missed ones among them


class _Ranking(NamedTuple):
    """R detections in the order in which equal scores are ranked."""

    classes: np.ndarray  # (R,) class indices
    scores: np.ndarray  # (R,)
    right: np.ndarray  # (R,) bool

    def ap50(self, objects: np.ndarray, counted: np.ndarray) -> float:
        """AP50 in percent: the mean over the ``counted`` (C,) classes with ``objects`` (C,) or detections."""
        order = np.argsort(-self.scores, kind="stable")
        classes, right = self.classes[order], self.right[order]
        aps = []
        for number in np.flatnonzero(counted):
            of_class = right[classes == number]
            right_rows = np.flatnonzero(of_class)
            if objects[number]:
                num_right, num_detections = np.arange(1.0, len(right_rows) + 1), right_rows + 1.0
                aps.append(interpolated_ap(num_right[:, None], num_detections[:, None], objects[[number]])[0])
            elif len(of_class):
                aps.append(0.0)
        return float(np.mean(aps)) if aps else float("nan")


def error_split(
    ground_truth: CocoInstances,
    detections: Sequence[CocoDetection],
    classes: Sequence[str] | None = None,
    image_ids: Sequence[int] | None = None,
    iou_type: str = "bbox",
) -> ErrorSplit:
    """Splits the errors of detections by TIDE's kinds, which the module describes.

    Of each image the 100 detections with the highest scores count, over all chosen classes.

    Args:
        ground_truth: the content of a COCO ``instances`` file.
        detections: in COCO's results format, as :func:`detection_scores` takes them.
        classes: names of the classes that count; None for all classes of the file.
        image_ids: ids of the images that count; None for all images of the file.
        iou_type: ``bbox``, or ``segm`` for masks.

    Raises:
        UserError: if pycocotools is not installed, or the file lacks one of the classes or images.
    """
    _, categories, images = chosen(ground_truth, detections, classes, image_ids)
    scenes = _Scenes(ground_truth, detections, categories, iou_type)
    of_images = [scenes.judge(image) for image in images]
    # The first, empty arrays give the result for zero images.
    columns = zip(_ImageErrors(*[np.zeros(0, np.int64)] * len(_ImageErrors._fields)), *of_images, strict=True)
    all_of = _ImageErrors(*map(np.concatenate, columns))

    objects = np.bincount(scenes.class_of_object[all_of.objects], minlength=len(categories))
    missed = np.bincount(scenes.class_of_object[all_of.missed], minlength=len(categories))
    counted = all_of.kinds != NOT_COUNTED
    rows, kinds = all_of.rows[counted], all_of.kinds[counted]
    ranking = _Ranking(scenes.class_of_detection[rows], scenes.scores[rows], kinds == RIGHT)
    ap50 = ranking.ap50(objects, objects > 0)
    gain = {}
    for number, kind in enumerate(KINDS):
        better = _corrected(ranking, kinds == number, all_of.corrected_class[counted])
        left = objects - missed if number == _MISSED else objects
        gain[kind] = float(np.maximum(better.ap50(left, objects > 0) - ap50, 0.0))
    only_right = _Ranking(*(values[ranking.right] for values in ranking))
    detected = np.bincount(only_right.classes, minlength=len(categories))
    counts = np.bincount(kinds[kinds >= 0], minlength=len(KINDS))
    counts[_MISSED] = len(all_of.missed)
    kind_of_detection = np.full(len(detections), NOT_COUNTED, np.int8)
    kind_of_detection[rows] = kinds
    return ErrorSplit(
        counts=dict(zip(KINDS, counts.tolist(), strict=True)),
        ap50=ap50,
        gain=gain,
        kind_of_detection=kind_of_detection,
        missed=np.sort(all_of.missed),
        false_positive_gain=only_right.ap50(objects, objects > 0) - ap50,
        false_negative_gain=ranking.ap50(detected, objects > 0) - ap50,
    )


def _corrected(ranking: _Ranking, wrong: np.ndarray, corrected_class: np.ndarray) -> _Ranking:
    """The ranking in which ``wrong`` (R,) detections have the ``corrected_class`` (R,), or are removed if it is -1."""
    now_right = wrong & (corrected_class >= 0)
    is_kept = ~wrong | now_right
    return _Ranking(
        classes=np.where(now_right, corrected_class, ranking.classes)[is_kept],
        scores=ranking.scores[is_kept],
        right=(ranking.right | now_right)[is_kept],
    )


class _Scenes:
    """Objects and detections by image.

    Attributes:
        class_of_object: index of each object's class among the chosen classes, -1 for other classes; int64.
        class_of_detection: the same for each detection.
        scores: score of each detection.
    """

    def __init__(
        self,
        ground_truth: CocoInstances,
        detections: Sequence[CocoDetection],
        categories: Sequence[int],
        iou_type: str,
    ) -> None:
        self._sizes = sizes(ground_truth)
        self._objects, self._detections, self._iou_type = ground_truth["annotations"], detections, iou_type
        place = {category: number for number, category in enumerate(categories)}
        self.class_of_object = np.fromiter((place.get(thing["category_id"], -1) for thing in self._objects), np.int64)
        self.class_of_detection = np.fromiter(
            (place.get(detection["category_id"], -1) for detection in detections), np.int64
        )
        self.scores = np.fromiter((detection["score"] for detection in detections), np.float64)
        self._crowd = np.fromiter((bool(thing.get("iscrowd")) for thing in self._objects), bool)
        self._objects_in = _by_image(self._objects, self.class_of_object >= 0)
        self._found_in = _by_image(detections, self.class_of_detection >= 0)

    def judge(self, image: int) -> _ImageErrors:
        """Splits the detections and finds the missed objects of one image."""
        rows_in_image = np.array(self._found_in[image], np.int64)
        rows = rows_in_image[np.argsort(-self.scores[rows_in_image], kind="stable")[:_MOST_DETECTIONS]]
        objects_in_image = np.array(self._objects_in[image], np.int64)
        objects, crowds = (
            objects_in_image[~self._crowd[objects_in_image]],
            objects_in_image[self._crowd[objects_in_image]],
        )
        if not len(rows):
            return _ImageErrors(rows, rows, rows, objects, objects)

        same_class = self.class_of_detection[rows][:, None] == self.class_of_object[objects]
        overlaps = self._overlaps(rows, objects, as_crowds=False)
        matched = _match(overlaps * same_class)
        free = ~np.isin(np.arange(len(objects)), matched)
        kinds, nearest = _split(overlaps, same_class, ~free)
        kinds[matched >= 0] = RIGHT
        same_crowd = self.class_of_detection[rows][:, None] == self.class_of_object[crowds]
        on_crowd = (self._overlaps(rows, crowds, as_crowds=True) * same_crowd >= _FOREGROUND_IOU).any(axis=1)
        kinds[on_crowd & (matched < 0)] = NOT_COUNTED

        # Of the detections that an object would make right, an oracle assigns it to the one with the highest score.
        correctable = np.flatnonzero(np.isin(kinds, (_CLASSIFICATION, _LOCALISATION)))
        correctable = correctable[free[nearest[correctable]]]
        assigned_objects, first = np.unique(nearest[correctable], return_index=True)
        corrected_class = np.full(len(rows), -1)
        corrected_class[correctable[first]] = self.class_of_object[objects[assigned_objects]]
        free[assigned_objects] = False
        return _ImageErrors(rows, kinds, corrected_class, objects, objects[free])

    def _overlaps(self, rows: np.ndarray, objects: np.ndarray, as_crowds: bool) -> np.ndarray:
        """IoU (D, G) of detections with objects; for crowds, the share of the detection's area inside the crowd."""
        from pycocotools import mask

        if not len(rows) or not len(objects):  # pycocotools returns a list if one of them is empty
            return np.zeros((len(rows), len(objects)))
        detections = self._shapes([self._detections[row] for row in rows])
        shapes = self._shapes([self._objects[number] for number in objects])
        overlaps: np.ndarray = mask.iou(detections, shapes, [as_crowds] * len(objects))
        return overlaps

    def _shapes(self, shapes: Shapes) -> np.ndarray | list[RunLengths]:
        """Boxes (n, 4) of left, top, width and height, or a list of run lengths."""
        if self._iou_type == "bbox":
            return np.array([shape["bbox"] for shape in shapes], np.float64)
        return [self._sizes.annToRLE(shape) for shape in shapes]


def _by_image(shapes: Shapes, counted: np.ndarray) -> dict[int, list[int]]:
    """Indices of the (n,) ``counted`` items of each image, in their order."""
    positions = defaultdict(list)
    for position in np.flatnonzero(counted).tolist():
        positions[shapes[position]["image_id"]].append(position)
    return positions


def _match(overlaps: np.ndarray) -> np.ndarray:
    """The object that each detection is matched with, or -1: (D,), from overlaps (D, G).

    The detections are sorted by descending score; each is matched with the free object of greatest overlap.
    """
    matched = np.full(len(overlaps), -1)
    left = overlaps.copy()
    for number in np.flatnonzero((overlaps >= _FOREGROUND_IOU).any(axis=1)):
        nearest = left[number].argmax()
        if left[number, nearest] >= _FOREGROUND_IOU:
            matched[number] = nearest
            left[:, nearest] = 0
    return matched


def _split(overlaps: np.ndarray, same_class: np.ndarray, is_detected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The kind of error (D,) that each detection is if it is wrong, and the object (D,) by which it is judged.

    Args:
        overlaps: (D, G).
        same_class: whether detection and object have the same class, (D, G).
        is_detected: whether a detection is matched with the object, (G,).
    """
    # An object without any overlap is added, so that a maximum exists also if there are no objects.
    own = np.pad(overlaps * same_class, ((0, 0), (0, 1)))
    other = np.pad(overlaps * ~same_class, ((0, 0), (0, 1)))
    of_own, of_other = own.max(axis=1), other.max(axis=1)
    localisation = (of_own >= _BACKGROUND_IOU) & (of_own <= _FOREGROUND_IOU)
    kinds = np.select(
        [
            localisation,
            of_other >= _FOREGROUND_IOU,
            (own * np.append(is_detected, False)).max(axis=1) >= _FOREGROUND_IOU,
            np.maximum(of_own, of_other) <= _BACKGROUND_IOU,
        ],
        [_LOCALISATION, _CLASSIFICATION, _DUPLICATE, _BACKGROUND],
        _BOTH,
    )
    return kinds, np.where(localisation, own.argmax(axis=1), other.argmax(axis=1))
