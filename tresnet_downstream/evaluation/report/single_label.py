"""The report of runs with one label per image: what it shows, from probabilities and labels alone."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.bootstrap import Interval
from tresnet_downstream.evaluation.mistakes import worst_images
from tresnet_downstream.evaluation.outcomes import SingleLabelRun
from tresnet_downstream.evaluation.report import plots
from tresnet_downstream.evaluation.report.comparison import require_same
from tresnet_downstream.evaluation.report.maps_shown import MapsShown
from tresnet_downstream.evaluation.report.options import Options
from tresnet_downstream.evaluation.report.parts import (
    Column,
    Figure,
    Gallery,
    Picture,
    Report,
    Section,
    Table,
    some_of,
    text_of,
    worst_first,
)
from tresnet_downstream.evaluation.report.provenance import provenance_table
from tresnet_downstream.evaluation.report.score_rows import (
    INTERVALS,
    comparison_section,
    groups_note,
    groups_of,
    score_table,
)
from tresnet_downstream.evaluation.report.single_label_analysis import PAIRS, Analysis, analyse, as_json, class_scores
from tresnet_downstream.evaluation.report.thumbnails import thumbnails_of

# What a page holds: enough to see everything that matters, little enough to be mailed.
_THUMBNAIL_SIDE = 176
_MATRIX_CLASSES = 20


def single_label_report(runs: Sequence[SingleLabelRun], names: Sequence[str], options: Options) -> Report:
    """Gathers a report of one or more runs over the same images and classes.

    Args:
        runs: from :func:`read_run`; the others are compared with the first.
        names: what to call them.
        options: see :class:`Options`; thresholds are of no use here.

    Raises:
        UserError: the runs differ in images, classes or labels, or there are thresholds.
    """
    if options.thresholds is not None:
        raise UserError("thresholds are for several labels: with one label per image, the highest probability decides")
    runs = _in_one_order(runs, names)
    weights = options.weights(len(runs[0].images))
    groups = groups_of(runs, options)
    analyses = [analyse(name, run, weights, groups) for name, run in zip(names, runs, strict=True)]
    first = analyses[0]
    sections = [
        Section("Where this comes from", tables=[provenance_table(names, runs, None)]),
        _headline(analyses, options.resamples),
        *([comparison_section(analyses, ["top1"], len(first.run.images))] if len(analyses) > 1 else []),
        _classes(analyses),
    ]
    for place, analysis in enumerate(analyses):
        suffix, of_run = (f"_{place}", f" of {analysis.name}") if len(analyses) > 1 else ("", "")
        sections += [
            _calibration(analysis, suffix, of_run),
            _confusions(analysis, suffix, of_run),
            _mistakes(analysis, suffix, of_run, options),
        ]
    summary = ", ".join(f"{a.name}: top-1 {text_of(a.scores.top1, 'percent')}" for a in analyses)
    if len(analyses) == 1:
        summary = f"top-1 {text_of(first.scores.top1, 'percent')}"
    counts = f"{len(first.run.images):,} images, {len(first.run.classes):,} classes"
    return Report(
        title="Evaluation with one label per image",
        summary=f"{summary} \N{MIDDLE DOT} {counts}",
        runs=names,
        sections=sections,
        scores=as_json(analyses, options),
    )


def _in_one_order(runs: Sequence[SingleLabelRun], names: Sequence[str]) -> list[SingleLabelRun]:
    """The runs with images and classes in the order of the first."""
    first = runs[0]
    given = [first]
    for name, run in zip(names[1:], runs[1:], strict=True):
        pair = (names[0], name)
        require_same("classes", pair, first.classes, run.classes)
        require_same("images", pair, first.images, run.images)
        rows = {image: place for place, image in enumerate(run.images)}
        numbers = {label: place for place, label in enumerate(run.classes)}
        order, columns = [rows[image] for image in first.images], [numbers[label] for label in first.classes]
        labels = np.argsort(columns)[run.labels[order]]
        if len(different := np.flatnonzero(labels != first.labels)):
            image = first.images[different[0]]
            both = [first.classes[each[different[0]]] for each in (first.labels, labels)]
            raise UserError(
                f"{pair[0]} and {name} cannot be compared: image {image!r} has the labels {both[0]!r} and {both[1]!r}"
            )
        same = order == list(range(len(order))) and columns == list(range(len(columns)))
        probabilities = run.probabilities if same else run.probabilities[np.ix_(order, columns)]
        given.append(
            replace(run, probabilities=probabilities, labels=labels, images=first.images, classes=first.classes)
        )
    return given


def _headline(analyses: Sequence[Analysis], resamples: int) -> Section:
    notes = [INTERVALS.format(resamples)] if resamples else []
    notes += groups_note([a.run for a in analyses], [a.name for a in analyses], analyses[0].groups)
    scores = analyses[0].scores
    absent = [scores.classes[c] for c in np.flatnonzero(scores.support == 0)]
    if absent:
        notes.append(f"No image is of these classes, and the mean leaves them out: {some_of(absent)}.")
    return Section("Scores", notes=notes, tables=[score_table(analyses)])


def _classes(analyses: Sequence[Analysis]) -> Section:
    first = analyses[0]
    figure = Figure(
        "accuracy_against_support",
        "Accuracy against images",
        "A dot for each class. Few images and a low accuracy call for data, many for a look at the labels.",
        plots.ap_against_support(
            [a.name for a in analyses],
            first.scores.support,
            [a.scores.recall for a in analyses],
            first.run.classes,
            "images",
            "accuracy",
        ),
    )
    return Section("Classes", tables=[_class_table(analyses)], figures=[figure])


def _class_table(analyses: Sequence[Analysis]) -> Table:
    first = analyses[0]
    drawn = first.resampled is not None
    columns = [Column("class", "class", "text"), Column("support", "images", "count")]
    records = [class_scores(analysis) for analysis in analyses]
    rows: list[list[Any]] = [[record["class"], record["support"]] for record in records[0]]
    for place, analysis in enumerate(analyses):
        of_run = f", {analysis.name}" if len(analyses) > 1 else ""
        columns.append(Column(f"recall_{place}", f"accuracy{of_run}", hint="share of the class's images taken for it"))
        columns += [Column(f"interval_{place}", "95% interval", "interval")] if drawn else []
        for row, record in zip(rows, records[place], strict=True):
            row += [record["recall"], *([Interval(record["recall_low"], record["recall_high"])] if drawn else [])]
    if len(analyses) == 1:
        columns += [Column("precision", "precision"), Column("f1", "F1")]
        for row, record in zip(rows, records[0], strict=True):
            row += [record["precision"], record["f1"]]
        columns.append(Column("taken_for", "most often taken for", "text"))
        most: dict[int, str] = {}
        for each in first.scores.confusions:
            most.setdefault(each.label, f"{first.run.classes[each.predicted]} ({each.count:,})")
        for c, row in enumerate(rows):
            row.append(most.get(c))
    order = worst_first(first.scores.recall)
    return Table(columns, [rows[c] for c in order], places=order)


def _calibration(analysis: Analysis, suffix: str, of_run: str) -> Section:
    figure = Figure(
        f"reliability{suffix}",
        "Are probabilities what they say?",
        f"Of the images that the network is 80% sure of, 80% should be right. Calibration error "
        f"{text_of(analysis.scores.calibration_error, 'percent')}%; log loss {analysis.scores.log_loss:.4f}.",
        plots.reliability_diagram(*analysis.confidence(), labels=("share right", "confidence", "images")),
    )
    return Section(f"Calibration{of_run}", figures=[figure])


def _confusions(analysis: Analysis, suffix: str, of_run: str) -> Section:
    scores, names = analysis.scores, analysis.run.classes
    if not scores.confusions:
        return Section(f"Confused classes{of_run}", notes=["Every image is taken for what it is labelled."])
    table = Table(
        [
            Column("label", "labelled", "text"),
            Column("predicted", "taken for", "text"),
            Column("images", "images", "count"),
            Column("share", "of the class, %"),
        ],
        [
            [names[each.label], names[each.predicted], each.count, 100 * each.count / float(scores.support[each.label])]
            for each in scores.confusions[:PAIRS]
        ],
    )
    some = _most_confused(analysis)
    place = {int(c): number for number, c in enumerate(some)}
    counts = np.zeros((len(some), len(some)), np.int64)
    for each in scores.confusions:
        if each.label in place and each.predicted in place:
            counts[place[each.label], place[each.predicted]] = each.count
    figure = Figure(
        f"confusions{suffix}",
        "Labelled this, taken for that",
        "Images of the class of the row that were taken for that of the column; the classes with the most of both.",
        plots.matrix(counts, [names[c] for c in some], "labelled", "taken for"),
    )
    return Section(f"Confused classes{of_run}", tables=[table], figures=[figure])


def _most_confused(analysis: Analysis) -> list[int]:
    weight = np.zeros(len(analysis.run.classes), np.int64)
    for each in analysis.scores.confusions:
        weight[each.label] += each.count
        weight[each.predicted] += each.count
    some = np.sort(np.argsort(-weight, kind="stable")[:_MATRIX_CLASSES])
    return [int(c) for c in some if weight[c]]


def _mistakes(analysis: Analysis, suffix: str, of_run: str, options: Options) -> Section:
    run, scores = analysis.run, analysis.scores
    thumbnails = thumbnails_of(run, options, _THUMBNAIL_SIDE)
    maps = MapsShown(run.explanations)

    def shown(image: int) -> Picture:
        label, predicted = run.classes[run.labels[image]], run.classes[scores.predicted[image]]
        text = f"labelled: {label} ({scores.of_label[image]:.3f})"
        value, heat = f"{scores.confidence[image]:.3f}", maps.of(run.images[image], predicted)
        return thumbnails.picture(run.images[image], predicted, value, text, heat=heat)

    surest, least = worst_images(scores)
    galleries = [
        Gallery(
            f"surest{suffix}",
            "Wrong with the most confidence",
            "Many of these are wrong labels, or images that show both: look before you blame the network." + maps.text,
            [shown(image) for image in surest],
        ),
        Gallery(
            f"unexpected{suffix}",
            "Labels least expected",
            "The label's own probability is the lowest: wrong labels and unusual views collect here." + maps.text,
            [shown(image) for image in least],
        ),
    ]
    notes = [note for note in (thumbnails.note(), maps.note()) if note]
    return Section(f"Worst mistakes{of_run}", notes=notes, galleries=galleries)
