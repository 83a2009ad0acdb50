"""Signals that end a training in order: the step ends, a checkpoint is written, and the exit status says which it was.

A scheduler sends SIGTERM or SIGUSR1 before it takes a machine away; Ctrl-C sends SIGINT.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
)  # Windows has no SIGUSR1
_received = 0


class TrainingStopped(SystemExit):
    """A signal ended a training. The attribute ``code`` is the exit status: 128 and the signal's number.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


@contextmanager
def deferred() -> Iterator[None]:
    """Inside, the first signal is remembered, see :func:`received`; a second one acts as it would outside."""
    global _received
    if threading.current_thread() is not threading.main_thread():
        yield  # signals arrive in the main thread alone
        return

    def receive(number: int, frame: Any) -> None:
        global _received
        _received = number
        restore()

    def restore() -> None:
        for each, handler in before.items():
            # None: set by code that is not Python, which Python cannot set again.
            signal.signal(each, signal.SIG_DFL if handler is None else handler)

    before = {number: signal.signal(number, receive) for number in SIGNALS}
    try:
        yield
    finally:
        restore()
        _received = 0


def received() -> int:
    """Number of the signal that arrived; 0 if none did."""
    return _received


def left_to_parent(init: Callable[[int], None] | None) -> Callable[[int], None]:
    """The ``worker_init_fn`` of a data loader whose workers ignore these signals: the training still needs them."""
    return partial(_init_worker, init)


def _init_worker(init: Callable[[int], None] | None, worker: int) -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if init is not None:
        init(worker)
