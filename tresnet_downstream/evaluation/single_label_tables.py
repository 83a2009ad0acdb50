"""The scores of `single_label_scores` as a table for a terminal, as JSON and as CSV."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tresnet_downstream.evaluation.frequency_groups import frequencies_as_json, frequency_table
from tresnet_downstream.evaluation.result_files import csv_text, json_text, plain, write_files
from tresnet_downstream.evaluation.single_label_scores import SingleLabelScores
from tresnet_downstream.evaluation.terminal_tables import aligned, class_table, percent, printable

_COLUMNS = ("class", "recall", "support", "precision", "f1")
_PAIRS_SHOWN, _PAIRS_WRITTEN = 10, 1000


def format_single_label_table(scores: SingleLabelScores, names: str = "") -> str:
    """A table of the scores for a terminal: the means, the most frequent confusions, and the classes, the worst first.

    With more than 30 classes, the 15 worst and the 5 best are shown. Classes without an image have no row.

    Args:
        scores: the result of `single_label_scores`.
        names: the title of the table, such as the name of the checkpoint.

    Returns:
        Lines without a trailing newline; scores in percent.

    Examples:
        >>> from tresnet_downstream.evaluation import single_label_scores
        >>> scores = single_label_scores([[0.7, 0.3], [0.6, 0.4]], [0, 1], ("cat", "dog"))
        >>> format_single_label_table(scores).splitlines()[0]
        'top-1 50.00  top-5 100.00  mean per class 50.00  images 2  classes 2'
    """
    lines = [
        f"top-1 {percent(scores.top1)}  top-5 {percent(scores.top5)}  mean per class {percent(scores.mean_per_class)}  "
        f"images {scores.num_images:,}  classes {len(scores.classes):,}",
        f"calibration error {percent(scores.calibration_error)}  log loss {scores.log_loss:.4f}",
    ]
    if never := int((scores.support == 0).sum()):
        lines.append(f"{never:,} classes have no image and are left out of the mean per class")
    groups = frequency_table("mean accuracy by frequency in training", scores.by_frequency)
    blocks = [[names] if names else [], lines, groups, _confusions(scores), _class_table(scores)]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def write_single_label_scores(
    scores: SingleLabelScores, folder: Path, extra: Mapping[str, object] | None = None
) -> tuple[Path, Path]:
    """Writes `scores.json` and `per_class.csv` into `folder`, which is created if it does not exist.

    Scores are in percent and not rounded. Numbers that are not finite are null in the JSON, which is strict, and empty
    in the CSV. The JSON has the 1,000 most frequent confusions.

    Args:
        scores: the result of `single_label_scores`.
        folder: the folder to write to.
        extra: further entries about the run, under the key "run".

    Returns:
        The paths of the JSON and of the CSV.

    Raises:
        UserError: if the folder cannot be written to.
    """
    names = scores.classes
    content = {
        "format": "tresnet_downstream.single_label_scores",
        "version": 1,
        "headline": {
            **headline(scores),
            "num_images": scores.num_images,
            "num_classes": len(names),
            "absent": [names[c] for c in np.flatnonzero(scores.support == 0)],
        },
        **frequencies_as_json(scores.by_frequency, names),
        "confusions": [
            {"label": names[each.label], "predicted": names[each.predicted], "images": each.count}
            for each in scores.confusions[:_PAIRS_WRITTEN]
        ],
        "per_class": _per_class(scores),
        "run": extra or {},
    }
    texts = {"scores.json": json_text(content), "per_class.csv": csv_text(_COLUMNS, _per_class(scores))}
    json_path, csv_path = write_files(folder, texts)
    return json_path, csv_path


def headline(scores: SingleLabelScores) -> dict[str, float]:
    """The scores over all images, by name."""
    keys = ("top1", "top5", "mean_per_class", "log_loss", "calibration_error")
    return {key: getattr(scores, key) for key in keys}


def _confusions(scores: SingleLabelScores) -> list[str]:
    rows = [
        [printable(scores.classes[each.label]), printable(scores.classes[each.predicted]), f"{each.count:,}"]
        for each in scores.confusions[:_PAIRS_SHOWN]
    ]
    return aligned(["class", "taken for", "images"], rows) if rows else []


def _class_table(scores: SingleLabelScores) -> list[str]:
    present = np.flatnonzero(scores.support > 0)
    order = present[np.argsort(scores.recall[present], kind="stable")]
    columns = (scores.precision, scores.f1)
    return class_table(
        ["class, lowest accuracy first", "accuracy", "support", "precision", "F1"],
        [
            [
                printable(scores.classes[c]),
                percent(scores.recall[c]),
                f"{scores.support[c]:,}",
                *(percent(values[c]) for values in columns),
            ]
            for c in order
        ],
    )


def _per_class(scores: SingleLabelScores) -> list[dict[str, object]]:
    """A dict with the keys `_COLUMNS` for each class, in order."""
    columns = (scores.recall, scores.support, scores.precision, scores.f1)
    values = zip(scores.classes, *(plain(column) for column in columns), strict=True)
    return [dict(zip(_COLUMNS, row, strict=True)) for row in values]
