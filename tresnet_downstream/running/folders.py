"""Work dirs: the run that a folder belongs to, and rules that keep one run from overwriting another.

A training writes its run id to the text file ``run_id`` in its folder and to ``meta["run_id"]`` of its checkpoints.
``last_checkpoint`` names the newest checkpoint; ``last_validation.json`` holds the last validation.
"""

import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TypedDict

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.runs import RUN_FILES
from tresnet_downstream.evaluation.scored import SCORE_FILES
from tresnet_downstream.files import Earlier, whole_file
from tresnet_downstream.json_reading import parse_json
from tresnet_downstream.notices import tell
from tresnet_downstream.running.folder_lock import FolderInUseError, locked, require_unused

RUN_ID, LAST_CHECKPOINT, LAST_VALIDATION = "run_id", "last_checkpoint", "last_validation.json"
_OF_A_VALIDATION = {
    "iter": (int,),
    "epoch": (int,),
    "best_score": (int, float),
    "best_ckpt": (str,),
    "validated": (dict,),
}
_RESUMABLE = re.compile(r"(?:epoch|iter)_(\d+)(?:_step_(\d+))?\.pth")
# Number of checkpoints within epochs that stay. All of them are removed once the checkpoint of their epoch is written.
_KEEP_WITHIN_EPOCHS = 2
_BEST = re.compile(r"best(_.*_(epoch|iter|step)_\d+)?\.pth")


class LastValidation(TypedDict, total=False):
    """The content of ``last_validation.json``.

    Attributes:
        iter: number of batches trained.
        epoch: number of whole epochs trained, if the validation followed a whole epoch.
        best_score: MMEngine's best score.
        best_ckpt: path of MMEngine's best checkpoint.
        validated: scores of all validations, see :mod:`early_stopping`.
    """

    iter: int
    epoch: int
    best_score: float
    best_ckpt: str
    validated: Mapping[str, object]


def place_of(checkpoint: str | Path) -> tuple[int, int] | None:
    """The position in a training at which a checkpoint was written, for sorting; None for other file names.

    ``epoch_3.pth`` was written after three whole epochs. ``epoch_3_step_70.pth`` was written within the third epoch,
    so it sorts between ``epoch_2.pth`` and ``epoch_3.pth``.

    Examples:
        >>> place_of("epoch_2.pth") < place_of("epoch_3_step_70.pth") < place_of("epoch_3.pth")
        True
    """
    match = _RESUMABLE.fullmatch(Path(checkpoint).name)
    if match is None:
        return None
    return (int(match[1]), 0) if match[2] is None else (int(match[1]) - 1, int(match[2]))


def resumable_checkpoints(folder: str | Path) -> dict[Path, tuple[int, int]]:
    """The checkpoints of a folder that a training can resume, oldest first, with their positions."""
    places = {path: place for path in Path(folder).iterdir() if (place := place_of(path)) and path.is_file()}
    return dict(sorted(places.items(), key=lambda item: item[1]))


def remove_within_epochs(folder: str | Path, name: str) -> None:
    """Removes the checkpoints within epochs up to ``name``; if that is one of them, the last two stay."""
    limit = place_of(name)
    if limit is None:
        return
    within = [path for path, place in resumable_checkpoints(folder).items() if place[1] > 0 and place <= limit]
    keep = _KEEP_WITHIN_EPOCHS if limit[1] > 0 else 0
    for path in within[: len(within) - keep]:
        path.unlink()


def last_checkpoint(work_dir: str | Path) -> Path | None:
    """The path that the file ``last_checkpoint`` names; None if that file is missing or damaged. It may not exist."""
    try:
        text = (Path(work_dir) / LAST_CHECKPOINT).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    # MMEngine writes a path, possibly relative to another folder; this package writes the file name only.
    name = Path(text).name
    return Path(work_dir) / name if name.endswith(".pth") and name.isprintable() else None


def point_to(work_dir: str | Path, name: str) -> None:
    """Writes ``name`` to the file ``last_checkpoint``; a folder of that name is renamed first."""
    pointer = Path(work_dir) / LAST_CHECKPOINT
    if pointer.is_dir():
        set_aside(pointer)
    with whole_file(pointer) as partial:
        partial.write_text(name)


def set_aside(path: Path) -> Path:
    """Renames a damaged file to ``NAME.damaged`` or, if that exists, to ``NAME.N.damaged``; returns the new path.

    Raises:
        UserError: if the file cannot be renamed.
    """
    aside, number = path.with_name(f"{path.name}.damaged"), 1
    while os.path.lexists(aside):
        aside, number = path.with_name(f"{path.name}.{number}.damaged"), number + 1
    try:
        path.rename(aside)
    except OSError as error:
        raise UserError(f"{path}: is damaged and cannot be renamed ({error.strerror or error})") from error
    return aside


def last_validation(work_dir: str | Path) -> LastValidation:
    """The content that :func:`write_validation` wrote last; empty if the file is missing or damaged."""
    try:
        path = Path(work_dir) / LAST_VALIDATION
        content = parse_json(path.read_bytes(), path)
    except (OSError, UserError):
        return {}
    is_whole = isinstance(content, dict) and all(
        type(value) in _OF_A_VALIDATION.get(key, ()) for key, value in content.items()
    )
    return content if is_whole else {}


def write_validation(work_dir: str | Path, note: Mapping[str, object]) -> None:
    """Writes ``last_validation.json``.

    Args:
        work_dir: the run folder.
        note: the keys of :class:`LastValidation`.
    """
    with whole_file(Path(work_dir) / LAST_VALIDATION) as partial:
        partial.write_text(json.dumps(note))


def forget_validation(work_dir: str | Path) -> None:
    """Removes ``last_validation.json``."""
    (Path(work_dir) / LAST_VALIDATION).unlink(missing_ok=True)


def is_best(name: str) -> bool:
    """Whether ``name`` is a file name of a best checkpoint."""
    return _BEST.fullmatch(name) is not None


def holds_run(work_dir: str | Path) -> bool:
    """Whether the folder holds checkpoints of a training."""
    folder = Path(work_dir)
    if not folder.is_dir():
        return False
    return (folder / LAST_CHECKPOINT).is_file() or any(
        place_of(path) or _BEST.fullmatch(path.name) for path in folder.iterdir()
    )


def check(work_dir: str | Path, resume: bool, overwrite: bool) -> None:
    """Checks the folder before a training begins in it; changes nothing.

    Raises:
        UserError: if the path is a file, if another training runs in the folder, or if the folder holds a run and
            neither ``resume`` nor ``overwrite`` is set.
    """
    folder = Path(work_dir)
    if resume and overwrite:
        raise UserError(
            "`resume` continues a run and `overwrite` renames its folder and starts a new one: give one of them"
        )
    blocking = next((path for path in (folder, *folder.parents) if path.exists() or path.is_symlink()), None)
    if blocking is not None and not blocking.is_dir():
        raise UserError(f"`work_dir` {folder}: {blocking} is a file, not a folder")
    require_unused(folder)
    if overwrite or not holds_run(folder):
        return
    if not resume:
        raise UserError(
            f"{folder}: holds a run already: `resume` continues it, `overwrite` renames its folder and starts "
            "a new one (with mim, the config's key overwrite=True), and `work_dir` names another folder"
        )


def make(work_dir: str | Path) -> None:
    """Creates the folder.

    Raises:
        UserError: if it cannot be created or written to.
    """
    try:
        Path(work_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"`work_dir` {work_dir}: the folder cannot be made ({error.strerror or error})") from error
    if not os.access(work_dir, os.W_OK | os.X_OK):
        raise UserError(f"`work_dir` {work_dir}: the folder cannot be written")


def move_aside(path: str | Path) -> Path:
    """Renames a file or folder by appending ``_1``, or the first free number, to its name; returns the new path.

    Raises:
        UserError: if it cannot be renamed.
    """
    path, number = Path(path).resolve(), 1
    if path == Path.cwd() or path in Path.cwd().parents:
        raise UserError(f"{path}: cannot be renamed, because the command runs inside it; run it from another folder")
    stem, suffix = (path.stem, path.suffix) if path.is_file() else (path.name, "")
    while os.path.lexists(aside := path.with_name(f"{stem}_{number}{suffix}")):
        number += 1
    try:
        path.rename(aside)
    except OSError as error:
        raise UserError(f"{path}: cannot be moved to {aside} ({error.strerror or error})") from error
    return aside


def begin(
    work_dir: str | Path, log_dir: str | Path, locks: ExitStack, run_id: str | None = None
) -> tuple[str, Path | None]:
    """Begins a new run in a folder that this process has locked. A run that the folder holds is moved aside.

    Args:
        work_dir: the run folder.
        log_dir: folder of the log within ``work_dir``; it stays in ``work_dir``.
        locks: receives the lock of the new folder, if the old one is moved aside.
        run_id: id of a run that ended before its first checkpoint and starts again; None for a new run.

    Returns:
        the run id, and the new path of the run that was moved aside, or None.

    Raises:
        UserError: if the folder cannot be moved, or another training has created it again in the meantime.
    """
    folder, run_id, aside = Path(work_dir), run_id or uuid.uuid4().hex, None
    if holds_run(folder):
        aside = move_aside(folder)
        folder = folder.resolve()
        try:
            folder.mkdir()
        except FileExistsError as error:
            raise FolderInUseError(folder) from error
        locks.enter_context(locked(folder))
        log_dir = Path(log_dir)
        if (aside / log_dir.name).is_dir():
            # The log file is open; moving it does not close it.
            shutil.move(aside / log_dir.name, folder / log_dir.name)
        tell(f"the folder {work_dir} of the earlier run was renamed to {aside}")
    # Scores of an earlier network do not belong beside the new checkpoints.
    Earlier(folder).keep(*SCORE_FILES, *RUN_FILES)
    forget_validation(folder)
    write_run_id(folder, run_id)
    return run_id, aside


def put_back(aside: Path, work_dir: str | Path, log_dir: str | Path) -> None:
    """Moves the run that :func:`begin` moved aside back, after the new training ended without a checkpoint.

    Args:
        aside: current folder of the run.
        work_dir: original folder of the run; it holds no checkpoint.
        log_dir: folder of the new training's log, which is moved to the run's other logs.
    """
    folder, log_dir = Path(work_dir).resolve(), Path(log_dir)
    if log_dir.is_dir() and not (aside / log_dir.name).exists():
        shutil.move(log_dir, aside / log_dir.name)
    shutil.rmtree(folder)
    aside.rename(folder)
    tell(
        "the training ended before its first checkpoint, so the folder of the earlier run was renamed back to "
        f"{work_dir}"
    )


def write_run_id(work_dir: str | Path, run_id: str) -> None:
    """Writes the run id to the folder's file ``run_id``."""
    with whole_file(Path(work_dir) / RUN_ID) as partial:
        partial.write_text(f"{run_id}\n")
