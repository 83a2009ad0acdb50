"""Run folders: the results of scoring on disk. Reports and thresholds are computed from them without network or GPU.

A run folder contains ``run.json``, which describes what was scored and how, and

* for a multi-label run, ``probabilities.npy`` (float32) and ``targets.npy`` (int8), images x classes, and
  ``images.json``, the images' names;
* for a run with one label per image, ``probabilities.npy``, ``labels.npy`` (int32), the index of each image's class,
  and ``images.json``;
* for a detector, ``ground_truth.json.gz`` (COCO's instances format) and ``predictions_KIND.json.gz`` (COCO's results
  format) for the kinds ``bbox`` and ``segm``;
* for a classifier that was scored with explanations, ``explanations.npy`` (uint8, maps x side x side), the maps of its
  worst mistakes, and ``explanations.json``, the image and the class of each map;
* if images were left out, ``left_out.csv``, their names and the reasons.

The run folder of a network that predicts labels and boxes in one pass contains two run folders: ``labels``, a
multi-label run, and ``boxes``, a run of a detector.

``run.json`` is removed first and written last, so a folder that has it is complete. docs/reports.md describes its keys.
"""

import gzip
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, TypedDict, cast

import numpy as np

from tresnet_downstream.coco_records import CocoInstances
from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.frequency_groups import counts_as_json, counts_from_json
from tresnet_downstream.evaluation.origin import is_of_this_account, origin_of
from tresnet_downstream.evaluation.outcomes import (
    DetectionRun,
    Explanations,
    JointRun,
    MultilabelRun,
    Run,
    SingleLabelRun,
)
from tresnet_downstream.evaluation.result_files import csv_text, json_text, plain, read_versioned, write_files
from tresnet_downstream.evaluation.run_checks import (
    are_names,
    check_arrays,
    check_description,
    check_detections,
    check_explanations,
    check_labels,
)
from tresnet_downstream.files import named_if_unwritable, unpack_gzip, whole_file
from tresnet_downstream.json_reading import parse_json
from tresnet_downstream.text_files import read_text

FORMAT, VERSION = "tresnet_downstream.run", 1
DESCRIPTION, LEFT_OUT = "run.json", "left_out.csv"
# The folders of a joint run.
PARTS = ("labels", "boxes")
MAPS, MAP_PAIRS = "explanations.npy", "explanations.json"
TASKS: dict[type, str] = {MultilabelRun: "multilabel", SingleLabelRun: "single_label", DetectionRun: "detection"}
# The names of all files that a run folder of any task may have.
RUN_FILES = (
    *(DESCRIPTION, LEFT_OUT, "probabilities.npy", "targets.npy", "labels.npy", "images.json"),
    *(MAPS, MAP_PAIRS),
    *("ground_truth.json.gz", "predictions_bbox.json.gz", "predictions_segm.json.gz"),
)


class MapsDescription(TypedDict):
    """The entry ``explanations`` of ``run.json``.

    Attributes:
        method: how the maps were computed.
        maps: number of maps.
        side: height and width of a map.
    """

    method: str
    maps: int
    side: int


class _Common(TypedDict):
    """The arguments that all classes of runs take."""

    classes: tuple[str, ...]
    image_folder: str
    about: Mapping[str, object]
    scored_here: bool


class RunDescription(TypedDict, total=False):
    """The content of ``run.json``.

    Attributes:
        format: :data:`FORMAT`.
        version: version of the format.
        task: ``multilabel``, ``single_label`` or ``detection``.
        about: see :class:`MultilabelRun`.
        classes: class names.
        image_folder: absolute path of the images.
        origin: from :func:`origin_of`.
        explanations: the explanation maps of a classifier; absent without maps.
        training: from :func:`counts_as_json`; absent if unknown.
        num_images: number of images of a classifier's run.
        threshold: see :class:`MultilabelRun`.
        top_k: see :class:`MultilabelRun`.
        kinds: kinds of a detector's predictions, ``bbox`` and ``segm``.
        image_ids: ids of the images that a detector was scored on.
        coco_eval: library that computes a detector's scores.
    """

    format: str
    version: int
    task: str
    about: Mapping[str, object]
    classes: Sequence[str]
    image_folder: str
    origin: str
    explanations: MapsDescription
    training: Mapping[str, object]
    num_images: int
    threshold: float
    top_k: int
    kinds: Sequence[str]
    image_ids: Sequence[int]
    coco_eval: str


def write_multilabel_run(run: MultilabelRun, folder: str | Path) -> Path:
    """Writes a run folder, which replaces an older one; probabilities as float32, targets as int8.

    Raises:
        UserError: if a part of the run is not as :class:`MultilabelRun` describes, or the folder cannot be written to.

    Examples:
        >>> run = MultilabelRun(
        ...     probabilities=np.array([[0.9, 0.2]]),
        ...     targets=np.array([[1, 0]]),
        ...     images=["a.jpg"],
        ...     classes=("cat", "dog"),
        ...     image_folder="images",
        ...     threshold=0.5,
        ...     top_k=3,
        ...     about={"checkpoint": "best.pth"},
        ... )
        >>> write_multilabel_run(run, "run").name
        'run.json'
        >>> read_run("run").classes
        ('cat', 'dog')
    """
    written = replace(
        run,
        probabilities=np.asarray(run.probabilities, np.float32),
        targets=np.asarray(run.targets),
        images=[os.fspath(image) for image in run.images],
    )
    check_arrays(written, "the run")
    check_explanations(written, "the run")
    description = describe(run)
    check_description("the run", description)
    arrays = {"probabilities.npy": written.probabilities, "targets.npy": written.targets.astype(np.int8, copy=False)}
    return _write_classifier(written, folder, description, arrays)


def write_single_label_run(run: SingleLabelRun, folder: str | Path) -> Path:
    """Writes a run folder, which replaces an older one; probabilities as float32, labels as int32.

    Raises:
        UserError: if a part of the run is not as :class:`SingleLabelRun` describes, or the folder cannot be written to.
    """
    written = replace(
        run,
        probabilities=np.asarray(run.probabilities, np.float32),
        labels=np.asarray(run.labels),
        images=[os.fspath(image) for image in run.images],
    )
    check_labels(written, "the run")
    check_explanations(written, "the run")
    description = describe(run)
    check_description("the run", description)
    arrays = {"probabilities.npy": written.probabilities, "labels.npy": written.labels.astype(np.int32)}
    return _write_classifier(written, folder, description, arrays)


def _write_classifier(
    run: MultilabelRun | SingleLabelRun,
    folder: str | Path,
    description: Mapping[str, object],
    arrays: dict[str, np.ndarray],
) -> Path:
    """Writes the arrays and files that both kinds of classifiers have."""
    texts = {"images.json": json.dumps(run.images, ensure_ascii=False), **_left_out(run)}
    if run.explanations is not None:
        arrays[MAPS] = run.explanations.maps
        texts[MAP_PAIRS] = json.dumps(run.explanations.pairs, ensure_ascii=False)
    return _write(folder, description, arrays=arrays, texts=texts)


def write_detection_run(run: DetectionRun, folder: str | Path) -> Path:
    """Writes a run folder, which replaces an older one.

    An annotation without ``iscrowd`` is not a crowd; one without ``area`` gets the area of its box.

    Raises:
        UserError: if a part of the run is not as :class:`DetectionRun` describes, or the folder cannot be written to.
    """
    needed = plain(_needed(run.ground_truth, "segm" in run.predictions))
    written = replace(run, ground_truth=needed, predictions=plain(run.predictions))
    check_detections(written, "the run")
    description = describe(run)
    check_description("the run", description)
    contents = {"ground_truth": needed, **{f"predictions_{kind}": rows for kind, rows in written.predictions.items()}}
    packed = {f"{name}.json.gz": json.dumps(rows) for name, rows in contents.items()}
    return _write(folder, description, texts=_left_out(run), packed=packed)


def read_outcome(folder: str | Path) -> Run | JointRun:
    """Reads a run folder, or the two of a network that predicts labels and boxes.

    Raises:
        UserError: as :func:`read_run`, and if the two are from different checkpoints.
    """
    folder = Path(folder)
    if (folder / DESCRIPTION).is_file() or not all((folder / part / DESCRIPTION).is_file() for part in PARTS):
        return read_run(folder)
    labels, boxes = (read_run(folder / part) for part in PARTS)
    if not isinstance(labels, MultilabelRun) or not isinstance(boxes, DetectionRun):
        raise UserError(f"{folder}: `labels` must hold a multi-label run, and `boxes` a detector's; score again")
    if labels.about.get("checkpoint_sha256") != boxes.about.get("checkpoint_sha256"):
        raise UserError(f"{folder}: its labels and its boxes are of different checkpoints; score again")
    return JointRun(labels, boxes)


def read_run(folder: str | Path) -> Run:
    """Reads a run folder; the arrays of a classifier's run are memory-mapped.

    Raises:
        UserError: if it is not a run folder, is incomplete, has a newer version, or contains scores that are NaN.

    Examples:
        >>> run = read_run("work_dirs/digits_tresnet")  # doctest: +SKIP
        >>> run.probabilities.shape, run.classes[:2]  # doctest: +SKIP
        ((500, 10), ('0', '1'))
    """
    folder = Path(folder)
    if not (folder / DESCRIPTION).is_file():
        what = "has no run.json" if folder.is_dir() else "no such folder"
        raise UserError(f"{folder}: {what}; tresnet score writes run folders")
    content = read_versioned(folder / DESCRIPTION, FORMAT, VERSION, "tresnet score writes such files")
    check_description(str(folder / DESCRIPTION), content)
    description = cast(RunDescription, content)
    if description["task"] == "multilabel":
        return _read_multilabel(folder, description)
    if description["task"] == "single_label":
        return _read_single_label(folder, description)
    return _read_detection(folder, description)


def describe(run: Run) -> RunDescription:
    """The content of ``run.json``."""
    common: RunDescription = {
        "format": FORMAT,
        "version": VERSION,
        "task": TASKS[type(run)],
        "about": run.about,
        "classes": run.classes,
        # The path is absolute, since a report may be written from another working directory.
        "image_folder": os.path.abspath(run.image_folder),
    }
    if origin := origin_of(common["image_folder"]):
        common["origin"] = origin
    if isinstance(run, MultilabelRun | SingleLabelRun) and run.explanations is not None:
        count, side = run.explanations.maps.shape[:2]
        common["explanations"] = {"method": run.explanations.method, "maps": count, "side": side}
    if isinstance(run, MultilabelRun | SingleLabelRun) and run.training is not None:
        common["training"] = counts_as_json(run.training)
    if isinstance(run, MultilabelRun):
        return {**common, "num_images": len(run.images), "threshold": run.threshold, "top_k": run.top_k}
    if isinstance(run, SingleLabelRun):
        return {**common, "num_images": len(run.images)}
    kinds, image_ids = sorted(run.predictions), sorted(plain(run.image_ids))
    return {**common, "kinds": kinds, "image_ids": image_ids, "coco_eval": run.backend}


def _left_out(run: Run) -> dict[str, str]:
    """The name and content of the file that lists the images that were left out; empty if there are none."""
    rows = ({"image": name, "reason": reason} for name, reason in run.left_out.items())
    return {LEFT_OUT: csv_text(("image", "reason"), rows)} if run.left_out else {}


def _write(
    folder: str | Path,
    description: Mapping[str, object],
    arrays: Mapping[str, np.ndarray] | None = None,
    texts: Mapping[str, str] | None = None,
    packed: Mapping[str, str] | None = None,
) -> Path:
    folder = Path(folder)
    # The content is encoded before the old run is changed, so that an error leaves the old run intact.
    encoded: dict[str, str | bytes] = dict(texts or {})
    # Without a date in the header, the same content gives the same file.
    encoded |= {name: gzip.compress(text.encode(), mtime=0) for name, text in (packed or {}).items()}
    encoded[DESCRIPTION] = json_text(description)
    with named_if_unwritable(folder, "cannot write the run here", "choose another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / DESCRIPTION).unlink(missing_ok=True)
        for name in (LEFT_OUT, MAPS, MAP_PAIRS):
            (folder / name).unlink(missing_ok=True)
        for name, array in (arrays or {}).items():
            with whole_file(folder / name) as partial, partial.open("wb") as file:
                np.save(_Stream(file), array)
    write_files(folder, encoded)
    return folder / DESCRIPTION


class _Stream:
    """A file for ``np.save`` that is not one of Python's file classes.

    To Python's own file objects numpy writes in C, and reports no error if the last bytes cannot be written.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.write = file.write


def _read_multilabel(folder: Path, content: RunDescription) -> MultilabelRun:
    shape = (content["num_images"], len(content["classes"]))
    run = MultilabelRun(
        probabilities=_array(folder, "probabilities", shape),
        targets=_array(folder, "targets", shape),
        images=_images(folder, content["num_images"]),
        threshold=content["threshold"],
        top_k=content["top_k"],
        explanations=_explanations(folder, content),
        training=counts_from_json(content.get("training")),
        **_common(content),
    )
    check_arrays(run, str(folder))
    check_explanations(run, str(folder))
    return run


def _read_single_label(folder: Path, content: RunDescription) -> SingleLabelRun:
    count = content["num_images"]
    run = SingleLabelRun(
        probabilities=_array(folder, "probabilities", (count, len(content["classes"]))),
        labels=_array(folder, "labels", (count,)),
        images=_images(folder, count),
        explanations=_explanations(folder, content),
        training=counts_from_json(content.get("training")),
        **_common(content),
    )
    check_labels(run, str(folder))
    check_explanations(run, str(folder))
    return run


def _array(folder: Path, name: str, expected: tuple[int, ...]) -> np.ndarray:
    path = _there(folder, f"{name}.npy")
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy parses the header as Python code; damage can raise any error
        reason = " ".join(str(error).split())[:80]
        raise UserError(f"{path}: cannot be read ({reason}); score again") from error
    shape, dtype = getattr(array, "shape", "none"), getattr(array, "dtype", None)
    if shape != expected or dtype is None or dtype.kind not in "fiub":
        raise UserError(
            f"{path}: must have numbers of shape {expected} by run.json, but has shape {shape} and dtype {dtype}; "
            "score again"
        )
    return array


def _images(folder: Path, count: int) -> list[str]:
    path = _there(folder, "images.json")
    images: object = parse_json(read_text(path), path)
    if not are_names(images) or len(images) != count:
        raise UserError(f"{path}: is not a list of the {count} images that run.json counts; score again")
    return list(images)


def _explanations(folder: Path, content: RunDescription) -> Explanations | None:
    about = content.get("explanations")
    if about is None:
        return None
    maps = _array(folder, "explanations", (about["maps"], about["side"], about["side"]))
    path = _there(folder, MAP_PAIRS)
    pairs: object = parse_json(read_text(path), path)
    if not isinstance(pairs, list) or not all(are_names(pair) and len(pair) == 2 for pair in pairs):
        raise UserError(f"{path}: is not a list of images with classes; score again")
    return Explanations(about["method"], [(image, name) for image, name in pairs], maps)


def _common(content: RunDescription) -> _Common:
    return {
        "classes": tuple(content["classes"]),
        "image_folder": content["image_folder"],
        "about": content["about"],
        "scored_here": is_of_this_account(content.get("origin"), content["image_folder"]),
    }


def _read_detection(folder: Path, content: RunDescription) -> DetectionRun:
    run = DetectionRun(
        ground_truth=_unpacked(folder, "ground_truth"),
        predictions={kind: _unpacked(folder, f"predictions_{kind}") for kind in content["kinds"]},
        image_ids=content["image_ids"],
        backend=content["coco_eval"],
        **_common(content),
    )
    check_detections(run, str(folder))
    return run


def _unpacked(folder: Path, name: str) -> Any:
    path = _there(folder, f"{name}.json.gz")
    try:
        content = unpack_gzip(path)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({error}); score again") from error
    return parse_json(content, path)


def _there(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise UserError(f"{folder}: is incomplete: {name} is missing; score again")
    return folder / name


def _needed(ground_truth: CocoInstances, masks: bool) -> dict[str, object]:
    """The keys that scoring and drawing use; COCO's files also have captions, licences and links."""
    keys = ("id", "image_id", "category_id", "bbox", *(("segmentation",) if masks else ()))
    annotations = []
    for annotation in ground_truth["annotations"]:
        box = annotation.get("bbox") or (0, 0, 0, 0)
        annotations.append(
            {
                **_only(annotation, keys),
                "area": annotation.get("area", box[2] * box[3]),
                "iscrowd": annotation.get("iscrowd", 0),
            }
        )
    return {
        "images": [_only(image, ("id", "file_name", "width", "height")) for image in ground_truth["images"]],
        "annotations": annotations,
        "categories": [_only(category, ("id", "name")) for category in ground_truth["categories"]],
    }


def _only(record: Mapping[str, object], keys: Sequence[str]) -> dict[str, object]:
    return {key: record[key] for key in keys if key in record}
