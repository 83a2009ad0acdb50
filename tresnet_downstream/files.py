"""Files that appear under their name only when they are whole, and reading that waits for nobody."""

import gzip
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tresnet_downstream.errors import UserError
from tresnet_downstream.limits import excess, unpacked_limit


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Gives a name beside ``path`` to write under; the file gets its own once it is whole.

    Whatever ends the block early, Ctrl-C included, leaves what stood under ``path`` before and no part of a file.
    """
    path = Path(path)
    # The suffix stays, since writers tell formats by it.
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


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
