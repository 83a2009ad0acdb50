"""Files that appear under their name only when whole, take no other file's place, and are read without waiting.

What a tool writes replaces a file of the same content. Another file under that name is moved to ``earlier_N`` beside
it, the first such folder that is free, and a line on standard error says so: see :class:`Earlier`.
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
    """Gives a name beside ``path`` to write under; the file gets its own once it is whole.

    Whatever ends the block early, Ctrl-C included, leaves what stood under ``path`` before and no part of a file.
    File and folder are synced, so this also holds where the machine loses power.

    Raises:
        NotWrittenError: if the system does not take the file: the disk is full, a limit is reached, its folder is gone.
    """
    path = Path(path)
    # The suffix stays, since writers tell formats by it.
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        _sync(partial)
        os.replace(partial, path)
        _sync(path.parent)
    except UserError:
        raise
    except Exception as error:  # each library has a class of its own
        if reason := why_not_written(error, partial):
            raise NotWrittenError(f"{path}: cannot be written: {reason}") from error
        raise
    finally:
        # Of a file system that is read-only or gone, nothing can be removed.
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Gives a new folder beside ``path`` to write files into; it gets its own name once all of them are whole.

    What stands under ``path`` must have been moved by the end of the block. An end by an error leaves nothing.

    Raises:
        UserError: the folder cannot be written.
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
    """Turns the OSError of a block that writes into a UserError that names ``path``.

    A `NotWrittenError` stays as it is: it names the file and says what to do.

    Args:
        path: the file or folder.
        problem: what the error says of it.
        advice: what to do, after a semicolon.
    """
    try:
        yield
    except NotWrittenError:
        raise
    except OSError as error:
        more = f"; {advice}" if advice else ""
        raise UserError(f"{path}: {problem} ({error.strerror or error}){more}") from error


def _sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk, where the file system can say so."""
    if os.name == "nt" and path.is_dir():  # cannot be opened there
        return
    try:
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        # A disk may say only here that it is full; a network's file system may not know the call.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM):
            raise


class Earlier:
    """Where files go that one command would overwrite: all into one folder ``earlier_N`` of the folder it writes to.

    Args:
        folder: the folder that the command writes to.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.aside: Path | None = None

    def keep(self, *names: str) -> None:
        """Moves those of these files that are there.

        Args:
            *names: paths within the folder.

        Raises:
            UserError: if one cannot be moved.
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
            # Standard output may be read by a program.
            print(f"note: files in {self.folder} that would be overwritten are now in {aside}", file=sys.stderr)
        return self.aside


@contextmanager
def whole_result(path: str | Path) -> Iterator[Path]:
    """As `whole_file`, for what a tool writes: makes the folder, and moves a file of other content to ``earlier_N``.

    Raises:
        UserError: if the file cannot be written, or the other one cannot be moved.
    """
    path = Path(path)
    with named_if_unwritable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            yield partial
            Earlier(path.parent).keep_unless_same((partial, path.name))


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Opens a regular file for reading bytes; a pipe, a device or a socket, which could block or never end, is refused.

    Raises:
        OSError: the file is missing, not a regular one, cannot be read, or no file can have such a name.
    """
    try:
        file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115 - the caller closes it
    except ValueError as error:  # a zero byte or a lone surrogate
        raise OSError(f"no file can have such a name ({error})") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError("not a regular file, and nothing else is read")
    return file


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def is_regular(path: str | os.PathLike[str]) -> bool:
    """Whether a regular file stands under a name, which may be one that no file can have."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def unpack_gzip(path: str | os.PathLike[str]) -> bytes:
    """The content of a gzip file, of which no more is unpacked than the limit ``expansion`` allows.

    Raises:
        UserError: it is more than that.
        OSError, EOFError, zlib.error: the file cannot be read or is damaged.
    """
    with open_regular(path) as packed, gzip.open(packed) as unpacked:
        most = unpacked_limit(os.fstat(packed.fileno()).st_size)
        content = unpacked.read(most + 1)
    if len(content) > most:
        raise UserError(f"{path}: {excess('expansion', f'unpacks to over {most:,} bytes')} (of each packed byte)")
    return content
