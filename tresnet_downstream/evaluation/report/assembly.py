"""Builds a report from the runs of a task: computes all sections in order, and merges their numbers."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

import tresnet_downstream.evaluation.report.sections  # noqa: F401  registers the toolkit's own sections
from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.outcomes import DetectionRun, JointRun, MultilabelRun, Run, SingleLabelRun
from tresnet_downstream.evaluation.report.data import ReportData
from tresnet_downstream.evaluation.report.options import Options
from tresnet_downstream.evaluation.report.parts import Report, Section
from tresnet_downstream.evaluation.report.registry import sections_of
from tresnet_downstream.evaluation.report.tasks.detection import detection_data, detection_summary
from tresnet_downstream.evaluation.report.tasks.multilabel import multilabel_data, multilabel_summary
from tresnet_downstream.evaluation.report.tasks.single_label import single_label_data, single_label_summary
from tresnet_downstream.evaluation.runs import PARTS


@dataclass(frozen=True)
class Task:
    """What a report needs to know of a task.

    Attributes:
        description: description of its runs, for error messages.
        title: title of the page.
        prepare: function that computes the sections' data from runs, names, options and folders.
        summary: function that returns the main score of each run in one line.
    """

    description: str
    title: str
    prepare: Callable[..., ReportData[Any]]
    summary: Callable[[ReportData[Any]], str]


_TASKS: dict[type, Task] = {
    MultilabelRun: Task("multi-label", "Multi-label evaluation", multilabel_data, multilabel_summary),
    SingleLabelRun: Task(
        "one label per image", "Evaluation with one label per image", single_label_data, single_label_summary
    ),
    DetectionRun: Task("a detector", "Detection evaluation", detection_data, detection_summary),
}


def description_of(run: object) -> str:
    """The task of a run, in words."""
    return "labels and boxes" if isinstance(run, JointRun) else _TASKS[type(run)].description


def make_report(
    runs: Sequence[Run | JointRun], names: Sequence[str], options: Options, folders: Sequence[Path] = ()
) -> Report:
    """Computes the report of runs of one task. The first run is compared with each of the others.

    Args:
        runs: from :func:`read_outcome`.
        names: names of the runs.
        options: see :class:`Options`.
        folders: the run folders.

    Raises:
        UserError: if the runs cannot be compared, or the thresholds lack a class.
    """
    if _are_joint(runs):
        return _joint_report(runs, names, options, folders)
    task = _TASKS[type(runs[0])]
    data = task.prepare(runs, names, options, folders)
    sections = _with_anchors(sections_of(data))
    first = data.analyses[0].run
    num_images = len(first.image_ids) if isinstance(first, DetectionRun) else len(first.images)
    scores: dict[str, object] = {"task": data.task, "num_images": num_images, "num_classes": len(data.classes)}
    entries: list[dict[str, object]] = [{"name": a.name, "about": a.run.about} for a in data.analyses]
    charts: dict[str, object] = {"classes": [*data.classes, "all classes together"]}
    per_class: list[dict[tuple[object, object], dict[str, object]]] = [{} for _ in data.analyses]
    for section in sections:
        _add(scores, section.numbers)
        _add(charts, section.charts)
        for entry, numbers in zip(entries, section.run_numbers, strict=False):
            _add(entry, numbers)
        for records, added in zip(per_class, section.class_numbers, strict=False):
            for record in added:
                records.setdefault((record.get("kind", ""), record["class"]), {}).update(record)
    for entry, records in zip(entries, per_class, strict=True):
        entry["per_class"] = list(records.values())
    return Report(
        title=task.title,
        summary=f"{task.summary(data)} \N{MIDDLE DOT} {num_images:,} images, {len(data.classes):,} classes",
        runs=names,
        sections=sections,
        scores={**scores, "runs": entries},
        charts={"": charts},
    )


def _are_joint(runs: Sequence[Run | JointRun]) -> TypeGuard[Sequence[JointRun]]:
    return isinstance(runs[0], JointRun)


def _joint_report(runs: Sequence[JointRun], names: Sequence[str], options: Options, folders: Sequence[Path]) -> Report:
    """The report of networks that predict labels and boxes: the sections of both parts."""
    labels = make_report([run.labels for run in runs], names, options, folders)
    # The thresholds are those of the labels, and both parts have the same training.
    boxes = make_report([run.boxes for run in runs], names, replace(options, thresholds=None))
    reports = dict(zip(PARTS, (labels, boxes), strict=True))
    entries = [
        {"name": run["name"], "per_class": [{"part": part, **record} for record in run["per_class"]]}
        for part, report in reports.items()
        for run in report.scores["runs"]
    ]
    sections = [_of_part(section, part) for part, report in reports.items() for section in report.sections]
    return Report(
        title="Labels and boxes in one pass",
        summary=f"labels: {labels.summary}; boxes: {boxes.summary}",
        runs=names,
        sections=sorted(sections, key=lambda section: section.folded),
        scores={"task": "joint", **{part: report.scores for part, report in reports.items()}, "runs": entries},
        charts={part: report.charts[""] for part, report in reports.items()},
    )


def _of_part(section: Section, part: str) -> Section:
    """The section with names that differ from those of the other part."""
    return replace(
        section,
        part=part,
        anchor=f"{part}-{section.anchor}",
        title=f"{part.capitalize()}: {section.title}",
        figures=[replace(figure, name=f"{part}_{figure.name}") for figure in section.figures],
        galleries=[replace(gallery, name=f"{part}_{gallery.name}") for gallery in section.galleries],
    )


def _with_anchors(sections: Sequence[Section]) -> list[Section]:
    """The sections, folded ones last, each with an anchor.

    Raises:
        UserError: if two plots or galleries have the same name, or a name cannot be that of a file.
    """
    names = [figure.name for section in sections for figure in section.figures]
    names += [gallery.name for section in sections for gallery in section.galleries]
    for name in names:
        if not re.fullmatch(r"[\w-]+", name) or names.count(name) > 1:
            problem = "is repeated" if names.count(name) > 1 else "must consist of letters, digits, _ and -"
            raise UserError(f"section: the name {name!r} of a figure or gallery {problem}")
    ordered = sorted(sections, key=lambda section: section.folded)
    return [replace(section, anchor=f"section-{number}") for number, section in enumerate(ordered, 1)]


def _add(content: dict[str, object], added: Mapping[str, object]) -> None:
    """Adds entries; objects with the same key are merged."""
    for key, value in added.items():
        before = content.get(key)
        if isinstance(value, Mapping) and isinstance(before, dict):
            _add(before, value)
        else:
            content[key] = dict(value) if isinstance(value, Mapping) else value
