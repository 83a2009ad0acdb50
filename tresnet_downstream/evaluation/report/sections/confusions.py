"""The pairs of classes that classifiers confuse."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tresnet_downstream.evaluation.mistakes import confusions as count_confusions
from tresnet_downstream.evaluation.report import plots
from tresnet_downstream.evaluation.report.data import ReportData
from tresnet_downstream.evaluation.report.parts import Column, Figure, Section, Table
from tresnet_downstream.evaluation.report.registry import section
from tresnet_downstream.evaluation.report.tasks.multilabel import MultilabelAnalysis
from tresnet_downstream.evaluation.report.tasks.single_label import SingleLabelAnalysis

# Number of classes in the plot and of pairs in the table: small enough to be read at a glance.
_PLOTTED, _LISTED = 20, 15
Pair = tuple[int, int, int, int]


@section("multilabel", place=50)
def multilabel_confusions(data: ReportData[MultilabelAnalysis]) -> Section:
    """Counts the classes that were missed in images in which another class was predicted by mistake."""
    tables, figures, numbers = [], [], []
    for place, analysis in enumerate(data.analyses):
        run, limits = analysis.run, analysis.limits
        counts = count_confusions(run.probabilities, run.targets, limits)
        pairs = counts.pairs(_LISTED)
        weight = counts.count.sum(0) + counts.count.sum(1)
        some = np.sort(np.argsort(-weight, kind="stable")[:_PLOTTED])
        some = some[weight[some] > 0]
        columns = [
            Column("missed", f"present, but missed{data.of_run(place)}", "text"),
            Column("found", "predicted by mistake", "text"),
            Column("images", "images", "count"),
            Column("share", "of the missed, %", hint="share of the images in which the first was missed"),
        ]
        text = (
            "Rows: missed classes. Columns: classes predicted by mistake. Cells: number of images. The classes with "
            "the most confusions."
        )
        if pairs:
            tables.append(_table(data.classes, columns, pairs))
            classes = counts.labels[some].tolist()
            figures.append(
                Figure(
                    f"confusions{data.run_suffix(place)}",
                    f"Missed and predicted by mistake{data.of_run(place)}",
                    text,
                    plots.matrix(
                        counts.count[np.ix_(some, some)],
                        [data.classes[c] for c in classes],
                        "present, but missed",
                        "predicted by mistake",
                        classes,
                    ),
                )
            )
        entries = [{"missed": data.classes[i], "found": data.classes[j], "images": n} for i, j, n, _ in pairs]
        numbers.append({"confusions": entries})
    notes = [] if tables else ["In no image was one class missed and another predicted by mistake."]
    return Section("Confused classes", notes=notes, tables=tables, figures=figures, run_numbers=numbers)


@section("single_label", place=50)
def single_label_confusions(data: ReportData[SingleLabelAnalysis]) -> Section:
    """Counts the images of each class that were predicted as another class."""
    tables, figures, numbers = [], [], []
    for place, analysis in enumerate(data.analyses):
        scores = analysis.scores
        pairs = [(c.label, c.predicted, c.count, int(scores.support[c.label])) for c in scores.confusions]
        columns = [
            Column("label", f"label{data.of_run(place)}", "text"),
            Column("predicted", "predicted as", "text"),
            Column("images", "images", "count"),
            Column("share", "of the class, %"),
        ]
        if pairs:
            tables.append(_table(data.classes, columns, pairs[:_LISTED]))
            some = _most_confused(pairs, len(data.classes))
            figures.append(
                Figure(
                    f"confusions{data.run_suffix(place)}",
                    f"Labels and predictions{data.of_run(place)}",
                    "Rows: labels. Columns: predictions. Cells: number of images. The classes with the most "
                    "confusions.",
                    plots.matrix(_counts(pairs, some), [data.classes[c] for c in some], "label", "predicted as", some),
                )
            )
        entries = [{"label": data.classes[i], "predicted": data.classes[j], "images": n} for i, j, n, _ in pairs]
        numbers.append({"confusions": entries[: 2 * _LISTED]})
    notes = [] if tables else ["Every image is predicted as its label."]
    return Section("Confused classes", notes=notes, tables=tables, figures=figures, run_numbers=numbers)


def _table(classes: Sequence[str], columns: Sequence[Column], pairs: Sequence[Pair]) -> Table:
    rows = [[classes[i], classes[j], count, 100 * count / of_class] for i, j, count, of_class in pairs]
    return Table(columns, rows, [(i, j) for i, j, _, _ in pairs])


def _most_confused(pairs: Sequence[Pair], num_classes: int) -> list[int]:
    weight = np.zeros(num_classes, np.int64)
    for label, predicted, count, _ in pairs:
        weight[label] += count
        weight[predicted] += count
    some = np.sort(np.argsort(-weight, kind="stable")[:_PLOTTED])
    return [int(c) for c in some if weight[c]]


def _counts(pairs: Sequence[Pair], some: Sequence[int]) -> NDArray[np.int64]:
    place = {c: number for number, c in enumerate(some)}
    counts = np.zeros((len(some), len(some)), np.int64)
    for label, predicted, count, _ in pairs:
        if label in place and predicted in place:
            counts[place[label], place[predicted]] = count
    return counts
