"""The scores of `detection_scores` as a table for a terminal, as JSON and as CSV."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tresnet_downstream.evaluation.detection_scores import HEADLINE, DetectionScores
from tresnet_downstream.evaluation.result_files import csv_text, json_text, plain, write_files
from tresnet_downstream.evaluation.terminal_tables import aligned, class_table, percent, printable

_COLUMNS = ("iou_type", "class", "ap", "ap50", "ap75", "ar100", "support")


def format_detection_table(scores: DetectionScores, names: str = "") -> str:
    """A table of the scores for a terminal: COCO's twelve scores, then the classes by ascending AP.

    With more than 30 classes, the 15 worst and the 5 best are shown. Classes without an object have no row.

    Args:
        scores: The result of `detection_scores`.
        names: The title of the table.

    Returns:
        Lines without a trailing newline; scores in percent.

    Examples:
        >>> from tresnet_downstream.evaluation import detection_scores
        >>> truth = {
        ...     "images": [{"id": 1}],
        ...     "categories": [{"id": 1, "name": "cat"}],
        ...     "annotations": [
        ...         {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0}
        ...     ],
        ... }
        >>> detections = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.9}]
        >>> format_detection_table(detection_scores(truth, detections)).splitlines()[0]
        'AP 100.00  images 1  classes 1  boxes 1  detections 1'
    """
    objects = "masks" if scores.iou_type == "segm" else "boxes"
    counts = f"images {scores.num_images:,}  classes {len(scores.classes):,}  {objects} {scores.support.sum():,}"
    rows = [[label, percent(scores.headline[key])] for key, label in HEADLINE.items()]
    blocks = [
        [names] if names else [],
        [f"AP {percent(scores.headline['AP'])}  {counts}  detections {scores.num_detections:,}"],
        aligned(["", objects], rows),
        _class_rows(scores),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def write_detection_scores(
    scores: Mapping[str, DetectionScores], folder: str | Path, extra: Mapping[str, object] | None = None
) -> list[Path]:
    """Writes ``scores.json`` and ``per_class.csv``.

    Scores are in percent and not rounded. NaN is null in the JSON and empty in the CSV.

    Args:
        scores: The results of `detection_scores`, by kind: ``bbox``, ``segm``.
        folder: The folder to write to; it is created if it does not exist.
        extra: Further entries about the run, under the key "run".

    Returns:
        The paths.

    Raises:
        UserError: If the folder cannot be written to.
    """
    content = {
        "format": "tresnet_downstream.detection_scores",
        "version": 1,
        **{
            kind: {"headline": _headline(of_kind), "per_class": _per_class(of_kind)} for kind, of_kind in scores.items()
        },
        "run": extra or {},
    }
    rows = [row for of_kind in scores.values() for row in _per_class(of_kind)]
    texts = {"scores.json": json_text(content), "per_class.csv": csv_text(_COLUMNS, rows)}
    return write_files(folder, texts)


def _headline(scores: DetectionScores) -> dict[str, float]:
    counts = {"num_images": scores.num_images, "num_detections": scores.num_detections}
    return {**scores.headline, **counts, "num_classes": len(scores.classes)}


def _class_rows(scores: DetectionScores) -> list[str]:
    present = np.flatnonzero(~np.isnan(scores.ap))
    order = present[np.argsort(scores.ap[present], kind="stable")]
    columns = (scores.ap, scores.ap50, scores.ap75, scores.ar)
    return class_table(
        ["class, lowest AP first", "AP", "AP50", "AP75", "AR100", "support"],
        [
            [printable(scores.classes[c]), *(percent(values[c]) for values in columns), f"{scores.support[c]:,}"]
            for c in order
        ],
    )


def _per_class(scores: DetectionScores) -> list[dict[str, object]]:
    columns = (scores.ap, scores.ap50, scores.ap75, scores.ar, scores.support)
    values = zip(scores.classes, *(plain(column) for column in columns), strict=True)
    return [dict(zip(_COLUMNS, (scores.iou_type, *row), strict=True)) for row in values]
