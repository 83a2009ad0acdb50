"""The distribution of scores: of positives and of negatives, or of right and of wrong predictions."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from tresnet_downstream.evaluation.detection_errors import RIGHT
from tresnet_downstream.evaluation.multilabel_scores import columns
from tresnet_downstream.evaluation.report import plots
from tresnet_downstream.evaluation.report.data import ReportData
from tresnet_downstream.evaluation.report.headline import Analysis
from tresnet_downstream.evaluation.report.parts import Figure, Section
from tresnet_downstream.evaluation.report.registry import section
from tresnet_downstream.evaluation.report.tasks.detection import DetectionAnalysis
from tresnet_downstream.evaluation.report.tasks.multilabel import MultilabelAnalysis
from tresnet_downstream.evaluation.report.tasks.single_label import SingleLabelAnalysis

_BINS = 25
# With more classes, the page has only the distribution of all classes together.
_MANY_CLASSES = 300
_LEGENDS = {
    "multilabel": ("positives", "negatives"),
    "single_label": ("right", "wrong"),
    "detection": ("right", "wrong"),
}
_TEXTS = {
    "multilabel": "The scores of the class in images that show it, and in images that do not.",
    "single_label": "The highest probability of each image, for right and for wrong predictions. Images belong to "
    "the predicted class.",
    "detection": "Right and wrong predictions at IoU 0.5, with any score.",
}
# (C + 1, bins): counts of the first and of the second kind; the last row is all classes together.
Counts = tuple[NDArray[np.int64], NDArray[np.int64]]


@section("multilabel", "single_label", "detection", place=35)
def distributions(data: ReportData[Analysis]) -> Section:
    """Computes a histogram for each run, for the selected class."""
    figures, charts, numbers = [], [], []
    legends = _LEGENDS[data.task]
    for place, analysis in enumerate(data.analyses):
        counts = _counts(analysis)
        shares = [_shares(each) for each in counts]
        drawing, frame = plots.distribution([shares[0][-1], shares[1][-1]], legends)
        by_class = len(data.classes) <= _MANY_CLASSES
        figures.append(
            Figure(
                f"distribution{data.run_suffix(place)}",
                f"Distribution of scores{data.of_run(place)}",
                f"{_TEXTS[data.task]} Each outline adds up to 100%; the scale is logarithmic."
                + ("" if by_class else " All classes together."),
                drawing,
                chart="distribution" if by_class else "",
                frame=frame,
                run=place,
            )
        )
        charts.append([np.round(plots.log_height(each), 3).tolist() for each in shares] if by_class else [])
        entry = {"edges": np.linspace(0, 1, _BINS + 1), legends[0]: counts[0][-1], legends[1]: counts[1][-1]}
        numbers.append({"score_distribution": {key.replace(" ", "_"): value for key, value in entry.items()}})
    return Section("Scores of right and wrong", figures=figures, charts={"heights": charts}, run_numbers=numbers)


def _counts(analysis: Analysis) -> Counts:
    num_classes = len(analysis.run.classes)
    if isinstance(analysis, MultilabelAnalysis):
        pairs = columns(analysis.run.probabilities, analysis.run.targets)
        return _summed((_histogram(s[t == 1]), _histogram(s[t == 0])) for s, t in pairs)
    if isinstance(analysis, SingleLabelAnalysis):
        scores, right = analysis.scores.confidence, analysis.scores.rank == 0
        of_class = analysis.scores.predicted
    else:
        assert isinstance(analysis, DetectionAnalysis)
        kinds = analysis.errors.kind_of_detection
        index = {number: c for c, number in enumerate(analysis.run.category_ids())}
        rows = analysis.run.predictions[analysis.kind]
        counted = kinds >= RIGHT
        scores = np.array([row["score"] for row in rows], np.float64)[counted]
        of_class = np.array([index.get(row["category_id"], -1) for row in rows], np.int64)[counted]
        right = kinds[counted] == RIGHT
    return _summed(
        (_histogram(scores[(of_class == c) & right]), _histogram(scores[(of_class == c) & ~right]))
        for c in range(num_classes)
    )


def _histogram(scores: np.ndarray) -> NDArray[np.int64]:
    places = np.clip((scores * _BINS).astype(np.int64), 0, _BINS - 1)
    return np.bincount(places, minlength=_BINS)


def _summed(pairs: Iterable[Counts]) -> Counts:
    first, second = (np.array(each).reshape(-1, _BINS) for each in zip(*pairs, strict=True))
    return np.concatenate([first, first.sum(0)[None]]), np.concatenate([second, second.sum(0)[None]])


def _shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return shares
