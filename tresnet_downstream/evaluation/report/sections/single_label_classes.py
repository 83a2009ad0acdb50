"""The classes of runs with one label for each image: a table, and accuracy against the number of images."""

from typing import Any

import numpy as np

from tresnet_downstream.evaluation.bootstrap import Interval, class_interval
from tresnet_downstream.evaluation.report import plots
from tresnet_downstream.evaluation.report.data import ReportData
from tresnet_downstream.evaluation.report.parts import Column, Figure, Section, Table, opening_class, worst_first
from tresnet_downstream.evaluation.report.registry import section
from tresnet_downstream.evaluation.report.tasks.single_label import SingleLabelAnalysis


@section("single_label", place=20)
def single_label_classes(data: ReportData[SingleLabelAnalysis]) -> Section:
    """Computes accuracy, precision and F1 of each class."""
    first = data.analyses[0].scores
    figure = Figure(
        "accuracy_against_support",
        "Accuracy against images",
        "A dot for each class. Classes with few images and a low accuracy need more data; for classes with many images "
        "and a low accuracy, check the labels.",
        plots.scatter(
            data.names, first.support, [a.scores.recall for a in data.analyses], data.classes, "images", "accuracy"
        ),
    )
    records = [class_records(analysis) for analysis in data.analyses]
    return Section(
        "Classes",
        tables=[_table(data, records)],
        figures=[figure],
        charts={"chosen": opening_class(first.recall, first.support)},
        class_numbers=records,
    )


def class_records(analysis: SingleLabelAnalysis) -> list[dict[str, Any]]:
    """A record of the scores of each class, in the order of the classes."""
    scores, samples = analysis.scores, analysis.resampled
    records = []
    for c, name in enumerate(scores.classes):
        spread = Interval(np.nan, np.nan)
        if samples is not None and scores.support[c]:
            spread = class_interval(samples.recall[:, c], float(scores.recall[c]))
        records.append(
            {
                "class": name,
                "recall": float(scores.recall[c]),
                "recall_low": spread.low,
                "recall_high": spread.high,
                "support": int(scores.support[c]),
                "precision": float(scores.precision[c]),
                "f1": float(scores.f1[c]),
            }
        )
    return records


def _table(data: ReportData[SingleLabelAnalysis], records: list[list[dict[str, Any]]]) -> Table:
    first = data.analyses[0]
    sampled = first.resampled is not None
    columns = [Column("class", "class", "text"), Column("support", "images", "count")]
    rows: list[list[object]] = [[record["class"], record["support"]] for record in records[0]]
    for place, analysis in enumerate(data.analyses):
        of_run = f", {analysis.name}" if len(data.analyses) > 1 else ""
        hint = "share of the class's images that are predicted as the class"
        columns.append(Column(f"recall_{place}", f"accuracy{of_run}", hint=hint))
        columns += [Column(f"interval_{place}", "95% interval", "interval")] if sampled else []
        for row, record in zip(rows, records[place], strict=True):
            row += [record["recall"], *([Interval(record["recall_low"], record["recall_high"])] if sampled else [])]
    if len(data.analyses) == 1:
        columns += [Column("precision", "precision"), Column("f1", "F1")]
        columns.append(Column("predicted_as", "most often mistaken for", "text"))
        most: dict[int, str] = {}
        for each in first.scores.confusions:
            most.setdefault(each.label, f"{data.classes[each.predicted]} ({each.count:,})")
        for c, (row, record) in enumerate(zip(rows, records[0], strict=True)):
            row += [record["precision"], record["f1"], most.get(c)]
    order = worst_first(first.scores.recall)
    return Table(columns, [rows[c] for c in order], [[c] for c in order], of_classes=True, chooses=True)
