"""Writing of files that appear only when they are complete and overwrite no other file; reading of regular files only.

If a file of the same name exists with another content, it is moved to a folder ``earlier_N`` beside it, and a line on
standard error says so. See :class:`Earlier`.
"""

import contextlib
import errno
import filecmp
import gzip
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tresnet_downstream.errors import UserError
from tresnet_downstream.limits import excess, unpacked_limit
from tresnet_downstream.system_errors import NotWrittenError, why_not_written


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A context that yields a temporary path beside ``path``; on exit the temporary file is renamed to ``path``.

    If the block ends early, also by Ctrl-C, an existing file at ``path`` stays, and no partial file is left. File and
    folder are synced, so this also holds after a power failure.

    Raises:
        NotWrittenError: if the file cannot be written: the disk is full, a limit is reached, or its folder is gone.
    """
    path = Path(path)
    # Writers recognise formats by the suffix.
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        _sync(partial)
        os.replace(partial, path)
        _sync(path.parent)
    except UserError:
        raise
    except Exception as error:  # each library has its own class
        if reason := why_not_written(error, partial):
            raise NotWrittenError(f"{path}: cannot be written: {reason}") from error
        raise
    finally:
        # Removing fails if the file system is read-only or gone.
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """A context that yields a temporary folder beside ``path``; on exit the folder is renamed to ``path``.

    An existing file or folder at ``path`` must have been moved before the exit. After an error, nothing is left.

    Raises:
        UserError: if the folder cannot be written.
    """
    path = Path(path).absolute()
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with named_if_unwritable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
            for file in partial.iterdir():
                _sync(file)
            os.rename(partial, path)
            _sync(path.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def named_if_unwritable(path: str | Path, problem: str = "cannot be written", advice: str = "") -> Iterator[None]:
    """A context that turns an OSError into a UserError that names ``path``.

    A `NotWrittenError` is not changed, because it names the file already.

    Args:
        path: the file or folder.
        problem: the problem, for the message.
        advice: what to do, for the message.
    """
    try:
        yield
    except NotWrittenError:
        raise
    except OSError as error:
        more = f"; {advice}" if advice else ""
        raise UserError(f"{path}: {problem} ({error.strerror or error}){more}") from error


def _sync(path: Path) -> None:
    """Syncs a file or folder to the disk, if the file system supports it."""
    if os.name == "nt" and path.is_dir():  # folders cannot be opened on Windows
        return
    try:
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        # A full disk may be reported only here; network file systems may not support the call.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM):
            raise


class Earlier:
    """Moves files that a command would overwrite into one new folder ``earlier_N`` of the folder it writes to.

    Args:
        folder: the folder that the command writes to.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.aside: Path | None = None

    def keep(self, *names: str) -> None:
        """Moves the files that exist.

        Args:
            *names: paths relative to the folder.

        Raises:
            UserError: if a file cannot be moved.
        """
        for name in names:
            path = self.folder / name
            if not os.path.lexists(path):
                continue
            target = self._aside() / name
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)
            except OSError as error:
                raise UserError(f"{path}: cannot be moved to {target} ({error.strerror or error})") from error

    def keep_unless_same(self, *written: tuple[Path, str]) -> None:
        """Moves the files whose place others are about to take, unless all of them have the same content.

        Args:
            *written: for each file where its new content lies, and its name within the folder.

        Raises:
            UserError: if one cannot be moved.
        """
        pairs = [(new, self.folder / name) for new, name in written]
        if not all(old.is_file() and filecmp.cmp(new, old, shallow=False) for new, old in pairs):
            self.keep(*(name for _, name in written))

    def _aside(self) -> Path:
        if self.aside is None:
            number = 1
            while os.path.lexists(aside := self.folder / f"earlier_{number}"):
                number += 1
            self.aside = aside
            # Not on standard output, which a program may read.
            print(f"note: files in {self.folder} that would be overwritten were moved to {aside}", file=sys.stderr)
        return self.aside


@contextmanager
def whole_result(path: str | Path) -> Iterator[Path]:
    """Like `whole_file`, but creates the folder, and moves an existing file with another content to ``earlier_N``.

    Raises:
        UserError: if the file cannot be written, or the existing one cannot be moved.
    """
    path = Path(path)
    with named_if_unwritable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            yield partial
            Earlier(path.parent).keep_unless_same((partial, path.name))


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Opens a regular file for reading bytes. Pipes, devices and sockets are refused, because they may never end.

    Raises:
        OSError: if the file is missing, not regular or unreadable, or the name is invalid.
    """
    try:
        file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115 - the caller closes it
    except ValueError as error:  # a null character or a lone surrogate
        raise OSError(f"invalid file name ({error})") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError("not a regular file")
    return file


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def is_regular(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is a regular file; False for invalid names."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def unpack_gzip(path: str | os.PathLike[str]) -> bytes:
    """Unpacks a gzip file, up to the limit ``expansion``.

    Raises:
        UserError: if the content exceeds the limit.
        OSError, EOFError, zlib.error: if the file cannot be read or is damaged.
    """
    with open_regular(path) as packed, gzip.open(packed) as unpacked:
        most = unpacked_limit(os.fstat(packed.fileno()).st_size)
        content = unpacked.read(most + 1)
        size = os.fstat(packed.fileno()).st_size
    if len(content) > most:
        raise UserError(
            f"{path}: {excess('expansion', f'unpacks to over {most / size:,.0f} bytes for each packed byte')}"
        )
    return content
