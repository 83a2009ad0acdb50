"""Logs the scores and the report of a scored checkpoint to the run that trained it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.runs import PARTS
from tresnet_downstream.evaluation.scored import SCORE_FILES
from tresnet_downstream.json_reading import parse_json
from tresnet_downstream.notices import tell
from tresnet_downstream.running.folder_lock import locked
from tresnet_downstream.running.folders import RUN_ID
from tresnet_downstream.running.trackers.journal import Journal, journal_id
from tresnet_downstream.running.trackers.settings import TENSORBOARD, TrackerSetting, require_trackers
from tresnet_downstream.running.trackers.tracker import FINISHED, TrackedRun, connected, reason
from tresnet_downstream.text_files import read_text
from tresnet_downstream.weights.reading import read_checkpoint, stored_at

_NOT_SCORES = ("format", "version", "run")


def log_scored(config: Config, checkpoint: str | Path, folder: str | Path, report: str | Path | None = None) -> None:
    """Logs the scores as ``scored/NAME``, and the report, to the trackers of the config.

    They are logged to the run whose folder holds the checkpoint. If that fails, one line says why; the scores are on
    the disk in any case.

    Args:
        config: config of the scoring, with the key ``tracker``.
        checkpoint: path of the scored checkpoint.
        folder: folder of the scores.
        report: folder of the report, if one was written.
    """
    settings = require_trackers(config)
    if all(setting["type"] == TENSORBOARD for setting in settings):
        return
    try:
        _log(settings, Path(checkpoint), Path(folder), report)
    except UserError as error:
        tell(f"note: the scores are not logged to a tracker: {error}")


def _log(settings: Sequence[TrackerSetting], checkpoint: Path, folder: Path, report: str | Path | None) -> None:
    run_folder = checkpoint.absolute().parent
    run_id = _run_of(checkpoint, run_folder)
    # A joint model's labels and boxes have a folder each.
    parts = {"": folder} if (folder / SCORE_FILES[0]).is_file() else {f"{part}/": folder / part for part in PARTS}
    scores: dict[str, float] = {}
    about: dict[str, object] = {}
    for prefix, part in parts.items():
        content = parse_json(read_text(part / SCORE_FILES[0]), part / SCORE_FILES[0])
        scores |= {f"scored/{prefix}{name}": value for name, value in _numbers(content)}
        about |= stored_at(content, "run") or {}
    keys = ("checkpoint_sha256", "weights", "data_sha256", "tta")
    facts = {f"scored/{key}": str(about[key]) for key in keys if about.get(key)}
    files = {} if report is None else {"report": str(Path(report).absolute())}
    with locked(run_folder):
        journal = Journal(run_folder, run_id)
        last = journal.records[-1] if journal.records else None
        place, step = (last.place, last.step) if last else (0.0, 0)
        journal.add_results(place, step, scores, facts, files)
        for tracker in connected(settings, run_folder):
            try:
                tracker.open(TrackedRun(run_id, run_folder), journal.records)
                tracker.close(FINISHED)
            except Exception as error:  # any exception of the package
                raise UserError(f"{tracker.name} does not answer ({reason(error)})") from error


def _run_of(checkpoint: Path, run_folder: Path) -> str:
    """The id of the run of a checkpoint, which must be in that run's folder."""
    run_id = stored_at(read_checkpoint(checkpoint, map_location="meta"), "meta", "run_id")
    try:
        of_folder = (run_folder / RUN_ID).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        of_folder = ""
    if not run_id or run_id != of_folder:
        raise UserError(f"{checkpoint}: is not in the folder of the run that trained it")
    if journal_id(run_folder) not in (run_id, None):
        raise UserError(f"{run_folder}: has the journal of another run")
    return str(run_id)


def _numbers(content: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in nested dicts, by their keys joined with slashes; lists, such as per-class scores, are left out."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            if name or key not in _NOT_SCORES:
                yield from _numbers(value, "/".join(filter(None, (name, "" if key == "headline" else str(key)))))
    elif type(content) in (int, float):
        yield name, content
