"""Applies a function to items in several threads."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_threads(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """The results of ``work`` for each item, in order, computed in threads; numpy releases the GIL in its loops.

    Only a few items are read in advance, since each may hold a column of a large array. Ctrl-C does not wait for items
    that have not been started.

    Examples:
        >>> list(in_threads(len, ["a", "bcd"]))
        [1, 3]
    """
    workers = os.cpu_count() or 1
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
