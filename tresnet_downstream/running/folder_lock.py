"""A lock that allows one training at a time in a run folder. The kernel releases it however the process ends.

The lock is ``flock`` on the empty file ``.lock`` in the folder. The file stays after the training, so its presence does
not mean that the folder is locked.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from tresnet_downstream.errors import UserError
from tresnet_downstream.notices import tell

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
_HELD_BY_ANOTHER = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
_open_locks: set[int] = set()


class FolderInUseError(UserError):
    """Another training runs in the folder."""

    def __init__(self, folder: str | Path) -> None:
        super().__init__(
            f"{folder}: another training runs in this folder; wait for its end, stop it, or name another `work_dir`"
        )


def require_unused(folder: str | Path) -> None:
    """Checks that no training runs in the folder; creates no file.

    Raises:
        FolderInUseError: if a training runs in it.
    """
    try:
        file = _open(folder)
    except OSError:
        return  # no training has run here, or this user may not open its lock
    try:
        # Shared, because all processes of a training may check at the same time.
        _flock(file, folder, shared=True)
    except OSError:
        pass  # the file system has no locks; `locked` reports that
    finally:
        os.close(file)


@contextlib.contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Holds the lock of a folder. If the file system has no locks, prints one line and continues without.

    Raises:
        FolderInUseError: if another training, in this process or another one, holds the lock.
    """
    file = None
    try:
        file = _open(folder, os.O_CREAT)
        _open_locks.add(file)
        _flock(file, folder)
    except OSError as error:
        reason = error.strerror or error
        tell(
            f"note: {folder}: cannot be locked ({reason}), so do not start a second training in it: it would not be "
            "refused"
        )
    except BaseException:
        _close(file)
        raise
    try:
        yield
    finally:
        _close(file)


def _open(folder: str | Path, flags: int = 0) -> int:
    if fcntl is None:  # Windows, where a folder with an open file cannot be renamed
        raise OSError(errno.ENOSYS, "the system has no flock")
    return os.open(Path(folder) / LOCK, os.O_RDWR | flags, 0o666)


def _flock(file: int, folder: str | Path, shared: bool = False) -> None:
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD_BY_ANOTHER:
            raise FolderInUseError(folder) from error
        raise


def _close(file: int | None) -> None:
    if file is not None:
        _open_locks.discard(file)
        os.close(file)


def _close_in_child() -> None:
    """Closes inherited locks, because the workers of a killed training may live for some seconds more."""
    for file in _open_locks:
        with contextlib.suppress(OSError):
            os.close(file)
    _open_locks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
