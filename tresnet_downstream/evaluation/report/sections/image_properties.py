"""The score by image size and by the number of labels of an image."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tresnet_downstream.evaluation.bootstrap import Interval, interval
from tresnet_downstream.evaluation.detection_errors import NOT_COUNTED, RIGHT
from tresnet_downstream.evaluation.outcomes import DetectionRun, Run
from tresnet_downstream.evaluation.report import plots
from tresnet_downstream.evaluation.report.data import ReportData
from tresnet_downstream.evaluation.report.headline import Analysis
from tresnet_downstream.evaluation.report.options import Options
from tresnet_downstream.evaluation.report.parts import Column, Figure, Section, Table
from tresnet_downstream.evaluation.report.registry import section
from tresnet_downstream.evaluation.report.tasks.detection import DetectionAnalysis
from tresnet_downstream.evaluation.report.tasks.multilabel import MultilabelAnalysis
from tresnet_downstream.evaluation.report.tasks.single_label import SingleLabelAnalysis
from tresnet_downstream.files import open_regular
from tresnet_downstream.image_paths import lies_outside
from tresnet_downstream.images import DECODING_ERRORS, REFUSED_FORMATS

# Maximum number of files whose headers are read. With more images, evenly spaced ones are grouped by size.
_FILES = 5000
# The smallest number of labels of each group.
_LABELS = (0, 1, 2, 3, 4, 6, 11)
_BLOCK_ENTRIES = 2**22
_TEXTS = {
    "multilabel": "F1 over all entries of the images, at the threshold in use.",
    "single_label": "The share of the images that are right (top-1).",
    "detection": "F1 of the predictions above the thresholds in use, at IoU 0.5.",
}
_UNKNOWN_SIZES = "The score by image size is missing, since no image file can be read."


class Group(NamedTuple):
    """Images that are scored together.

    Attributes:
        name: name of the group.
        images: indices of the images.
    """

    name: str
    images: NDArray[np.int64]


@section("multilabel", "single_label", "detection", place=45)
def image_properties(data: ReportData[Analysis]) -> Section:
    """Computes a table and a bar chart for each way to group the images."""
    what = "objects" if data.task == "detection" else "labels"
    counts = [_counts(analysis) for analysis in data.analyses]
    sides = _sides(data.analyses[0].run, data.options)
    groupings = {"image_size": ("side of the image, pixels", _by_side(sides))}
    if data.task != "single_label":
        groupings[f"number_of_{what}"] = (f"{what} of the image", _by_number(counts[0]))
    weights = data.options.weights(len(sides))
    tables, figures, notes = [], [], _notes(sides)
    entries: list[dict[str, object]] = [{} for _ in counts]
    for key, (title, groups) in groupings.items():
        scores = [[_score(of_run[group.images], data.task) for group in groups] for of_run in counts]
        spreads = [[_interval(of_run, group, weights, data.task) for group in groups] for of_run in counts]
        if len(groups) == 1 and key != "image_size":
            notes.append(f"All images are in one group by number of {what}: {groups[0].name}.")
        if len(groups) > 1:
            tables.append(_table(data, title, groups, scores, spreads))
            figures.append(
                Figure(
                    f"score_by_{key}",
                    f"Score by {key.replace('_', ' ')}",
                    _TEXTS[data.task],
                    plots.bars([group.name for group in groups], scores, data.names, "score, %"),
                )
            )
        for entry, of_run, intervals in zip(entries, scores, spreads, strict=True):
            entry[f"by_{key}"] = [
                {"group": g.name, "images": len(g.images), "value": v, **({} if s is None else {"interval": s})}
                for g, v, s in zip(groups, of_run, intervals, strict=True)
            ]
    return Section(
        f"Score by image size{'' if data.task == 'single_label' else f' and by number of {what}'}",
        notes=notes,
        tables=tables,
        figures=figures,
        run_numbers=entries,
    )


def _notes(sides: NDArray[np.float64]) -> list[str]:
    known = sides[~np.isnan(sides)]
    if not len(known):
        return [_UNKNOWN_SIZES]
    notes = ["The side of an image is the square root of width times height; the groups are quarters of the images."]
    if known.min() == known.max():
        notes = [f"All images have the same size: the side of a square of the same area is {known[0]:.0f} pixels."]
    if len(known) < len(sides):
        notes.append(f"The sizes of {len(known):,} of the {len(sides):,} images were read.")
    return notes


def _table(
    data: ReportData[Analysis],
    title: str,
    groups: Sequence[Group],
    scores: Sequence[Sequence[float]],
    spreads: Sequence[Sequence[Interval | None]],
) -> Table:
    columns = [Column("group", title, "text"), Column("images", "images", "count")]
    rows: list[list[object]] = [[group.name, len(group.images)] for group in groups]
    for place, (of_run, intervals) in enumerate(zip(scores, spreads, strict=True)):
        columns.append(Column(f"score_{place}", f"score{data.of_run(place)}"))
        columns += [Column(f"interval_{place}", "95% interval", "interval")] if data.options.resamples else []
        for row, value, spread in zip(rows, of_run, intervals, strict=True):
            row += [value, *([spread] if data.options.resamples else [])]
    return Table(columns, rows)


def _score(counts: np.ndarray, task: str) -> float:
    """The score of images, in percent: F1 or, with one label per image, accuracy; NaN if it is undefined.

    Args:
        counts: (n, 3) numbers of right, wrong and missed predictions of each image, or their sums in resamples.
        task: task of the run.
    """
    right, wrong, missed = np.asarray(counts, np.float64).sum(0)
    total = 2 * right + wrong + missed if task != "single_label" else right + wrong
    return float(100 * (2 if task != "single_label" else 1) * right / total) if total else float("nan")


def _interval(counts: NDArray[np.int64], group: Group, weights: NDArray[np.int16] | None, task: str) -> Interval | None:
    if weights is None:
        return None
    of_group = counts[group.images].astype(np.float64)
    samples = np.array([_score(row[group.images, None] * of_group, task) for row in weights])
    return interval(samples, _score(of_group, task))


def _by_side(sides: NDArray[np.float64]) -> list[Group]:
    """Quarters of the images by size; one group if all sizes are equal, none if they are unknown."""
    known = np.flatnonzero(~np.isnan(sides))
    if not len(known):
        return []
    edges = np.unique(np.quantile(sides[known], (0.25, 0.5, 0.75), method="lower"))
    place = np.searchsorted(edges, sides[known], side="left")
    groups = []
    for number in np.unique(place):
        images = known[place == number]
        low, high = f"{sides[images].min():.0f}", f"{sides[images].max():.0f}"
        groups.append(Group(low if low == high else f"{low} to {high}", images))
    return groups


def _by_number(counts: NDArray[np.int64]) -> list[Group]:
    """Groups of the images by their number of labels, found and missed ones."""
    numbers = counts[:, 0] + counts[:, 2]
    place = np.searchsorted(_LABELS, numbers, side="right") - 1
    groups = []
    for number in np.unique(place):
        images = np.flatnonzero(place == number)
        low, high = _LABELS[number], (*_LABELS, np.inf)[number + 1] - 1
        name = f"{low}" if low == high else f"{low} or more" if np.isinf(high) else f"{low} to {high}"
        groups.append(Group(name, images))
    return groups


def _counts(analysis: Analysis) -> NDArray[np.int64]:
    """(N, 3) numbers of right, wrong and missed predictions of each image; unknown targets do not count."""
    if isinstance(analysis, MultilabelAnalysis):
        run = analysis.run
        rows = max(1, _BLOCK_ENTRIES // len(run.classes))
        blocks = []
        for first in range(0, len(run.images), rows):
            predicted = run.probabilities[first : first + rows] > analysis.limits
            targets = run.targets[first : first + rows]
            kinds = (predicted & (targets == 1), predicted & (targets == 0), ~predicted & (targets == 1))
            blocks.append(np.stack([kind.sum(1) for kind in kinds], 1))
        return np.concatenate(blocks)
    if isinstance(analysis, SingleLabelAnalysis):
        right = analysis.scores.rank == 0
        return np.stack([right, ~right, ~right], 1).astype(np.int64)
    assert isinstance(analysis, DetectionAnalysis)
    predictions, truth = analysis.run.predictions[analysis.kind], analysis.run.ground_truth
    index = {image: place for place, image in enumerate(sorted(analysis.run.image_ids))}
    categories = set(analysis.run.category_ids())
    counts = np.zeros((len(index), 3), np.int64)
    for row, kind in zip(analysis.shown, analysis.shown_errors.kind_of_detection.tolist(), strict=True):
        if kind != NOT_COUNTED:
            counts[index[predictions[row]["image_id"]], 0 if kind == RIGHT else 1] += 1
    for thing in truth["annotations"]:
        if thing["image_id"] in index and thing["category_id"] in categories and not thing["iscrowd"]:
            counts[index[thing["image_id"]], 2] += 1
    counts[:, 2] -= counts[:, 0]
    return counts


def _sides(run: Run, options: Options) -> NDArray[np.float64]:
    """(N,) square roots of the images' areas in pixels; NaN if unknown."""
    if isinstance(run, DetectionRun):
        sizes = {image["id"]: image["width"] * image["height"] for image in run.ground_truth["images"]}
        return np.sqrt([float(sizes[image]) for image in sorted(run.image_ids)])
    folder = options.images or (run.image_folder if run.scored_here else None)
    sides = np.full(len(run.images), np.nan)
    if folder is not None:
        some = np.unique(np.linspace(0, len(run.images) - 1, min(_FILES, len(run.images))).astype(np.int64))
        for number in options.track(some.tolist(), len(some), "image sizes"):
            name = run.images[number]
            if options.outside_paths or not lies_outside(folder, name):
                sides[number] = _side(os.path.join(folder, name))
    return sides


def _side(file: str) -> float:
    """The square root of the image's area, from the header of its file; NaN if it cannot be read."""
    try:
        with open_regular(file) as stream:
            formats = [name for name in Image.ID if name not in REFUSED_FORMATS]
            with Image.open(stream, formats=formats) as image:
                return float(np.sqrt(image.width * image.height))
    except DECODING_ERRORS:
        return float("nan")
