"""A fast search for images of the validation or test split that are also training data; ``tresnet check`` finds all.

Two images are the same if they have the same path or are the same file (a link). Copies are found if they have the same
file name and content, within the limits :data:`MOST_LOOKS` and :data:`MOST_BYTES`.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tresnet_downstream.errors import UserError
from tresnet_downstream.interfaces import NamesImages
from tresnet_downstream.notices import tell

SPLITS = ("val", "test")  # the splits that can be scored
MOST_LOOKS = 20_000  # most files whose size and identity are read
MOST_BYTES = 2**26  # most bytes of file contents that are compared
MOST_ANNOTATIONS = 2**26  # largest annotation file, in bytes, that is read only for this search


class Overlap(NamedTuple):
    """The images that two splits share.

    Attributes:
        shared: number of images of the second split that are in the first one.
        example: path of one of them; empty if there is none.
        is_complete: whether all files of the same name were compared.
    """

    shared: int
    example: str
    is_complete: bool


def require_split(split: str) -> None:
    """Raises UserError for a split that cannot be scored."""
    if split not in SPLITS:
        raise UserError(f"`split`={split!r}: choose {' or '.join(SPLITS)}")


def is_small(annotation_file: str) -> bool:
    """Whether an annotation file exists and is small enough to be read only for its image names."""
    try:
        return os.path.getsize(annotation_file) <= MOST_ANNOTATIONS
    except OSError:
        return False


def paths_of(dataset: object) -> list[str] | None:
    """The absolute paths of a data set's images; None if a data set, such as a user's own, does not provide them.

    Data sets of this package have a method ``image_paths``. For those that join or repeat others, the parts have it.
    """
    if isinstance(dataset, NamesImages):
        return [os.path.abspath(path) for path in dataset.image_paths()]
    inner = getattr(dataset, "dataset", None)
    parts = [inner] if inner is not None else getattr(dataset, "parts", getattr(dataset, "datasets", None))
    if not isinstance(parts, Sequence) or not parts:
        return None
    several = [paths_of(part) for part in parts]
    return None if None in several else [path for paths in several for path in paths or ()]


def overlap(training: Sequence[str], other: Sequence[str]) -> Overlap:
    """The images that a split shares with the training data.

    Args:
        training: absolute paths of the training images.
        other: absolute paths of the other split.

    Examples:
        >>> overlap(["/data/train/1.jpg", "/data/2.jpg"], ["/data/2.jpg", "/data/val/3.jpg"])
        Overlap(shared=1, example='/data/2.jpg', is_complete=True)
    """
    known = set(training)
    shared = [path for path in other if path in known]
    by_name: dict[str, list[str]] = defaultdict(list)
    names = {os.path.basename(path) for path in other if path not in known}
    for path in training:
        if (name := os.path.basename(path)) in names:
            by_name[name].append(path)
    files = _Files()
    for path in other:
        if path not in known and any(files.are_same(path, each) for each in by_name.get(os.path.basename(path), ())):
            shared.append(path)
    return Overlap(len(shared), shared[0] if shared else "", files.is_complete)


class _Files:
    """Compares files within the limits :data:`MOST_LOOKS` and :data:`MOST_BYTES`."""

    def __init__(self) -> None:
        self.looks, self.bytes, self.is_complete = 0, 0, True
        self._stats: dict[str, os.stat_result | None] = {}
        self._digests: dict[str, bytes] = {}

    def are_same(self, one: str, other: str) -> bool:
        """Whether two paths are the same file, or files with the same content; False if the limits are reached."""
        stats = [self._stat(path) for path in (one, other)]
        if stats[0] is None or stats[1] is None:
            return False
        if os.path.samestat(stats[0], stats[1]):
            return True
        if stats[0].st_size != stats[1].st_size or not stats[0].st_size:
            return False
        digests = [self._digest(path, stats[0].st_size) for path in (one, other)]
        return bool(digests[0]) and digests[0] == digests[1]

    def _stat(self, path: str) -> os.stat_result | None:
        if path in self._stats:
            return self._stats[path]
        if self.looks >= MOST_LOOKS:
            self.is_complete = False
            return None
        self.looks += 1
        try:
            self._stats[path] = os.stat(path)
        except OSError:
            self._stats[path] = None
        return self._stats[path]

    def _digest(self, path: str, size: int) -> bytes:
        if path in self._digests:
            return self._digests[path]
        if self.bytes + size > MOST_BYTES:
            self.is_complete = False
            return b""
        self.bytes += size
        try:
            self._digests[path] = hashlib.sha256(Path(path).read_bytes()).digest()
        except OSError:
            self._digests[path] = b""
        return self._digests[path]


def tell_overlap(split: str, training: Sequence[str] | None, other: Sequence[str] | None) -> None:
    """Prints a warning if images of a split are also training data.

    Args:
        split: ``val`` or ``test``.
        training: paths of the training images, from :func:`paths_of`; None if they are unknown.
        other: paths of the split's images, or None.
    """
    if not training or not other:
        return
    common = overlap(training, other)
    if not common.shared:
        return
    least = "" if common.is_complete else "at least "
    tell(
        f"warning: {least}{common.shared:,} of the {len(other):,} images of the {split} split are in the training data "
        f"too, such as {common.example}: scores on them do not measure the performance on new images"
    )
