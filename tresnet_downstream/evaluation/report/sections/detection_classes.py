"""The classes of detectors: a table, and the curves of the selected class."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
from tresnet_downstream.evaluation.report.tasks.detection import IOU_50, DetectionAnalysis

_CURVE_POINTS = 100
# With more classes, a page has the curves of two IoU thresholds only.
_MANY_CLASSES = 200


@section("detection", place=20)
def detection_classes(data: ReportData[DetectionAnalysis]) -> list[Section]:
    """Computes AP and its variants for each class, and curves for the first kind of prediction."""
    sections = []
    for place, (kind, analyses) in enumerate(data.kinds.items()):
        first = analyses[0].scores
        selected = opening_class(first.ap, first.support)
        figures = [] if place else _curve_figures(data, selected)
        figures.append(
            Figure(
                f"ap_against_support{data.kind_suffix(kind)}",
                "AP against objects",
                "A dot for each class. Classes with few objects and a low AP need more data; for classes with many "
                "objects and a low AP, check the labels.",
                plots.scatter(
                    data.names, first.support, [a.scores.ap for a in analyses], data.classes, "objects", "AP"
                ),
            )
        )
        records = [class_records(analysis) for analysis in analyses]
        sections.append(
            Section(
                f"Classes{data.of_kind(kind)}",
                tables=[_table(analyses, records, chooses=place == 0)],
                figures=figures,
                charts={} if place else _charts(analyses, selected),
                class_numbers=records,
            )
        )
    return sections


def class_records(analysis: DetectionAnalysis) -> list[dict[str, Any]]:
    """A record of the scores of each class, in the order of the classes."""
    scores, records = analysis.scores, []
    by_size = 100 * scores.precision.mean((0, 1))  # (C, 4)
    for c, name in enumerate(scores.classes):
        spread = Interval(np.nan, np.nan)
        if analysis.ap_samples is not None and scores.support[c]:
            spread = class_interval(analysis.ap_samples[:, :, c].mean(1, dtype=np.float64), float(scores.ap[c]))
        curve = analysis.curves[c]
        at_best = [np.nan] * 3
        if curve.best is not None:
            at_best = [100 * float(column[curve.best]) for column in (curve.precision, curve.recall, curve.f1)]
        records.append(
            {
                "kind": analysis.kind,
                "class": name,
                "ap": float(scores.ap[c]),
                "ap_low": spread.low,
                "ap_high": spread.high,
                "ap50": float(scores.ap50[c]),
                "ap75": float(scores.ap75[c]),
                "ap_small": float(by_size[c, 1]),
                "ap_medium": float(by_size[c, 2]),
                "ap_large": float(by_size[c, 3]),
                "ar100": float(scores.ar[c]),
                "support": int(scores.support[c]),
                "threshold": float(analysis.limits[c]),
                "best_threshold": curve.best_threshold,
                "best_precision": at_best[0],
                "best_recall": at_best[1],
                "best_f1": at_best[2],
            }
        )
    return records


def _curve_figures(data: ReportData[DetectionAnalysis], selected: int) -> list[Figure]:
    precision = [_precision_curves(a)[IOU_50][selected] for a in data.analyses]
    recalls = np.linspace(0, 1, data.analyses[0].scores.precision.shape[1])
    lines = [
        (f"curve-{place}", name, recalls if len(values) else values, values)
        for place, (name, values) in enumerate(zip(data.names, precision, strict=True))
    ]
    drawing, frame = plots.curves(lines, "recall", "precision")
    text = "The greatest precision at each recall or a higher one."
    first = Figure("precision_recall", "Precision and recall", text, drawing, chart="precision-recall", frame=frame)
    return [first, *(_threshold_figure(data, place, selected) for place in range(len(data.analyses)))]


def _threshold_figure(data: ReportData[DetectionAnalysis], place: int, selected: int) -> Figure:
    analysis = data.analyses[place]
    curve = analysis.curves[selected]
    columns = (("precision", "precision", curve.precision), ("recall", "recall", curve.recall), ("f1", "F1", curve.f1))
    drawing, frame = plots.curves(
        [(key, legend, curve.thresholds, values) for key, legend, values in columns],
        "threshold",
        "score at IoU 0.5",
        [
            ("used", "threshold in use", float(analysis.limits[selected])),
            ("best", "greatest F1", curve.best_threshold),
        ],
    )
    return Figure(
        f"thresholds{data.run_suffix(place)}",
        f"Precision, recall and F1 by threshold{data.of_run(place)}",
        "At IoU 0.5. The command tresnet thresholds chooses thresholds on one split for use on another.",
        drawing,
        chart="thresholds",
        frame=frame,
        run=place,
    )


def _precision_curves(analysis: DetectionAnalysis) -> list[list[NDArray[np.float64]]]:
    """By IoU threshold, the (101,) precision of each class and last their mean; empty for a class without objects."""
    per_class = analysis.scores.precision[..., 0].transpose(0, 2, 1)  # (T, C, 101)
    present = ~np.isnan(per_class[0, :, 0])
    return [
        [
            *(values if there else values[:0] for values, there in zip(of_iou, present, strict=True)),
            of_iou[present].mean(0) if present.any() else of_iou[0, :0],
        ]
        for of_iou in per_class
    ]


def _charts(analyses: Sequence[DetectionAnalysis], selected: int) -> dict[str, object]:
    """The curves of all classes, rounded to visible precision; the last of each list is of all classes together."""
    first = analyses[0].scores
    thresholds = first.iou_thresholds
    some = [0, 5] if len(first.classes) > _MANY_CLASSES else list(range(len(thresholds)))
    runs = []
    for analysis in analyses:
        curves = [*analysis.curves, analysis.pooled]
        points = [curve.some(_CURVE_POINTS) for curve in curves]
        precision = _precision_curves(analysis)
        runs.append(
            {
                **{
                    key: [
                        np.round(getattr(c, of_curve)[p], digits).tolist() for c, p in zip(curves, points, strict=True)
                    ]
                    for key, of_curve, digits in (
                        ("threshold", "thresholds", 4),
                        ("precision", "precision", 3),
                        ("recall", "recall", 3),
                    )
                },
                "used": np.round([*analysis.limits, one_limit(analysis.limits)], 4).tolist(),
                "best": np.round([curve.best_threshold for curve in curves], 4).tolist(),
                "choices": [[np.round(values, 3).tolist() for values in precision[t]] for t in some],
            }
        )
    return {
        "chosen": selected,
        "choices": {"title": "at IoU", "names": [f"{thresholds[t]:.2f}" for t in some], "chosen": 0},
        "recalls": np.round(np.linspace(0, 1, first.precision.shape[1]), 3).tolist(),
        "runs": runs,
    }


def _table(analyses: Sequence[DetectionAnalysis], records: list[list[dict[str, Any]]], chooses: bool) -> Table:
    sampled = analyses[0].ap_samples is not None
    columns = [Column("class", "class", "text"), Column("support", "objects", "count")]
    rows: list[list[object]] = [[record["class"], record["support"]] for record in records[0]]
    if len(analyses) == 1:
        columns += [Column("ap", "AP"), *([Column("interval", "95% interval", "interval")] if sampled else [])]
        columns += [Column(key, title) for key, title in (("ap50", "AP50"), ("ap75", "AP75"), ("ar100", "AR100"))]
        columns += [
            Column("best_threshold", "best threshold", "threshold", "the greatest F1 at IoU 0.5 on these images"),
            Column("best_precision", "its precision"),
            Column("best_recall", "its recall"),
            Column("best_f1", "its F1"),
        ]
        keys = ("ap50", "ap75", "ar100", "best_threshold", "best_precision", "best_recall", "best_f1")
        for row, record in zip(rows, records[0], strict=True):
            spread = [Interval(record["ap_low"], record["ap_high"])] if sampled else []
            row += [record["ap"], *spread, *(record[key] for key in keys)]
    else:
        _add_runs(analyses, records, columns, rows)
    order = worst_first(analyses[0].scores.ap)
    return Table(columns, [rows[c] for c in order], [[c] for c in order], of_classes=True, chooses=chooses)


def _add_runs(
    analyses: Sequence[DetectionAnalysis],
    records: list[list[dict[str, Any]]],
    columns: list[Column],
    rows: list[list[object]],
) -> None:
    """Adds columns for each of several runs."""
    first, sampled = analyses[0], analyses[0].ap_samples is not None
    for place, (analysis, of_run) in enumerate(zip(analyses, records, strict=True)):
        columns += [Column(f"ap_{place}", f"AP {analysis.name}"), Column(f"ap50_{place}", f"AP50 {analysis.name}")]
        columns += [Column(f"difference_{place}", f"AP minus {first.name}", "difference")] if place else []
        columns += [Column(f"interval_{place}", "95% interval", "interval")] if place and sampled else []
        for c, (row, record) in enumerate(zip(rows, of_run, strict=True)):
            row += [record["ap"], record["ap50"]]
            difference = record["ap"] - records[0][c]["ap"]
            row += [difference] if place else []
            if place and analysis.ap_samples is not None and first.ap_samples is not None:
                both = analysis.ap_samples[:, :, c].astype(np.float64) - first.ap_samples[:, :, c]
                row.append(difference_interval(both.mean(1), difference))
