"""The interface of progress bars, and a progress bar that shows nothing."""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Track(Protocol):
    """Type of functions that yield items and count them, such as ``command_line.progress``."""

    def __call__(self, items: Iterable[T], total: int, what: str) -> Iterator[T]:
        """Yields the ``total`` items; ``what`` names the work in a word or two."""


def silently(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yields the items and shows nothing.

    Examples:
        >>> list(silently("ab", total=2, what="read"))
        ['a', 'b']
    """
    yield from items
