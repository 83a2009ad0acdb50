"""Writes the report of run folders: ``report.html``, ``report.md``, ``scores.json``, ``per_class.csv`` and plots."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.frequency_groups import require_cutoffs
from tresnet_downstream.evaluation.progress import Track, silently
from tresnet_downstream.evaluation.report import render
from tresnet_downstream.evaluation.report.assembly import description_of, make_report
from tresnet_downstream.evaluation.report.options import Options
from tresnet_downstream.evaluation.result_files import write_files
from tresnet_downstream.evaluation.runs import DESCRIPTION, read_outcome
from tresnet_downstream.evaluation.scored import same_result
from tresnet_downstream.evaluation.thresholds import Thresholds, read_thresholds
from tresnet_downstream.files import Earlier
from tresnet_downstream.text_files import read_text

# With fewer resamples, 2.5% of them would be less than one.
LEAST_RESAMPLES = 100
# Matches the plots and images in the Markdown of an older report.
_SHOWN = re.compile(rf"!\[[^\]]*\]\(((?:{render.PLOTS}|{render.IMAGES})/[\w-]+\.(?:svg|jpg))\)")


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

    A report of the same scores in ``out`` is replaced. A report of other scores is moved to a folder ``earlier_N`` in
    ``out``, and a line on standard error says so.

    Args:
        folders: one or more run folders, see :mod:`runs`; the first is compared with each of the others.
        out: the folder to write to.
        names: names of the runs; by default the names of their folders.
        resamples: number of bootstrap resamples of the images, for 95% intervals; 0 for no intervals.
        thresholds: thresholds, or a file of thresholds, that replace those with which the runs were scored.
        images: the folder of the images, if they were moved after scoring, or if another account or machine scored
            them: then the folder that ``run.json`` names is not opened.
        seed: random seed of the resamples.
        track: progress bar of the work.
        tell: called with each message for the user, such as that images are missing.
        outside_paths: whether images may be outside their folder, by ``..``, absolute paths or symbolic links.
        frequency_cutoffs: for the scores of head, middle and tail, the greatest number of training images of a class of
            the tail and of the middle; by default those of the runs.

    Returns:
        the paths of the text files, the page first.

    Raises:
        UserError: if a run folder is incomplete or has a newer version, the runs cannot be compared, or ``out`` cannot
            be written to.

    Examples:
        >>> import numpy as np
        >>> from tresnet_downstream.evaluation import MultilabelRun, write_multilabel_run
        >>> probabilities, targets = np.array([[0.9, 0.2], [0.3, 0.8]]), np.array([[1, 0], [0, 1]])
        >>> run = MultilabelRun(probabilities, targets, ["a.jpg", "b.jpg"], ("cat", "dog"), "images", 0.5, 3, {})
        >>> _ = write_multilabel_run(run, "run")
        >>> [path.name for path in write_report("run", "report", resamples=0)]
        ['report.html', 'report.md', 'scores.json', 'per_class.csv']
    """
    folders = [folders] if isinstance(folders, str | Path) else list(folders)
    thresholds = read_thresholds(thresholds) if isinstance(thresholds, str | Path) else thresholds
    _check_arguments(folders, out, names, resamples, images, seed)
    runs = [read_outcome(folder) for folder in folders]
    run_names = _names(folders) if names is None else list(names)
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
    if len({type(run) for run in runs}) > 1:
        tasks = ", ".join(f"{name} ({description_of(run)})" for name, run in zip(run_names, runs, strict=True))
        raise UserError(f"runs of different tasks cannot be in one report: {tasks}")
    report = make_report(runs, run_names, options, [Path(folder) for folder in folders])
    paths = _write(Path(out), render.texts(report), render.figures(report), render.images(report))
    for warning in report.warnings():
        tell(warning)
    return paths


def _check_arguments(
    folders: Sequence[str | Path],
    out: str | Path,
    names: Sequence[str] | None,
    resamples: int,
    images: str | Path | None,
    seed: int,
) -> None:
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
        raise UserError(f"names: {', '.join(map(repr, names))} are not different for each run")
    if (Path(out) / DESCRIPTION).exists():
        raise UserError(f"{out}: is a run folder, and the report would replace its scores; choose another folder")


def _write(out: Path, texts: dict[str, str], figures: dict[str, str], images: dict[str, bytes]) -> list[Path]:
    """Writes all files. Those of an older report are removed if it has the same scores, and otherwise moved aside."""
    new = [*(f"{render.PLOTS}/{name}" for name in figures), *(f"{render.IMAGES}/{name}" for name in images)]
    old = sorted({*_shown_by_older(out), *new})
    if same_result(out / "scores.json", json.loads(texts["scores.json"])):
        for name in old:
            (out / name).unlink(missing_ok=True)
    else:
        Earlier(out).keep(*texts, *old)
    paths = write_files(out, texts)
    write_files(out / render.PLOTS, figures)
    if images:
        write_files(out / render.IMAGES, images)
    return paths


def _names(folders: Sequence[str | Path]) -> list[str]:
    """The shortest endings of the paths that are different for each run."""
    parts = [Path(folder).resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    twice = next(folder for folder, part in zip(folders, parts, strict=True) if parts.count(part) > 1)
    raise UserError(f"{twice}: is named twice")


def _shown_by_older(out: Path) -> list[str]:
    """The plots and images of the existing report in the folder, from its Markdown."""
    if not (out / "report.md").is_file():
        return []
    try:
        return _SHOWN.findall(read_text(out / "report.md"))
    except UserError:  # not a report of this toolkit
        return []
