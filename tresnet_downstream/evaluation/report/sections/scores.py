"""The main scores of each run, with 95% intervals."""

from collections.abc import Mapping, Sequence

import numpy as np

from tresnet_downstream.evaluation.outcomes import MultilabelRun, SingleLabelRun
from tresnet_downstream.evaluation.report.data import ReportData
from tresnet_downstream.evaluation.report.headline import Analysis
from tresnet_downstream.evaluation.report.options import Options
from tresnet_downstream.evaluation.report.parts import Column, Section, Table, some_of
from tresnet_downstream.evaluation.report.registry import section
from tresnet_downstream.evaluation.report.tasks.detection import DetectionAnalysis
from tresnet_downstream.evaluation.report.tasks.multilabel import MultilabelAnalysis
from tresnet_downstream.evaluation.report.tasks.single_label import SingleLabelAnalysis

_INTERVALS = (
    "Intervals come from {:,} bootstrap resamples of the images: basic intervals for means over classes, percentile "
    "intervals for single classes. They show how a score may vary on other images of the same kind, not how it may "
    "vary after another training."
)
_GROUPS = (
    "Head, middle and tail are classes by the number of training images that show them: thirds of the classes, unless "
    "cutoffs were set. The score of a group is the mean over its classes."
)
_MULTILABEL = (
    "AP treats entries of equal score as one step, as scikit-learn does, so the order of the images has no influence. "
    "Classes without a positive are left out of the means.",
    "P, R and F1 are precision, recall and F1. C before them stands for the mean over the classes, O for all entries "
    "together. Publications use CF1 for two different numbers, so both are listed.",
)
_DETECTION = (
    "AP follows COCO: the mean over classes and the IoU thresholds 0.50, 0.55, ... 0.95 of the precision at 101 "
    "recalls. At most 100 detections of a class count in each image. Equal scores rank by image id, so the order of "
    "the images in a file has no influence."
)


@section("multilabel", "single_label", "detection", place=10)
def scores(data: ReportData[Analysis]) -> list[Section]:
    """Computes the headline scores of each kind of prediction."""
    sections = []
    for kind, analyses in data.kinds.items():
        entries = [{score.key: score.as_json() for score in analysis.headline_scores()} for analysis in analyses]
        sections.append(
            Section(
                f"Scores{data.of_kind(kind)}",
                notes=_own_notes(analyses[0]),
                tables=[score_table(analyses)],
                footnotes=_footnotes(data, analyses[0]),
                numbers=_numbers(data),
                run_numbers=[_of_run(data, kind, a, entry) for a, entry in zip(analyses, entries, strict=True)],
            )
        )
    return sections


def score_table(analyses: Sequence[Analysis]) -> Table:
    """A table with a row for each score, and for each run its value and, with resamples, its interval."""
    per_run = [list(analysis.headline_scores()) for analysis in analyses]
    with_intervals = any(score.samples is not None for score in per_run[0])
    columns = [Column("score", "score, %", "text")]
    for place, analysis in enumerate(analyses):
        columns.append(Column(f"run_{place}", analysis.name if len(analyses) > 1 else "value"))
        columns += [Column(f"interval_{place}", "95% interval", "interval")] if with_intervals else []
    rows = []
    for same_score in zip(*per_run, strict=True):
        # Runs may have been scored at different thresholds.
        row: list[object] = [" / ".join(dict.fromkeys(score.title for score in same_score))]
        for score in same_score:
            row += [score.value, *([score.interval()] if with_intervals else [])]
        rows.append(row)
    return Table(columns, rows)


def _numbers(data: ReportData[Analysis]) -> dict[str, object]:
    first = data.analyses[0]
    numbers: dict[str, object] = {"thresholds": _thresholds(data.options), "bootstrap": _bootstrap(data.options)}
    if isinstance(first, MultilabelAnalysis):
        numbers["absent"] = first.scores.absent
    if isinstance(first, SingleLabelAnalysis):
        numbers["classes"] = first.run.classes
    return numbers


def _of_run(
    data: ReportData[Analysis], kind: str, analysis: Analysis, headline: Mapping[str, object]
) -> dict[str, object]:
    numbers: dict[str, object] = {"headline": {kind: headline} if kind else headline}
    if isinstance(analysis, MultilabelAnalysis):
        numbers |= {"threshold": analysis.threshold, "top_k": analysis.run.top_k}
    if isinstance(analysis, SingleLabelAnalysis):
        numbers["log_loss"] = analysis.scores.log_loss
    return numbers


def _bootstrap(options: Options) -> dict[str, object]:
    methods = {"method": "basic", "method_of_classes": "percentile"}
    return {"resamples": options.resamples, "seed": options.seed, "level": 0.95, **methods}


def _thresholds(options: Options) -> dict[str, object] | None:
    chosen = options.thresholds
    if chosen is None:
        return None
    return {
        "objective": chosen.objective,
        "scope": chosen.scope,
        "chosen_on": chosen.chosen_on,
        "source": chosen.source,
    }


def _footnotes(data: ReportData[Analysis], first: Analysis) -> list[str]:
    """How the scores are computed."""
    notes = list(_MULTILABEL) if isinstance(first, MultilabelAnalysis) else []
    notes += [_DETECTION] if isinstance(first, DetectionAnalysis) else []
    notes += [_INTERVALS.format(data.options.resamples)] if data.options.resamples else []
    return [*notes, *_group_notes(data)]


def _own_notes(first: Analysis) -> list[str]:
    """Notes on classes without positives or negatives, and on unknown entries."""
    if isinstance(first, MultilabelAnalysis):
        return _entry_notes(first)
    assert isinstance(first, SingleLabelAnalysis | DetectionAnalysis)
    absent = [name for name, count in zip(first.run.classes, first.scores.support, strict=True) if not count]
    what = ("object", "AP") if isinstance(first, DetectionAnalysis) else ("image", "accuracy")
    return [f"Classes without an {what[0]} here have no {what[1]}: {some_of(absent)}."] if absent else []


def _entry_notes(analysis: MultilabelAnalysis) -> list[str]:
    scores, notes = analysis.scores, []
    if scores.unknown.any():
        notes.append(f"{scores.unknown.sum():,} entries of unknown target are left out of every score.")
    if scores.absent:
        notes.append(f"Classes without a positive here have no AP: {some_of(scores.absent)}.")
    negatives = len(analysis.run.images) - scores.support - scores.unknown
    if always := [analysis.run.classes[c] for c in np.flatnonzero((negatives == 0) & (scores.support > 0))]:
        notes.append(
            f"Classes without a negative here have an AP of 100 for any network: {some_of(always)}. "
            "Images without any label may have been left out."
        )
    return notes


def _group_notes(data: ReportData[Analysis]) -> list[str]:
    """The rule of head, middle and tail, and a note if the runs were trained on other data."""
    if not data.groups:
        return []
    trained_on = {
        a.name: a.run.training
        for a in data.analyses
        if isinstance(a.run, MultilabelRun | SingleLabelRun) and a.run.training is not None
    }
    first, counts = next(iter(trained_on.items()))
    notes = [_GROUPS]
    if len(trained_on) < len(data.analyses) or any(other.images != counts.images for other in trained_on.values()):
        notes.append(f"The runs state different training data; head, middle and tail are those of {first}.")
    return notes
