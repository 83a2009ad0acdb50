"""The report of detectors' runs: what it shows, from ground truth and predictions alone."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.bootstrap import Interval, difference_interval
from tresnet_downstream.evaluation.detection_errors import KINDS
from tresnet_downstream.evaluation.detection_scores import SIZES
from tresnet_downstream.evaluation.outcomes import DetectionRun
from tresnet_downstream.evaluation.report import plots
from tresnet_downstream.evaluation.report.comparison import require_same
from tresnet_downstream.evaluation.report.detection_analysis import (
    IOU_50,
    DetectionAnalysis,
    analyse_detections,
    class_records,
)
from tresnet_downstream.evaluation.report.detection_numbers import as_json, charts, precision_curves
from tresnet_downstream.evaluation.report.detection_pictures import picture_section
from tresnet_downstream.evaluation.report.options import Options
from tresnet_downstream.evaluation.report.parts import (
    Column,
    Figure,
    Report,
    Section,
    Table,
    opening_class,
    some_of,
    text_of,
    worst_first,
)
from tresnet_downstream.evaluation.report.provenance import provenance_table
from tresnet_downstream.evaluation.report.score_rows import (
    INTERVALS,
    comparison_section,
    score_table,
)

_KINDS = {"bbox": "boxes", "segm": "masks"}
_RULES = (
    "COCO's rules: AP is the mean over classes and the IoU thresholds 0.50, 0.55, ... 0.95 of the "
    "precision at 101 recalls; at most 100 detections of a class count in each picture. Equal scores rank by image id, "
    "so that the order of the images in a file has no influence."
)
_ERRORS = (
    "The six kinds of TIDE (Bolya et al., 2020) at IoU 0.5, each detection under the first that fits: localisation "
    "(right class, IoU 0.1 to 0.5), classification (wrong class, IoU from 0.5), duplicate, background (IoU up to 0.1 "
    "with everything), both (wrong class, wrong place); missed are objects that nothing found. The gain is what AP50 "
    "would gain if that kind alone were put right; gains do not add up. Of each picture the 100 highest scores count."
)


def detection_report(runs: Sequence[DetectionRun], names: Sequence[str], options: Options) -> Report:
    """Gathers a report of one or more runs over the same images, objects and classes.

    Args:
        runs: from :func:`read_run`; the others are compared with the first.
        names: what to call them.
        options: see :class:`Options`; a detector's thresholds in use are those with the greatest F1 if none are given.

    Raises:
        UserError: the runs differ in images, objects or classes, or the thresholds lack a class.
    """
    for name, run in zip(names[1:], runs[1:], strict=True):
        _require_comparable((names[0], name), runs[0], run)
    first = runs[0]
    kinds = [kind for kind in _KINDS if all(kind in run.predictions for run in runs)]
    weights = options.weights(len(first.image_ids))
    sections = [Section("Where this comes from", tables=[provenance_table(names, runs, options.thresholds)])]
    of_kind = {
        kind: [analyse_detections(name, run, kind, weights, options) for name, run in zip(names, runs, strict=True)]
        for kind in kinds
    }
    for place, (kind, analyses) in enumerate(of_kind.items()):
        sections += _sections(analyses, options.resamples, _KINDS[kind] if len(kinds) > 1 else "", place == 0)
    for place, analysis in enumerate(of_kind[kinds[0]]):
        sections.append(picture_section(analysis, place, len(runs) > 1, options))
    main = of_kind[kinds[0]]
    summary = ", ".join(
        ("" if len(runs) == 1 else f"{a.name}: ")
        + f"AP {text_of(a.scores.headline['AP'], 'percent')}, AP50 {text_of(a.scores.headline['AP50'], 'percent')}"
        for a in main
    )
    return Report(
        title="Detection evaluation",
        summary=f"{summary} \N{MIDDLE DOT} {len(first.image_ids):,} images, {len(first.classes):,} classes",
        runs=names,
        sections=sections,
        scores=as_json(of_kind, options),
        charts={"": charts(main)},
    )


def _require_comparable(names: tuple[str, str], first: DetectionRun, second: DetectionRun) -> None:
    require_same("classes", names, first.classes, second.classes)
    require_same("kinds of predictions", names, sorted(first.predictions), sorted(second.predictions))
    require_same("images", names, list(_image_names(first).values()), list(_image_names(second).values()))
    if first.classes != second.classes:
        raise UserError(f"{names[0]} and {names[1]} cannot be compared: their classes stand in another order")
    if _image_names(first) != _image_names(second):
        raise UserError(f"{names[0]} and {names[1]} cannot be compared: their images have other ids")
    one, other = _objects(first), _objects(second)
    different = (one - other) | (other - one)
    if different:
        image = min(name for name, *_ in different)
        raise UserError(f"{names[0]} and {names[1]} cannot be compared: image {image!r} has other objects")


def _image_names(run: DetectionRun) -> dict[int, str]:
    scored = set(run.image_ids)
    return {image["id"]: image["file_name"] for image in run.ground_truth["images"] if image["id"] in scored}


def _objects(run: DetectionRun) -> Counter[Any]:
    images, classes = _image_names(run), dict(zip(run.category_ids(), run.classes, strict=True))
    return Counter(
        (
            images[given["image_id"]],
            classes[given["category_id"]],
            tuple(given["bbox"]),
            given["area"],
            bool(given["iscrowd"]),
            json.dumps(given.get("segmentation")),
        )
        for given in run.ground_truth["annotations"]
        if given["image_id"] in images and given["category_id"] in classes
    )


def _sections(analyses: Sequence[DetectionAnalysis], resamples: int, objects: str, interactive: bool) -> list[Section]:
    """What is shown of one kind; ``interactive`` for the one whose classes the page's script can choose."""
    of_kind = f" of {objects}" if objects else ""
    first, several = analyses[0], len(analyses) > 1
    notes = [_RULES, *([INTERVALS.format(resamples)] if resamples else [])]
    absent = [name for name, count in zip(first.scores.classes, first.scores.support, strict=True) if not count]
    if absent:
        notes.append(f"Without an object here, and so without AP: {some_of(absent)}.")
    tables = [score_table(analyses)]
    if several:
        compared = [comparison_section(analyses, ["AP"], len(first.run.image_ids))]
    sections = [Section(f"Scores{of_kind}", notes=notes, tables=tables)]
    sections += compared if several else []
    sections.append(
        Section(
            f"AP{of_kind} by size and IoU",
            notes=["Sizes as COCO parts them: small below 32 x 32 pixels, large above 96 x 96."],
            tables=[_size_table(analyses)],
        )
    )
    sections.append(_class_section(analyses, of_kind, interactive))
    sections.append(_error_section(analyses, of_kind, objects))
    return sections


def _size_table(analyses: Sequence[DetectionAnalysis]) -> Table:
    thresholds = analyses[0].scores.iou_thresholds
    columns = [
        Column("size", "size", "text"),
        Column("mean", "mean"),
        *(Column(f"iou_{t:.2f}", f"{t:.2f}") for t in thresholds),
    ]
    rows = []
    for analysis in analyses:
        of_run = f", {analysis.name}" if len(analyses) > 1 else ""
        for size, values in zip(SIZES, analysis.scores.ap_by_size_and_iou(), strict=True):
            rows.append([f"{size}{of_run}", float(values.mean()), *values.tolist()])
    return Table(columns, rows)


def _class_section(analyses: Sequence[DetectionAnalysis], of_kind: str, interactive: bool) -> Section:
    first = analyses[0]
    support = first.scores.support
    figures = []
    if interactive:
        chosen = opening_class(first.scores.ap, support)
        precision = [precision_curves(a)[IOU_50][chosen] for a in analyses]
        recalls = np.linspace(0, 1, first.scores.precision.shape[1])
        lines = [
            (f"curve-{place}", a.name, recalls if len(values) else values, values)
            for place, (a, values) in enumerate(zip(analyses, precision, strict=True))
        ]
        drawn, frame = plots.curves(lines, "recall", "precision")
        text = "The greatest precision at each recall or more, at IoU 0.50; another class and IoU are chosen above."
        figures.append(
            Figure("precision_recall", "Precision and recall", text, drawn, chart="precision-recall", frame=frame)
        )
        figures += [_threshold_figure(a, place, chosen, len(analyses) > 1) for place, a in enumerate(analyses)]
    figures.append(
        Figure(
            "ap_against_support" + of_kind.replace(" ", "_"),
            "AP against objects",
            "A dot for each class. Few objects and a low AP call for data, many for a look at the labels.",
            plots.ap_against_support(
                [a.name for a in analyses], support, [a.scores.ap for a in analyses], first.scores.classes, "objects"
            ),
        )
    )
    return Section(f"Classes{of_kind}", tables=[_class_table(analyses, interactive)], figures=figures)


def _threshold_figure(analysis: DetectionAnalysis, place: int, chosen: int, several: bool) -> Figure:
    curve = analysis.curves[chosen]
    columns = (("precision", "precision", curve.precision), ("recall", "recall", curve.recall), ("f1", "F1", curve.f1))
    drawn, frame = plots.curves(
        [(key, legend, curve.thresholds, values) for key, legend, values in columns],
        "threshold",
        "score at IoU 0.5",
        [
            ("used", "threshold in use", float(analysis.limits[chosen])),
            ("best", "greatest F1", curve.best_threshold),
        ],
    )
    return Figure(
        "thresholds" + (f"_{place}" if several else ""),
        "Precision, recall and F1 by threshold" + (f" of {analysis.name}" if several else ""),
        "At IoU 0.5; another class is chosen above. tresnet thresholds chooses thresholds on one split for another.",
        drawn,
        chart="thresholds",
        frame=frame,
        run=place,
    )


def _class_table(analyses: Sequence[DetectionAnalysis], interactive: bool) -> Table:
    records = [class_records(analysis) for analysis in analyses]
    first, drawn = analyses[0], analyses[0].ap_samples is not None
    columns = [Column("class", "class", "text"), Column("support", "objects", "count")]
    rows: list[list[Any]] = [[record["class"], record["support"]] for record in records[0]]
    if len(analyses) == 1:
        columns += [Column("ap", "AP"), *([Column("interval", "95% interval", "interval")] if drawn else [])]
        columns += [Column(key, title) for key, title in (("ap50", "AP50"), ("ap75", "AP75"), ("ar100", "AR100"))]
        columns.append(
            Column("best_threshold", "best threshold", "threshold", "the greatest F1 at IoU 0.5 on these images")
        )
        columns += [
            Column("best_precision", "its precision"),
            Column("best_recall", "its recall"),
            Column("best_f1", "its F1"),
        ]
        for row, record in zip(rows, records[0], strict=True):
            spread = [Interval(record["ap_low"], record["ap_high"])] if drawn else []
            keys = ("ap50", "ap75", "ar100", "best_threshold", "best_precision", "best_recall", "best_f1")
            row += [record["ap"], *spread, *(record[key] for key in keys)]
    for place, (analysis, given) in enumerate(zip(analyses, records, strict=True) if len(analyses) > 1 else ()):
        columns += [Column(f"ap_{place}", f"AP {analysis.name}"), Column(f"ap50_{place}", f"AP50 {analysis.name}")]
        columns += [Column(f"difference_{place}", f"AP minus {first.name}", "difference")] if place else []
        columns += [Column(f"interval_{place}", "95% interval", "interval")] if place and drawn else []
        for c, (row, record) in enumerate(zip(rows, given, strict=True)):
            row += [record["ap"], record["ap50"]]
            if place:
                more = record["ap"] - records[0][c]["ap"]
                row.append(more)
                if analysis.ap_samples is not None and first.ap_samples is not None:
                    both = analysis.ap_samples[:, :, c].astype(np.float64) - first.ap_samples[:, :, c]
                    row.append(difference_interval(both.mean(1), more))
    order = worst_first(first.scores.ap)
    return Table(columns, [rows[c] for c in order], places=order, chooses=interactive)


def _error_section(analyses: Sequence[DetectionAnalysis], of_kind: str, objects: str) -> Section:
    columns = [Column("kind", "kind", "text")]
    for place, analysis in enumerate(analyses):
        of_run = f" {analysis.name}" if len(analyses) > 1 else ""
        columns += [
            Column(f"count_{place}", f"all scores{of_run}", "count", "detections; objects for those missed"),
            Column(f"shown_{place}", f"above threshold{of_run}", "count", "the same above the threshold in use"),
            Column(f"gain_{place}", f"gain in AP50{of_run}", "difference"),
        ]
    rows: list[list[Any]] = []
    for kind in KINDS:
        rows.append([f"{kind} (objects)" if kind == "missed" else kind])
        for a in analyses:
            rows[-1] += [a.errors.counts[kind], a.shown_errors.counts[kind], a.errors.gain[kind]]
    for title, key in (("all false positives", "false_positive_gain"), ("all false negatives", "false_negative_gain")):
        rows.append([title])
        for a in analyses:
            rows[-1] += [None, None, getattr(a.errors, key)]
    figure = Figure(
        "errors" + (f"_{objects}" if objects else ""),
        "What each kind of error costs",
        "Points of AP50 gained if errors of this kind alone were put right.",
        plots.bars(
            KINDS,
            [[a.errors.gain[kind] for kind in KINDS] for a in analyses],
            [a.name for a in analyses],
            "gain in AP50",
        ),
    )
    return Section(f"Errors{of_kind}", notes=[_ERRORS], tables=[Table(columns, rows)], figures=[figure])
