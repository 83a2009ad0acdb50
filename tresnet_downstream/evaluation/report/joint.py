"""The report of networks that give labels and boxes in one pass: that of the labels, then that of the boxes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tresnet_downstream.evaluation.outcomes import JointRun
from tresnet_downstream.evaluation.report import detection_numbers, multilabel_numbers
from tresnet_downstream.evaluation.report.detection import detection_report
from tresnet_downstream.evaluation.report.multilabel import multilabel_report
from tresnet_downstream.evaluation.report.options import Options
from tresnet_downstream.evaluation.report.parts import Report, Section
from tresnet_downstream.evaluation.runs import PARTS

CLASS_COLUMNS = tuple(
    dict.fromkeys(("run", "part", *multilabel_numbers.CLASS_COLUMNS, *detection_numbers.CLASS_COLUMNS))
)


def joint_report(runs: Sequence[JointRun], names: Sequence[str], options: Options) -> Report:
    """Gathers a report of one or more runs over the same images and classes.

    Args:
        runs: from :func:`read_outcome`; the others are compared with the first.
        names: what to call them.
        options: see :class:`Options`; thresholds that are given are those of the labels.

    Raises:
        UserError: as :func:`multilabel_report` and :func:`detection_report`.
    """
    labels = multilabel_report([run.labels for run in runs], names, options)
    boxes = detection_report([run.boxes for run in runs], names, replace(options, thresholds=None))
    reports = dict(zip(PARTS, (labels, boxes), strict=True))
    return Report(
        title="Labels and boxes in one pass",
        summary=f"labels: {labels.summary}; boxes: {boxes.summary}",
        runs=names,
        sections=[_of_part(section, part) for part, report in reports.items() for section in report.sections],
        scores={"task": "joint", **{part: report.scores for part, report in reports.items()}, "runs": _runs(reports)},
        charts={part: report.charts[""] for part, report in reports.items()},
    )


def _of_part(section: Section, part: str) -> Section:
    """A section under names that the other part does not have."""
    return replace(
        section,
        part=part,
        title=f"{part.capitalize()}: {section.title}",
        figures=[replace(figure, name=f"{part}_{figure.name}") for figure in section.figures],
        galleries=[replace(gallery, name=f"{part}_{gallery.name}") for gallery in section.galleries],
    )


def _runs(reports: dict[str, Report]) -> list[dict[str, Any]]:
    """The scores of each class of both parts."""
    return [
        {"name": run["name"], "per_class": [{"part": part, **record} for record in run["per_class"]]}
        for part, report in reports.items()
        for run in report.scores["runs"]
    ]
