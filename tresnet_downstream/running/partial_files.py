"""Removal of files that a process which was killed had begun to write, see :func:`whole_file`."""

import contextlib
import os
import re
from pathlib import Path

_PARTIAL = re.compile(r"\.(?P<stem>.+)\.(?P<process>\d+)\.partial(?P<suffix>(\.[^.]*)?)")


def remove_partial_files(folder: str | Path, locked: bool = False) -> None:
    """Removes the files that processes of this machine left unfinished in a folder; one that cannot be removed stays.

    Args:
        folder: where to look, not in folders within; may be missing.
        locked: whether the caller holds the folder's lock. Then the checkpoints of every process are removed, also
            where another process has got the number of a dead one.
    """
    if not Path(folder).is_dir():
        return
    for path in Path(folder).iterdir():
        match = _PARTIAL.fullmatch(path.name)
        if match is None or not path.is_file():
            continue
        if (locked and match["suffix"] == ".pth") or not _is_alive(int(match["process"])):
            with contextlib.suppress(OSError):
                path.unlink()


def _is_alive(process: int) -> bool:
    if os.name == "nt":
        return True  # a signal would end it there
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
