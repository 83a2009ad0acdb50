"""Files that appear under their name only when they are whole."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
