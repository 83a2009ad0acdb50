"""Signals that end a training in order: the step ends, a checkpoint is written, and the exit status says which it was.

A scheduler sends SIGTERM or SIGUSR1 before it takes a machine away; Ctrl-C sends SIGINT.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
)  # Windows has no SIGUSR1
# Schedulers signal every process of a job, and torchrun then passes the signal on: within this many seconds, the same
# signal counts once.
SAME_SIGNAL_SECONDS = 1.0


class TrainingStopped(SystemExit):
    """A signal ended a training. The attribute ``code`` is the exit status: 128 and the signal's number.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


class _FirstSignal:
    """A handler that notes the first signal; the second one goes to other handlers.

    Args:
        handlers: of the second signal, by signal number.
    """

    def __init__(self, handlers: Mapping[int, Any]) -> None:
        self.handlers = handlers
        self.number = 0
        self.arrived = 0.0

    def __call__(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        if not self.number:
            self.number, self.arrived = number, now
        elif number != self.number or now - self.arrived >= SAME_SIGNAL_SECONDS:
            self.restore()
            signal.raise_signal(number)

    def restore(self) -> None:
        """Sets the other handlers."""
        for number, handler in self.handlers.items():
            # None: set by code that is not Python, which Python cannot set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


_first: _FirstSignal | None = None


@contextmanager
def deferred(processes: int = 1) -> Iterator[None]:
    """Inside, the first signal is remembered, see :func:`received`; a second one acts as it would outside.

    The same signal within :data:`SAME_SIGNAL_SECONDS` is not a second one.

    Args:
        processes: how many train together. If one of several leaves the block by an exception, it is about to end, and
            SIGTERM has no effect on it from then on: torchrun sends it as soon as another one has ended, and this one
            may not have told its error or closed its logs yet. torchrun kills what is left after 30 s.
    """
    global _first
    if threading.current_thread() is not threading.main_thread():
        yield  # signals arrive in the main thread alone
        return
    first = _first = _FirstSignal({number: signal.getsignal(number) for number in SIGNALS})
    for number in SIGNALS:
        signal.signal(number, first)
    try:
        yield
    except BaseException:
        first.restore()
        if processes > 1:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise
    else:
        first.restore()
    finally:
        _first = None


def received() -> int:
    """Number of the signal that arrived; 0 if none did."""
    return 0 if _first is None else _first.number


def left_to_parent(init: Callable[[int], None] | None) -> Callable[[int], None]:
    """The ``worker_init_fn`` of a data loader whose workers ignore the first signal: the training still needs them.

    A second one ends a worker, as that with which torch ends one that does not answer.
    """
    return partial(_init_worker, init)


def _init_worker(init: Callable[[int], None] | None, worker: int) -> None:
    first = _FirstSignal(dict.fromkeys(SIGNALS, signal.SIG_DFL))
    for number in SIGNALS:
        signal.signal(number, first)
    if init is not None:
        init(worker)
