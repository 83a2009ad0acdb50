"""Removes the partial files of killed processes, see :func:`whole_file`."""

import contextlib
import os
import re
from pathlib import Path

_PARTIAL = re.compile(r"\.(?P<stem>.+)\.(?P<process>\d+)\.partial(?P<suffix>(\.[^.]*)?)")


def remove_partial_files(folder: str | Path, locked: bool = False) -> None:
    """Removes the partial files in a folder whose process, on this machine, has ended. Errors are ignored.

    Args:
        folder: the folder, which may be missing; subfolders are not searched.
        locked: whether the caller holds the folder's lock. If True, all partial checkpoints are removed, even if a
            living process has the id in their name.
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
        return True  # on Windows, os.kill would end the process
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
