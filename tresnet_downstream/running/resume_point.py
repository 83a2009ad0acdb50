"""The checkpoint from which a training is resumed: the newest one that is not damaged.

Damaged checkpoints are renamed to ``NAME.damaged``, and one line reports them.
"""

import os
from pathlib import Path
from typing import NamedTuple

from mmengine.dist import broadcast_object_list, is_main_process

from tresnet_downstream.errors import UserError
from tresnet_downstream.files import open_regular
from tresnet_downstream.notices import tell
from tresnet_downstream.running import folders
from tresnet_downstream.weights.reading import COPY_AGAIN, read_checkpoint


class Damaged(NamedTuple):
    """A checkpoint that cannot be read."""

    path: Path
    reason: str


def checkpoint_to_resume(work_dir: str | Path, resume: bool, overwrite: bool) -> Path | None:
    """The checkpoint to resume from; None without ``resume``. If there is none, a line is printed.

    Every process of a training must call this; only the first one reads and renames files.

    Raises:
        UserError: see :func:`folders.check` and :func:`newest_whole_checkpoint`.
    """
    folders.check(work_dir, resume, overwrite)
    checkpoint = newest_whole_checkpoint(work_dir) if resume else None
    if resume and checkpoint is None:
        tell(f"`resume`: {work_dir} has no checkpoint, so the training starts from the beginning")
    return checkpoint


def newest_whole_checkpoint(work_dir: str | Path) -> Path | None:
    """The checkpoint that ``last_checkpoint`` names or, if it is missing or damaged, the best replacement.

    Replacements are the earlier checkpoints, newest first, and then the later ones.

    Returns:
        its path; None if the folder holds no run.

    Raises:
        UserError: if the folder holds a run but no usable checkpoint; no file is renamed in that case.
    """
    outcome: list[str] = ["", ""]
    if is_main_process():
        try:
            outcome[0] = str(_search(Path(work_dir)) or "")
        except UserError as error:
            outcome[1] = str(error)
    broadcast_object_list(outcome)
    if outcome[1]:
        raise UserError(outcome[1])
    return Path(outcome[0]) if outcome[0] else None


def _search(folder: Path) -> Path | None:
    if not folders.holds_run(folder):
        return None
    named = folders.last_checkpoint(folder)
    damaged: list[Damaged] = []
    for path in _candidates(folder, named):
        if reason := _damage(path):
            damaged.append(Damaged(path, reason))
            continue
        _tell_and_rename(folder, named, damaged, path)
        return path
    if damaged:
        raise UserError(
            f"{damaged[0].reason}; {folder} holds no whole checkpoint to resume: copy one there, or give "
            "`overwrite` or another `work_dir`"
        )
    missing = f"; its file last_checkpoint names {named.name}, which does not exist" if named else ""
    raise UserError(
        f"{folder}: holds a run, but no checkpoint to resume (epoch_N.pth or iter_N.pth){missing}: copy one there, or "
        "give `overwrite` or another `work_dir`"
    )


def _candidates(folder: Path, named: Path | None) -> list[Path]:
    """The checkpoints of a folder in the order in which they are tried, see :func:`newest_whole_checkpoint`."""
    places = folders.resumable_checkpoints(folder)
    newest_first = sorted(places, key=places.__getitem__, reverse=True)
    limit = folders.place_of(named) if named else None
    if limit is not None:
        newest_first.sort(key=lambda path: places[path] > limit)
    # The user may have written another file name to `last_checkpoint`.
    if named is not None and named.is_file() and named not in places:
        newest_first.insert(0, named)
    return newest_first


def _damage(path: Path) -> str:
    """The reason why a checkpoint cannot be read; empty if it can.

    Raises:
        UserError: if the file may not be read, or is whole but has no state of a training.
    """
    try:
        open_regular(path).close()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        checkpoint = read_checkpoint(path)
    except UserError as error:
        return str(error)
    if lacking := [key for key in ("meta", "state_dict", "optimizer", "param_schedulers") if key not in checkpoint]:
        raise UserError(
            f"{path}: a training cannot be resumed from it: it has no {', '.join(lacking)}; use another checkpoint"
        )
    return ""


def _tell_and_rename(folder: Path, named: Path | None, damaged: list[Damaged], chosen: Path) -> None:
    """Renames damaged checkpoints, updates ``last_checkpoint`` and prints a line; nothing to do if it was valid."""
    if chosen == named:
        return
    if named is None:
        reasons = ["last_checkpoint is missing or damaged"]
    else:
        reasons = [] if os.path.lexists(named) else [f"{named.name} is missing"]
    for path, reason in damaged:
        aside = folders.set_aside(path)
        fault = reason.removeprefix(f"{path}: ").removesuffix(COPY_AGAIN)
        reasons.append(f"{path.name} {fault} and is now {aside.name}")
    tell(f"{folder}: {', '.join(reasons)}; the training is resumed from {chosen.name}")
    folders.point_to(folder, chosen.name)
