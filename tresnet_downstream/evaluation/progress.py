"""How long work counts its progress, without knowing what shows it."""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Track(Protocol):
    """Passes items on and counts them, such as ``command_line.progress``."""

    def __call__(self, items: Iterable[T], total: int, what: str) -> Iterator[T]:
        """Gives the ``total`` items; ``what`` says in a word or two what they are worked on for."""


def silently(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Counts nothing."""
    yield from items
