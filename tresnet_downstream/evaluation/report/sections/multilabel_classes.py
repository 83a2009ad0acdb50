"""The classes of multi-label runs: a table, and precision against recall of the selected class."""

from typing import Any

import numpy as np

from tresnet_downstream.evaluation.bootstrap import Interval, class_interval, difference_interval
from tresnet_downstream.evaluation.report import plots
from tresnet_downstream.evaluation.report.data import ReportData
from tresnet_downstream.evaluation.report.parts import (
    Column,
    Figure,
    Section,
    Table,
    one_limit,
    opening_class,
    worst_first,
)
from tresnet_downstream.evaluation.report.registry import section
from tresnet_downstream.evaluation.report.tasks.multilabel import MultilabelAnalysis


@section("multilabel", place=20)
def multilabel_classes(data: ReportData[MultilabelAnalysis]) -> Section:
    """Computes AP, precision, recall, F1 and curves of each class, and AP against the number of positives."""
    analyses, first = data.analyses, data.analyses[0]
    selected = opening_class(first.scores.ap, first.scores.support)
    lines = [
        (f"curve-{place}", a.name, a.curves.recall[selected], a.curves.precision[selected])
        for place, a in enumerate(analyses)
    ]
    drawing, frame = plots.curves(lines, "recall", "precision")
    figures = [
        Figure(
            "precision_recall",
            "Precision and recall",
            "Each point is a threshold. AP is the mean precision over the positives.",
            drawing,
            chart="precision-recall",
            frame=frame,
        ),
        Figure(
            "ap_against_support",
            "AP against positives",
            "A dot for each class. Classes with few positives and a low AP need more data; for classes with many "
            "positives and a low AP, check the labels.",
            plots.scatter(
                data.names, first.scores.support, [a.scores.ap for a in analyses], data.classes, "positives", "AP"
            ),
        ),
    ]
    records = [class_records(analysis) for analysis in analyses]
    table = _table(first, records[0]) if len(analyses) == 1 else _comparison(data)
    return Section(
        "Classes",
        tables=[table],
        figures=figures,
        charts={"chosen": selected, "runs": [_chart(analysis) for analysis in analyses]},
        class_numbers=records,
    )


def class_records(analysis: MultilabelAnalysis) -> list[dict[str, Any]]:
    """A record of the scores of each class, in the order of the classes."""
    scores, curves = analysis.scores, analysis.curves
    spreads = [
        Interval(np.nan, np.nan)
        if analysis.ap_samples is None or not scores.support[c]
        else class_interval(analysis.ap_samples[:, c], float(scores.ap[c]))
        for c in range(len(scores.classes))
    ]
    return [
        {
            "class": name,
            "ap": float(scores.ap[c]),
            "ap_low": spreads[c].low,
            "ap_high": spreads[c].high,
            "support": int(scores.support[c]),
            "unknown": int(scores.unknown[c]),
            "precision": float(scores.precision[c]),
            "recall": float(scores.recall[c]),
            "f1": float(scores.f1[c]),
            "threshold": float(analysis.limits[c]),
            "best_threshold": float(curves.best_threshold[c]),
            "best_f1": float(curves.best_f1[c]),
        }
        for c, name in enumerate(scores.classes)
    ]


def _chart(analysis: MultilabelAnalysis) -> dict[str, object]:
    """The curves of all classes, rounded to visible precision; the last of each list is of all classes together."""
    curves, limits = analysis.curves, analysis.limits
    return {
        "threshold": [np.round(values, 4).tolist() for values in curves.thresholds],
        "precision": [np.round(values, 3).tolist() for values in curves.precision],
        "recall": [np.round(values, 3).tolist() for values in curves.recall],
        "used": np.round([*limits, one_limit(limits)], 4).tolist(),
        "best": np.round(curves.best_threshold, 4).tolist(),
    }


def _table(analysis: MultilabelAnalysis, records: list[dict[str, Any]]) -> Table:
    sampled = analysis.ap_samples is not None
    one_threshold = isinstance(analysis.threshold, float)
    columns = [
        Column("class", "class", "text"),
        Column("ap", "AP"),
        *([Column("interval", "95% interval", "interval", "of AP, by bootstrap over images")] if sampled else []),
        Column("support", "positives", "count"),
        Column("precision", "precision", hint="at the threshold in use"),
        Column("recall", "recall", hint="at the threshold in use"),
        Column("f1", "F1", hint="at the threshold in use"),
        *([] if one_threshold else [Column("threshold", "threshold", "threshold")]),
        Column("best_threshold", "best threshold", "threshold", "the one with the greatest F1 on these images"),
        Column("best_f1", "its F1"),
    ]
    keys = ("support", "precision", "recall", "f1", *(() if one_threshold else ("threshold",)))
    rows = []
    for record in records:
        spread = [Interval(record["ap_low"], record["ap_high"])] if sampled else []
        values = (record[key] for key in (*keys, "best_threshold", "best_f1"))
        rows.append([record["class"], record["ap"], *spread, *values])
    order = worst_first(analysis.scores.ap)
    return Table(columns, [rows[c] for c in order], [[c] for c in order], of_classes=True, chooses=True)


def _comparison(data: ReportData[MultilabelAnalysis]) -> Table:
    first = data.analyses[0]
    columns = [Column("class", "class", "text"), Column("support", "positives", "count")]
    rows: list[list[object]] = [[name, int(first.scores.support[c])] for c, name in enumerate(data.classes)]
    for place, analysis in enumerate(data.analyses):
        columns += [Column(f"ap_{place}", f"AP {analysis.name}"), Column(f"f1_{place}", f"F1 {analysis.name}")]
        if place:
            columns.append(Column(f"difference_{place}", f"AP minus {first.name}", "difference"))
        if place and analysis.ap_samples is not None:
            columns.append(Column(f"interval_{place}", "95% interval", "interval"))
        for c, row in enumerate(rows):
            row += [float(analysis.scores.ap[c]), float(analysis.scores.f1[c])]
            difference = float(analysis.scores.ap[c] - first.scores.ap[c])
            row += [difference] if place else []
            if place and analysis.ap_samples is not None and first.ap_samples is not None:
                row.append(difference_interval(analysis.ap_samples[:, c] - first.ap_samples[:, c], difference))
    order = worst_first(first.scores.ap)
    return Table(columns, [rows[c] for c in order], [[c] for c in order], of_classes=True, chooses=True)
