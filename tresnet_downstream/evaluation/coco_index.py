"""Prepares COCO's evaluation for pycocotools or faster-coco-eval."""

# ruff: noqa: N802, N815 - the libraries' names

import contextlib
import gc
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, TypeAlias, TypedDict

import numpy as np

from tresnet_downstream.coco_records import CocoDetection, CocoInstances, RunLengths
from tresnet_downstream.errors import UserError

BACKENDS = ("pycocotools", "faster_coco_eval")
Records: TypeAlias = Sequence[Mapping[str, object]]


class Index(Protocol):
    """The class ``COCO`` of the libraries: images and objects, or detections, by their ids.

    Attributes:
        dataset: content of a COCO ``instances`` file.
    """

    dataset: Mapping[str, object]

    def createIndex(self) -> None:
        """Builds the index of ``dataset``."""

    def loadRes(self, detections: Records) -> "Index":
        """An index of detections in the images of this one."""

    def annToRLE(self, record: Mapping[str, object]) -> RunLengths:
        """The mask of an object or of a detection."""


class Parameters(Protocol):
    """The class ``Params`` of the libraries.

    Attributes:
        catIds: ids of the classes that are scored.
        imgIds: ids of the images that are scored.
        areaRng: smallest and greatest area of each of COCO's object sizes.
        iouThrs: IoU thresholds, 0.50 to 0.95.
    """

    catIds: list[int]
    imgIds: list[int]
    areaRng: list[list[float]]
    iouThrs: np.ndarray


class ImageMatches(TypedDict):
    """The matches of D detections with G objects of one class in one image, at T IoU thresholds.

    Attributes:
        gtIgnore: whether each object is ignored, G numbers.
        dtIds: ids of the detections, by descending score.
        dtScores: their scores.
        dtMatches: id of the object that each detection matches, or 0, (T, D).
        dtIgnore: whether each detection is ignored, (T, D).
    """

    gtIgnore: Sequence[int]
    dtIds: Sequence[int]
    dtScores: Sequence[float]
    dtMatches: np.ndarray
    dtIgnore: np.ndarray


class Evaluation(Protocol):
    """The class ``COCOeval`` of the libraries.

    Attributes:
        params: what is scored.
        evalImgs: after :meth:`evaluate`, the matches by class, size and image; None where there is nothing to match.
        eval: after :meth:`accumulate`, ``precision`` and ``recall``.
        stats: after :meth:`summarize`, COCO's scores.
    """

    params: Parameters
    evalImgs: Sequence[ImageMatches | None]
    eval: Mapping[str, np.ndarray]
    stats: np.ndarray

    def evaluate(self) -> None:
        """Matches the detections with the objects."""

    def accumulate(self) -> None:
        """Computes precision and recall from the matches."""

    def summarize(self) -> None:
        """Computes the scores from precision and recall."""


def chosen(
    ground_truth: CocoInstances,
    detections: Sequence[CocoDetection],
    classes: Sequence[str] | None,
    image_ids: Sequence[int] | None,
) -> tuple[tuple[str, ...], list[int], list[int]]:
    """The names and category ids of the chosen classes, in order, and the ids of the chosen images in ascending order.

    Raises:
        UserError: if the file lacks one of the classes or images.
    """
    by_name = {category["name"]: category["id"] for category in ground_truth["categories"]}
    names = tuple(classes) if classes is not None else tuple(sorted(by_name, key=lambda name: by_name[name]))
    if unknown := [name for name in names if name not in by_name]:
        raise UserError(f"the ground truth has no class {', '.join(map(repr, unknown[:3]))}")
    known = {image["id"] for image in ground_truth["images"]}
    scored = sorted(known) if image_ids is None else sorted(set(image_ids))
    if foreign := ({detection["image_id"] for detection in detections} | set(scored)) - known:
        raise UserError(
            f"the ground truth has no image with the id {min(foreign)}, which the detections or the scored images have"
        )
    return names, [by_name[name] for name in names], scored


def ready(
    ground_truth: CocoInstances,
    detections: Sequence[CocoDetection],
    category_ids: Sequence[int],
    image_ids: Sequence[int],
    iou_type: str = "bbox",
    backend: str = "pycocotools",
) -> Evaluation:
    """A ``COCOeval`` of these detections that has not been run. The detections get the ids 1, 2, ... in their order.

    Raises:
        UserError: the backend is unknown or not installed.
    """
    coco, evaluation = library(backend)
    # Ids begin at 1, since pycocotools uses the id 0 for "no match".
    annotations = [
        {**annotation, "id": number} for number, annotation in enumerate(ground_truth["annotations"], start=1)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = _index(coco, ground_truth, annotations)
        results = _index(coco, ground_truth, _boxes(detections)) if iou_type == "bbox" else _masks(truth, detections)
        # Otherwise faster-coco-eval computes further scores, which are not used here.
        options = {"extra_calc": False} if backend == "faster_coco_eval" else {}
        run = evaluation(truth, results, iou_type, **options)
    run.params.catIds, run.params.imgIds = list(category_ids), list(image_ids)
    return run


def sizes(ground_truth: CocoInstances) -> Index:
    """An index that has the images only; its ``annToRLE`` converts any mask in them to run lengths."""
    with contextlib.redirect_stdout(io.StringIO()):
        return _index(library("pycocotools")[0], ground_truth, [])


def library(name: str) -> tuple[Callable[[], Index], Callable[..., Evaluation]]:
    """The index and the evaluation of one of :data:`BACKENDS`.

    Raises:
        UserError: the backend is unknown or not installed.
    """
    try:
        if name == "pycocotools":
            from pycocotools import coco, cocoeval

            return coco.COCO, cocoeval.COCOeval
        if name == "faster_coco_eval":
            import faster_coco_eval

            return faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster
    except ImportError as error:
        extra = "detection" if name == "pycocotools" else "faster-coco-eval"
        raise UserError(f"{name} is not installed: pip install 'tresnet-downstream[{extra}]'") from error
    raise UserError(f"coco_eval={name!r} is unknown: choose {' or '.join(BACKENDS)}")


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Pauses Python's garbage collector.

    The dicts of the detections have no reference cycles, and the collector's search takes a fifth of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _index(coco: Callable[[], Index], content: Mapping[str, object], annotations: Records) -> Index:
    index = coco()
    index.dataset = {**content, "annotations": annotations}
    index.createIndex()
    return index


def _boxes(detections: Sequence[CocoDetection]) -> Records:
    """Adds the keys that the scoring of boxes needs to the detections, as ``loadRes`` does, in a third of its time."""
    return [
        {**detection, "id": number, "area": detection["bbox"][2] * detection["bbox"][3], "iscrowd": 0}
        for number, detection in enumerate(detections, start=1)
    ]


def _masks(truth: Index, detections: Sequence[CocoDetection]) -> Index:
    """An index of detected masks."""
    if not detections:
        return _index(type(truth), truth.dataset, [])
    # If a detection has a box, loadRes computes its area from the box, even when masks are scored.
    return truth.loadRes(
        [{key: value for key, value in detection.items() if key != "bbox"} for detection in detections]
    )
