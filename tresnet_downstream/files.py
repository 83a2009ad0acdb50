"""Files that appear under their name only when they are whole, and that take no other file's place.

What a tool writes replaces a file of the same content. Another file under that name is moved to ``earlier_N`` beside
it, the first such folder that is free, and a line on standard error says so: see :class:`Earlier`.
"""

import filecmp
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tresnet_downstream.errors import UserError


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
