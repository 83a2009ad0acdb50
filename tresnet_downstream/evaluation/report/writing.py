"""From run folders to ``report.html``, ``report.md``, ``scores.json``, ``per_class.csv`` and plots as SVG."""

import base64
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.frequency_groups import require_cutoffs
from tresnet_downstream.evaluation.outcomes import DetectionRun, JointRun, MultilabelRun, SingleLabelRun
from tresnet_downstream.evaluation.report import (
    detection,
    detection_numbers,
    joint,
    multilabel,
    multilabel_numbers,
    plots,
    single_label,
    single_label_analysis,
)
from tresnet_downstream.evaluation.report.options import Options
from tresnet_downstream.evaluation.report.parts import Figure, Gallery, Report, sort_key, text_of
from tresnet_downstream.evaluation.report.thumbnails import with_boxes
from tresnet_downstream.evaluation.runs import DESCRIPTION, read_outcome
from tresnet_downstream.evaluation.scored import same_result
from tresnet_downstream.evaluation.text import csv_text, json_text, plain, write_files
from tresnet_downstream.evaluation.thresholds import Thresholds, read_thresholds
from tresnet_downstream.evaluation.tracking import Track, silently
from tresnet_downstream.files import Earlier
from tresnet_downstream.version import __version__

FORMAT, VERSION = "tresnet_downstream.report", 1
PLOTS, PICTURES = "plots", "pictures"
# Of fewer, 2.5% are hardly one.
LEAST_RESAMPLES = 100
# What an older report may have left beside the page.
_OLD_PLOT = re.compile(
    r"(labels_|boxes_)?(precision_recall|ap_against_support|accuracy_against_support|thresholds|reliability|confusions|"
    r"errors)(_\w+)?\.svg"
)
_OLD_PICTURE = re.compile(
    r"(labels_|boxes_)?(false_positives|false_negatives|worst_pictures|surest|unexpected)(_\d+)?_\d\d(_map)?\.jpg"
)
# What Markdown and the HTML within it would take for their own.
_MARKDOWN = re.compile(r"([\\`*_\[\]|~$<>&])")


_KINDS: dict[type, str] = {
    JointRun: "labels and boxes",
    MultilabelRun: "multi-label",
    SingleLabelRun: "one label per image",
    DetectionRun: "a detector",
}
_TASKS: dict[type, tuple[Callable[..., Report], Sequence[str]]] = {
    MultilabelRun: (multilabel.multilabel_report, multilabel_numbers.CLASS_COLUMNS),
    SingleLabelRun: (single_label.single_label_report, single_label_analysis.CLASS_COLUMNS),
    DetectionRun: (detection.detection_report, detection_numbers.CLASS_COLUMNS),
    JointRun: (joint.joint_report, joint.CLASS_COLUMNS),
}


def write_report(
    folders: str | Path | Sequence[str | Path],
    out: str | Path,
    names: Sequence[str] | None = None,
    resamples: int = Options.resamples,
    thresholds: Thresholds | str | Path | None = None,
    images: str | Path | None = None,
    seed: int = 0,
    track: Track = silently,
    tell: Callable[[str], None] = lambda note: None,
    outside_paths: bool = False,
    frequency_cutoffs: Sequence[int] | None = None,
) -> list[Path]:
    """Writes the report of one run, or of several side by side.

    Another report in ``out`` is moved to a folder ``earlier_N`` there, and a line on standard error says so; one of
    the same scores is replaced.

    Args:
        folders: a run folder or several, see :mod:`runs`; the others are compared with the first.
        out: the folder to write to.
        names: what to call the runs; their folders' names by default.
        resamples: of the bootstrap over images, for 95% intervals; 0 for none.
        thresholds: in the place of those that the runs were scored with; or the file that they are in.
        images: the folder of the images, if they no longer lie where they were scored, or if another account or machine
            scored them: the folder that its ``run.json`` names is not followed.
        seed: of the resamples.
        track: counts the work.
        tell: called with what a user should know, such as that images are missing.
        outside_paths: whether images may lie outside their folder, by ``..``, absolute paths or symbolic links.
        frequency_cutoffs: for the scores of head, middle and tail, in the place of the runs' own: the most training
            images of a class of the tail, and of the middle.

    Returns:
        the paths, the page first.

    Raises:
        UserError: a run folder is incomplete or of a newer version, runs cannot be compared, or ``out`` cannot be
            written to.
    """
    folders = [folders] if isinstance(folders, str | Path) else folders
    thresholds = read_thresholds(thresholds) if isinstance(thresholds, str | Path) else thresholds
    if images is not None and not Path(images).is_dir():
        raise UserError(f"{images}: no such folder of images")
    if not folders:
        raise UserError("a report needs at least one run folder")
    if resamples and resamples < LEAST_RESAMPLES:
        raise UserError(f"resamples={resamples}: give 0 for no intervals, or at least {LEAST_RESAMPLES}")
    if seed < 0:
        raise UserError(f"seed={seed}: give a whole number, 0 or more")
    if names is not None and len(names) != len(folders):
        raise UserError(f"names: there are {len(folders)} runs, and names for {len(names)}")
    if names is not None and (not all(names) or len(set(names)) < len(names)):
        raise UserError(f"names: {', '.join(map(repr, names))} do not tell the runs apart")
    if (Path(out) / DESCRIPTION).exists():
        raise UserError(f"{out}: is a run folder, whose scores a report would replace; choose another folder")
    runs = [read_outcome(folder) for folder in folders]
    called = _names(folders) if names is None else list(names)
    require_cutoffs(frequency_cutoffs)
    options = Options(
        resamples=resamples,
        seed=seed,
        thresholds=thresholds,
        images=None if images is None else str(images),
        outside_paths=outside_paths,
        frequency_cutoffs=None if frequency_cutoffs is None else (frequency_cutoffs[0], frequency_cutoffs[1]),
        track=track,
    )
    kinds = {type(run) for run in runs}
    if len(kinds) > 1:
        tasks = ", ".join(f"{name} ({_KINDS[type(run)]})" for name, run in zip(called, runs, strict=True))
        raise UserError(f"runs of several tasks cannot stand in one report: {tasks}")
    make, columns = _TASKS[kinds.pop()]
    report: Report = make(runs, called, options)
    records = [{"run": run["name"], **record} for run in report.scores["runs"] for record in run["per_class"]]
    texts = {
        "report.html": _page(report),
        "report.md": _markdown(report),
        "scores.json": json_text({"format": FORMAT, "version": VERSION, **report.scores}),
        "per_class.csv": csv_text(columns, (plain(record) for record in records)),
    }
    figures = {f"{figure.name}.svg": figure.svg for section in report.sections for figure in section.figures}
    pictures = {
        picture_name(gallery, place): content
        for section in report.sections
        for gallery in section.galleries
        for place, picture in enumerate(gallery.pictures)
        if (content := with_boxes(picture)) is not None
    }
    pictures |= {
        picture_name(gallery, place, "_map"): picture.heat
        for section in report.sections
        for gallery in section.galleries
        for place, picture in enumerate(gallery.pictures)
        if picture.heat is not None
    }
    old = [
        *(f"{PLOTS}/{name}" for name in _matching(Path(out) / PLOTS, _OLD_PLOT) | set(figures)),
        *(f"{PICTURES}/{name}" for name in _matching(Path(out) / PICTURES, _OLD_PICTURE) | set(pictures)),
    ]
    if same_result(Path(out) / "scores.json", json.loads(texts["scores.json"])):
        for name in old:
            (Path(out) / name).unlink(missing_ok=True)
    else:
        Earlier(out).keep(*texts, *old)
    paths = write_files(out, texts)
    write_files(Path(out) / PLOTS, figures)
    if pictures:
        write_files(Path(out) / PICTURES, pictures)
    for note in report.missing():
        tell(note)
    return paths


def _names(folders: Sequence[str | Path]) -> list[str]:
    """The shortest ends of the paths that tell the runs apart."""
    parts = [Path(folder).resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    twice = next(folder for folder, part in zip(folders, parts, strict=True) if parts.count(part) > 1)
    raise UserError(f"{twice}: is given twice")


def _environment(escape: bool) -> Environment:
    templates = Environment(
        loader=PackageLoader("tresnet_downstream.evaluation.report"),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.globals |= {"text_of": text_of, "version": __version__, "zip": zip, "PLOTS": PLOTS, "PICTURES": PICTURES}
    return templates


def _page(report: Report) -> str:
    templates = _environment(escape=True)

    def part(name: str) -> str:
        """The style and the script are ours, and stand in the page as they are."""
        source, _, _ = templates.loader.get_source(templates, name)  # type: ignore[union-attr]
        return source

    def drawing(figure: Figure) -> str:
        # The template leaves it as it is: matplotlib has escaped the text within.
        return plots.in_page(figure.svg, figure.name)

    def data_uri(jpeg: bytes) -> str:
        return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"

    templates.globals |= {"part": part, "drawing": drawing, "data_uri": data_uri, "sort_key": sort_key}
    return templates.get_template("report.html").render(report=report, charts=plain(report.charts), series=plots.SERIES)


def _markdown(report: Report) -> str:
    templates = _environment(escape=False)
    templates.filters["md"] = lambda text: _MARKDOWN.sub(_entity, " ".join(str(text).split()))
    templates.globals["picture_name"] = picture_name
    return templates.get_template("report.md").render(report=report)


def _entity(match: re.Match[str]) -> str:
    """Numeric, which neither Markdown nor HTML reads as anything but the character."""
    return f"&#{ord(match[1])};"


def picture_name(gallery: Gallery, place: int, what: str = "") -> str:
    """The file of a picture beside the report, or with ``_map`` of its map."""
    return f"{gallery.name}_{place:02d}{what}.jpg"


def _matching(folder: Path, names: re.Pattern[str]) -> set[str]:
    """The files of the folder that have such names."""
    return {path.name for path in folder.iterdir() if names.fullmatch(path.name)} if folder.is_dir() else set()
