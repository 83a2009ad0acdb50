"""Run folders: which training a folder belongs to, and no result that another one overwrites.

A training writes its id, plain text, to ``run_id`` in its folder and to ``meta["run_id"]`` of its checkpoints.
``last_checkpoint`` names the newest of them; ``last_validation.json`` holds what was validated last.
"""

import json
import os
import re
import shutil
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.runs import RUN_FILES
from tresnet_downstream.evaluation.scored import SCORE_FILES
from tresnet_downstream.files import Earlier, whole_file
from tresnet_downstream.notices import tell
from tresnet_downstream.running.folder_lock import FolderInUseError, locked, require_unused

RUN_ID, LAST_CHECKPOINT, LAST_VALIDATION = "run_id", "last_checkpoint", "last_validation.json"
_EPOCH = re.compile(r"epoch_(\d+)\.pth")
_CHECKPOINT = re.compile(r"(epoch_\d+|iter_\d+|best|best_.*_(epoch|iter|step)_\d+)\.pth")


def epoch_checkpoints(folder: str | Path) -> dict[int, Path]:
    """The files ``epoch_N.pth`` of a folder by epoch, in order; files of other names are not a run's."""
    found = {int(match[1]): path for path in Path(folder).iterdir() if (match := _EPOCH.fullmatch(path.name))}
    return dict(sorted(found.items()))


def last_checkpoint(work_dir: str | Path) -> Path | None:
    """The newest checkpoint that a run left, if any."""
    pointer = Path(work_dir) / LAST_CHECKPOINT
    # MMEngine writes a path there, perhaps relative to where it ran; ours is the name alone.
    return Path(work_dir) / Path(pointer.read_text().strip()).name if pointer.is_file() else None


def last_validation(work_dir: str | Path) -> dict[str, Any]:
    """What :func:`write_validation` wrote last; empty if there was no validation, or the file is damaged."""
    try:
        content = json.loads((Path(work_dir) / LAST_VALIDATION).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_validation(work_dir: str | Path, note: dict[str, Any]) -> None:
    """Notes a validation: ``iter`` batches trained, ``epoch`` if it came after an epoch, MMEngine's best checkpoint."""
    with whole_file(Path(work_dir) / LAST_VALIDATION) as partial:
        partial.write_text(json.dumps(note))


def forget_validation(work_dir: str | Path) -> None:
    """Makes the folder say that nothing was validated."""
    (Path(work_dir) / LAST_VALIDATION).unlink(missing_ok=True)


def holds_run(work_dir: str | Path) -> bool:
    """Whether a training left checkpoints in the folder."""
    folder = Path(work_dir)
    if not folder.is_dir():
        return False
    return (folder / LAST_CHECKPOINT).is_file() or any(_CHECKPOINT.fullmatch(path.name) for path in folder.iterdir())


def check(work_dir: str | Path, resume: bool, overwrite: bool) -> None:
    """Looks at the folder before a training begins there, and changes nothing.

    Raises:
        UserError: if it is no folder; if another training runs in it; if it holds a run, and neither ``resume`` nor
            ``overwrite`` says what to do with it; if it holds a run that cannot be resumed.
    """
    folder = Path(work_dir)
    if resume and overwrite:
        raise UserError("`resume` goes on with a run and `overwrite` moves it aside: give one of them")
    blocking = next((path for path in (folder, *folder.parents) if path.exists() or path.is_symlink()), None)
    if blocking is not None and not blocking.is_dir():
        raise UserError(f"`work_dir` {folder}: {blocking} is a file, not a folder")
    require_unused(folder)
    if overwrite or not holds_run(folder):
        return
    if not resume:
        raise UserError(
            f"{folder}: holds a run already: `resume` goes on with it, `overwrite` moves it aside (with mim, "
            "the config's key overwrite=True), and `work_dir` names another folder"
        )
    if last_checkpoint(folder) is None:
        raise UserError(
            f"{folder}: holds checkpoints, but no file last_checkpoint names the one to resume from; write its name "
            "there, or give `overwrite` or another `work_dir`"
        )


def checkpoint_to_resume(work_dir: str | Path, resume: bool, overwrite: bool) -> Path | None:
    """The checkpoint that a training goes on from; says so if it is to resume and there is none. See :func:`check`."""
    check(work_dir, resume, overwrite)
    checkpoint = last_checkpoint(work_dir) if resume else None
    if resume and checkpoint is None and is_main_process():
        tell(f"`resume`: {work_dir} has no checkpoint, so the training starts from the beginning")
    return checkpoint


def make(work_dir: str | Path) -> None:
    """Makes the folder.

    Raises:
        UserError: if it cannot be made or written.
    """
    try:
        Path(work_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"`work_dir` {work_dir}: the folder cannot be made ({error.strerror or error})") from error
    if not os.access(work_dir, os.W_OK | os.X_OK):
        raise UserError(f"`work_dir` {work_dir}: the folder cannot be written")


def move_aside(path: str | Path) -> Path:
    """Renames a file or folder to the first free name of its own with a number behind it; gives that path.

    Raises:
        UserError: if it cannot be moved.
    """
    path, number = Path(path).resolve(), 1
    if path == Path.cwd() or path in Path.cwd().parents:
        raise UserError(f"{path}: cannot be moved aside, since the command runs inside; run it from another folder")
    stem, suffix = (path.stem, path.suffix) if path.is_file() else (path.name, "")
    while os.path.lexists(aside := path.with_name(f"{stem}_{number}{suffix}")):
        number += 1
    try:
        path.rename(aside)
    except OSError as error:
        raise UserError(f"{path}: cannot be moved to {aside} ({error.strerror or error})") from error
    return aside


def begin(work_dir: str | Path, log_dir: str | Path, locks: ExitStack) -> str:
    """Begins a new run in a folder that this process has locked; moves the run that it holds aside.

    Args:
        work_dir: the folder.
        log_dir: the log's folder in it, which stays.
        locks: takes the lock of the folder that stands in the place of one moved aside.

    Returns:
        the id of the new run.

    Raises:
        UserError: if the folder cannot be moved, or another training took its place meanwhile.
    """
    folder, run_id = Path(work_dir), uuid.uuid4().hex
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
            # The log is open; its file moves with the name.
            shutil.move(aside / log_dir.name, folder / log_dir.name)
        tell(f"the run that {work_dir} held is now in {aside}")
    # Scores of another network, which would stand beside this one's checkpoints.
    Earlier(folder).keep(*SCORE_FILES, *RUN_FILES)
    forget_validation(folder)
    write_run_id(folder, run_id)
    return run_id


def write_run_id(work_dir: str | Path, run_id: str) -> None:
    """Says in the folder which run it belongs to."""
    with whole_file(Path(work_dir) / RUN_ID) as partial:
        partial.write_text(f"{run_id}\n")
