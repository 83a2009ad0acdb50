"""The report of multi-label runs: what it shows, from probabilities and targets alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tresnet_downstream.evaluation.bootstrap import Interval, difference_interval
from tresnet_downstream.evaluation.mistakes import Mistake
from tresnet_downstream.evaluation.outcomes import MultilabelRun
from tresnet_downstream.evaluation.report import plots
from tresnet_downstream.evaluation.report.comparison import in_one_order
from tresnet_downstream.evaluation.report.maps_shown import MapsShown
from tresnet_downstream.evaluation.report.multilabel_analysis import Analysis, analyse, class_scores
from tresnet_downstream.evaluation.report.multilabel_numbers import PAIRS, as_json, charts
from tresnet_downstream.evaluation.report.options import Options
from tresnet_downstream.evaluation.report.parts import (
    Column,
    Figure,
    Gallery,
    Picture,
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
    groups_note,
    groups_of,
    score_table,
)
from tresnet_downstream.evaluation.report.thumbnails import thumbnails_of

# What a page holds: enough to see everything that matters, little enough to be mailed.
_THUMBNAIL_SIDE = 176
_MATRIX_CLASSES = 20
_TIES = (
    "Entries of equal score count together, as in scikit-learn, so that the order of the images has no influence; "
    "classes without a positive are left out of the means."
)
_POINTS = (
    "P, R and F1 are precision, recall and F1 of what is predicted: C before them stands for the mean over the "
    "classes, O for all entries together. Publications mean either of two numbers by CF1, so both are here."
)


def multilabel_report(runs: Sequence[MultilabelRun], names: Sequence[str], options: Options) -> Report:
    """Gathers a report of one or more runs over the same images and classes.

    Args:
        runs: from :func:`read_run`; the others are compared with the first.
        names: what to call them.
        options: see :class:`Options`.

    Raises:
        UserError: the runs differ in images, classes or targets, or the thresholds lack a class.
    """
    runs = in_one_order(runs, names)
    weights = options.weights(len(runs[0].images))
    groups = groups_of(runs, options)
    analyses = [analyse(name, run, weights, options, groups) for name, run in zip(names, runs, strict=True)]
    first = analyses[0]
    chosen = opening_class(first.scores.ap, first.scores.support)
    sections = [
        Section("Where this comes from", tables=[provenance_table(names, runs, options.thresholds)]),
        _headline(analyses, options.resamples),
        *([comparison_section(analyses, ["mAP"], len(first.run.images))] if len(analyses) > 1 else []),
        _classes(analyses, chosen),
    ]
    for place, analysis in enumerate(analyses):
        sections += _details(analysis, place, chosen, len(analyses) > 1, options)
    summary = ", ".join(f"{a.name}: mAP {text_of(a.scores.mAP, 'percent')}" for a in analyses)
    if len(analyses) == 1:
        summary = f"mAP {text_of(first.scores.mAP, 'percent')}"
    counts = f"{len(first.run.images):,} images, {len(first.run.classes):,} classes"
    return Report(
        title="Multi-label evaluation",
        summary=f"{summary} \N{MIDDLE DOT} {counts}",
        runs=names,
        sections=sections,
        scores=as_json(analyses, options),
        charts={"": charts(analyses, chosen)},
    )


def _headline(analyses: Sequence[Analysis], resamples: int) -> Section:
    notes = [_TIES, _POINTS, *([INTERVALS.format(resamples)] if resamples else [])]
    scores = analyses[0].scores
    notes += groups_note([a.run for a in analyses], [a.name for a in analyses], analyses[0].groups)
    if scores.unknown.any():
        notes.append(f"{scores.unknown.sum():,} entries of unknown target are left out of every score.")
    if scores.absent:
        notes.append(f"Never present here, and so without AP: {some_of(scores.absent)}.")
    negatives = len(analyses[0].run.images) - scores.support - scores.unknown
    if always := [analyses[0].run.classes[c] for c in np.flatnonzero((negatives == 0) & (scores.support > 0))]:
        notes.append(
            f"Without a negative here, and so with an AP of 100 whatever the network finds: {some_of(always)}. "
            "Images without any label may have been left out."
        )
    return Section("Scores", notes=notes, tables=[score_table(analyses)])


def _classes(analyses: Sequence[Analysis], chosen: int) -> Section:
    first = analyses[0]
    support = first.scores.support
    lines = [
        (f"curve-{place}", a.name, a.curves.recall[chosen], a.curves.precision[chosen])
        for place, a in enumerate(analyses)
    ]
    drawn, frame = plots.curves(lines, "recall", "precision")
    figures = [
        Figure(
            "precision_recall",
            "Precision and recall",
            "Each point is a threshold. AP is the mean precision over the positives. Another class is chosen above.",
            drawn,
            chart="precision-recall",
            frame=frame,
        ),
        Figure(
            "ap_against_support",
            "AP against positives",
            "A dot for each class. Few positives and a low AP call for data, many for a look at the labels.",
            plots.ap_against_support(
                [a.name for a in analyses], support, [a.scores.ap for a in analyses], first.run.classes, "positives"
            ),
        ),
    ]
    table = _class_table(first) if len(analyses) == 1 else _class_comparison(analyses)
    return Section("Classes", tables=[table], figures=figures)


def _class_table(analysis: Analysis) -> Table:
    drawn = analysis.ap_samples is not None
    table = [
        Column("class", "class", "text"),
        Column("ap", "AP"),
        *([Column("interval", "95% interval", "interval", "of AP, by bootstrap over images")] if drawn else []),
        Column("support", "positives", "count"),
        Column("precision", "precision", hint="at the threshold in use"),
        Column("recall", "recall", hint="at the threshold in use"),
        Column("f1", "F1", hint="at the threshold in use"),
        *([] if isinstance(analysis.scores.threshold, float) else [Column("threshold", "threshold", "threshold")]),
        Column("best_threshold", "best threshold", "threshold", "the one with the greatest F1 on these images"),
        Column("best_f1", "its F1"),
    ]
    rows = []
    for record in class_scores(analysis):
        spread = [Interval(record["ap_low"], record["ap_high"])] if drawn else []
        limit = () if isinstance(analysis.scores.threshold, float) else ("threshold",)
        keys = ("support", "precision", "recall", "f1", *limit, "best_threshold", "best_f1")
        rows.append([record["class"], record["ap"], *spread, *(record[key] for key in keys)])
    order = worst_first(analysis.scores.ap)
    return Table(table, [rows[c] for c in order], places=order, chooses=True)


def _class_comparison(analyses: Sequence[Analysis]) -> Table:
    first = analyses[0]
    table = [Column("class", "class", "text"), Column("support", "positives", "count")]
    for place, analysis in enumerate(analyses):
        table += [Column(f"ap_{place}", f"AP {analysis.name}"), Column(f"f1_{place}", f"F1 {analysis.name}")]
        if place:
            table.append(Column(f"difference_{place}", f"AP minus {first.name}", "difference"))
            if analysis.ap_samples is not None:
                table.append(Column(f"interval_{place}", "95% interval", "interval"))
    rows = []
    for c, name in enumerate(first.run.classes):
        row: list[Any] = [name, int(first.scores.support[c])]
        for place, analysis in enumerate(analyses):
            row += [float(analysis.scores.ap[c]), float(analysis.scores.f1[c])]
            if place:
                gained = float(analysis.scores.ap[c] - first.scores.ap[c])
                row.append(gained)
                if analysis.ap_samples is not None and first.ap_samples is not None:
                    row.append(difference_interval(analysis.ap_samples[:, c] - first.ap_samples[:, c], gained))
        rows.append(row)
    order = worst_first(first.scores.ap)
    return Table(table, [rows[c] for c in order], places=order, chooses=True)


def _details(analysis: Analysis, place: int, chosen: int, several: bool, options: Options) -> list[Section]:
    """What is shown of each run by itself."""
    suffix, of_run = (f"_{place}", f" of {analysis.name}") if several else ("", "")
    curves, names = analysis.curves, analysis.run.classes
    recall, precision = curves.recall[chosen], curves.precision[chosen]
    total = np.where(precision + recall == 0, 1, precision + recall)
    drawn, frame = plots.curves(
        [
            ("precision", "precision", curves.thresholds[chosen], precision),
            ("recall", "recall", curves.thresholds[chosen], recall),
            ("f1", "F1", curves.thresholds[chosen], 2 * precision * recall / total),
        ],
        "threshold",
        "score",
        [
            ("used", "threshold in use", float(analysis.limits[chosen])),
            ("best", "greatest F1", float(curves.best_threshold[chosen])),
        ],
    )
    calibration = analysis.reliability
    behaviour = Section(
        f"Thresholds and calibration{of_run}",
        notes=[
            "tresnet thresholds chooses thresholds, for each class or for all, and tresnet predict uses them. Those "
            "found on the images that they are judged by flatter: choose on one split, score on another."
        ],
        figures=[
            Figure(
                f"thresholds{suffix}",
                "Precision, recall and F1 by threshold",
                "What lies above the threshold is predicted. Another class is chosen above.",
                drawn,
                chart="thresholds",
                frame=frame,
                run=place,
            ),
            Figure(
                f"reliability{suffix}",
                "Are probabilities what they say?",
                f"ECE {text_of(calibration.error, 'percent')}% over all entries and "
                f"{text_of(calibration.class_error, 'percent')}% as the mean over the classes; "
                "lower is better. After a loss that weighs positives and negatives differently, such as the asymmetric "
                "one, probabilities are not calibrated, and 0.5 is no natural threshold.",
                plots.reliability_diagram(calibration.probability, calibration.frequency, calibration.count),
            ),
        ],
    )
    return [
        behaviour,
        _confusion_section(analysis, suffix, of_run),
        _mistake_section(analysis, names, suffix, of_run, options),
    ]


def _confusion_section(analysis: Analysis, suffix: str, of_run: str) -> Section:
    found, names = analysis.confusions, analysis.run.classes
    pairs = found.pairs(PAIRS)
    if not pairs:
        return Section(
            f"Confused classes{of_run}", notes=["No image has both a class that was missed and one found by mistake."]
        )
    table = Table(
        [
            Column("missed", "present, but missed", "text"),
            Column("found", "found by mistake", "text"),
            Column("images", "images", "count"),
            Column("share", "of the missed, %", hint="share of the images in which the first was missed"),
        ],
        [[names[i], names[j], count, 100 * count / missed] for i, j, count, missed in pairs],
    )
    weight = found.count.sum(0) + found.count.sum(1)
    some = np.sort(np.argsort(-weight, kind="stable")[:_MATRIX_CLASSES])
    some = some[weight[some] > 0]
    figure = Figure(
        f"confusions{suffix}",
        "Missed here, found by mistake there",
        "Images in which the class of the row was missed and that of the column found though it is not there; the "
        "classes with the most of both.",
        plots.matrix(
            found.count[np.ix_(some, some)],
            [names[found.labels[c]] for c in some],
            "present, but missed",
            "found by mistake",
        ),
    )
    return Section(f"Confused classes{of_run}", tables=[table], figures=[figure])


def _mistake_section(analysis: Analysis, names: Sequence[str], suffix: str, of_run: str, options: Options) -> Section:
    run = analysis.run
    thumbnails = thumbnails_of(run, options, _THUMBNAIL_SIDE)
    maps = MapsShown(run.explanations)

    def shown(mistake: Mistake) -> Picture:
        present = [names[c] for c in np.flatnonzero(run.targets[mistake.image] == 1).tolist()]
        labels = some_of(present, 6) or "nothing"
        value = f"{mistake.probability:.3f}"
        image, name = run.images[mistake.image], names[mistake.label]
        return thumbnails.picture(image, name, value, f"labelled: {labels}", heat=maps.of(image, name))

    galleries = [
        Gallery(f"{key}{suffix}", title, text + maps.text, [shown(mistake) for mistake in mistakes])
        for key, title, text, mistakes in (
            (
                "false_positives",
                "Found with the most confidence, and not there",
                "Many of these are labels that nobody wrote down: look before you blame the network.",
                analysis.false_positives,
            ),
            (
                "false_negatives",
                "There, and least expected",
                "Small, hidden or wrongly labelled things collect here.",
                analysis.false_negatives,
            ),
        )
    ]
    notes = [note for note in (thumbnails.note(), maps.note()) if note]
    return Section(f"Worst mistakes{of_run}", notes=notes, galleries=galleries)
