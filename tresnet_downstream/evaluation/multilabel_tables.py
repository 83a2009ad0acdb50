"""The scores of `multilabel_scores` as a table for a terminal, as JSON and as CSV."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from tresnet_downstream.evaluation.frequency_groups import frequencies_as_json, frequency_table
from tresnet_downstream.evaluation.multilabel_scores import MultilabelScores
from tresnet_downstream.evaluation.result_files import csv_text, json_text, plain, write_files
from tresnet_downstream.evaluation.terminal_tables import aligned, class_table, percent, printable

_MOST_NAMES = 10
# Titles of the scores of an operating point in a terminal.
POINT_TITLES = {
    "CP": "CP   mean precision of the classes",
    "CR": "CR   mean recall of the classes",
    "CF1_mean_of_per_class_f1": "CF1  mean of the classes' F1",
    "CF1_of_mean_precision_recall": "CF1  F1 of CP and CR",
    "OP": "OP   precision of all entries",
    "OR": "OR   recall of all entries",
    "OF1": "OF1  F1 of all entries",
}
_COLUMNS = ("class", "ap", "support", "unknown", "precision", "recall", "f1")


def format_table(scores: MultilabelScores, names: str = "") -> str:
    """A table of the scores for a terminal: the means, then the classes by ascending average precision.

    With more than 30 classes, the 15 worst and the 5 best are shown. Classes without a positive are named above the
    table and have no row.

    Args:
        scores: The result of `multilabel_scores`.
        names: The title of the table, such as the names of the data and the checkpoint.

    Returns:
        Lines without a trailing newline; scores in percent.

    Examples:
        >>> from tresnet_downstream.evaluation import multilabel_scores
        >>> scores = multilabel_scores([[0.9, 0.2], [0.4, 0.7]], [[1, 0], [1, 1]], ("cat", "dog"))
        >>> format_table(scores, "two images").splitlines()[0]
        'two images'
    """
    blocks = [
        [names] if names else [],
        _headline(scores),
        frequency_table("mAP by frequency in training", scores.by_frequency),
        _operating_points(scores),
        _class_table(scores),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def write_scores(
    scores: MultilabelScores, folder: Path, extra: Mapping[str, object] | None = None
) -> tuple[Path, Path]:
    """Writes `scores.json` and `per_class.csv` into `folder`, which is created if it does not exist.

    Scores are in percent and not rounded. Numbers that are not finite are null in the JSON, which is strict, and empty
    in the CSV. Each file appears only when it is complete.

    Args:
        scores: The result of `multilabel_scores`.
        folder: The folder to write to.
        extra: Further entries about the run, under the key "run": plain data, numpy numbers and arrays, and paths.

    Returns:
        The paths of the JSON and of the CSV.

    Raises:
        UserError: If the folder cannot be written to.
        TypeError: If `extra` holds a value that JSON cannot represent.

    Examples:
        >>> from tresnet_downstream.evaluation import multilabel_scores
        >>> scores = multilabel_scores([[0.9, 0.2], [0.4, 0.7]], [[1, 0], [1, 1]], ("cat", "dog"))
        >>> [path.name for path in write_scores(scores, Path("scores"), {"checkpoint": "best.pth"})]
        ['scores.json', 'per_class.csv']
    """
    # Both texts are created before either is written, so that an error in `extra` leaves older files unchanged.
    texts = {"scores.json": _as_json(scores, extra or {}), "per_class.csv": csv_text(_COLUMNS, _per_class(scores))}
    json_path, csv_path = write_files(folder, texts)
    return json_path, csv_path


def _headline(scores: MultilabelScores) -> list[str]:
    lines = [f"mAP {percent(scores.mAP)}  images {scores.num_images:,}  classes {len(scores.classes):,}"]
    if scores.unknown.any():
        lines.append(f"left out for being unknown: {scores.unknown.sum():,} labels")
    if scores.absent:
        shown = ", ".join(map(printable, scores.absent[:_MOST_NAMES]))
        rest = len(scores.absent) - _MOST_NAMES
        more = f" and {rest:,} more" if rest > 0 else ""
        lines.append(f"left out of the means for having no positive ({len(scores.absent):,}): {shown}{more}")
    return lines


def _operating_points(scores: MultilabelScores) -> list[str]:
    limit = f"score > {scores.threshold:g}" if isinstance(scores.threshold, float) else "chosen thresholds"
    points = (vars(scores.at_threshold), vars(scores.at_top_k))
    rows = [[title, *(percent(point[name]) for point in points)] for name, title in POINT_TITLES.items()]
    return aligned(["", limit, f"top {scores.top_k}"], rows)


def _class_table(scores: MultilabelScores) -> list[str]:
    present = np.flatnonzero(scores.support > 0)
    order = present[np.argsort(scores.ap[present], kind="stable")]
    header = ["class, lowest AP first", "AP", "support", "precision", "recall", "F1"]
    return class_table(
        header,
        [
            [
                printable(scores.classes[c]),
                percent(scores.ap[c]),
                f"{scores.support[c]:,}",
                *(percent(values[c]) for values in (scores.precision, scores.recall, scores.f1)),
            ]
            for c in order
        ],
    )


def _per_class(scores: MultilabelScores) -> list[dict[str, object]]:
    """A dict with the keys `_COLUMNS` for each class, in order."""
    columns = (scores.ap, scores.support, scores.unknown, scores.precision, scores.recall, scores.f1)
    values = zip(scores.classes, *(plain(column) for column in columns), strict=True)
    return [dict(zip(_COLUMNS, row, strict=True)) for row in values]


def _as_json(scores: MultilabelScores, extra: Mapping[str, object]) -> str:
    content = {
        "format": "tresnet_downstream.multilabel_scores",
        "version": 1,
        "headline": {
            "mAP": scores.mAP,
            "num_images": scores.num_images,
            "num_classes": len(scores.classes),
            "absent": scores.absent,
        },
        "at_threshold": {"threshold": scores.threshold, **asdict(scores.at_threshold)},
        "at_top_k": {"top_k": scores.top_k, **asdict(scores.at_top_k)},
        **frequencies_as_json(scores.by_frequency, scores.classes),
        "per_class": _per_class(scores),
        "run": extra,
    }
    return json_text(content)
