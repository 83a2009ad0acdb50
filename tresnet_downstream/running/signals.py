"""Signals that end a training in order: it completes the step, writes a checkpoint, and exits with the signal's status.

Schedulers send SIGTERM or SIGUSR1 before they end a job; Ctrl-C sends SIGINT.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import FrameType

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
)  # Windows has no SIGUSR1
# Schedulers signal every process of a job, and torchrun forwards the signal to its processes. The same signal within
# this many seconds is therefore counted once.
SAME_SIGNAL_SECONDS = 1.0

Handler = Callable[[int, FrameType | None], object] | int | None
"""A handler as :func:`signal.getsignal` returns it."""


class TrainingStopped(SystemExit):
    """Raised when a signal ends a training. The attribute ``code`` is the exit status, 128 + the signal's number.

    Args:
        number: number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


class _FirstSignal:
    """A handler that stores the first signal and passes the second one to other handlers.

    Args:
        handlers: the handlers for the second signal, by signal number.
    """

    def __init__(self, handlers: Mapping[int, Handler]) -> None:
        self.handlers = handlers
        self.number = 0
        self.arrived = 0.0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.number:
            self.number, self.arrived = number, now
        elif number != self.number or now - self.arrived >= SAME_SIGNAL_SECONDS:
            self.restore()
            signal.raise_signal(number)

    def restore(self) -> None:
        """Installs the other handlers."""
        for number, handler in self.handlers.items():
            # None means a handler that was not installed from Python, which Python cannot install again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


_first: _FirstSignal | None = None


@contextmanager
def deferred(processes: int = 1) -> Iterator[None]:
    """A context in which the first signal is only stored, see :func:`received`; a second one has its usual effect.

    The same signal within :data:`SAME_SIGNAL_SECONDS` does not count as a second one.

    Args:
        processes: number of processes of the training. If one of several leaves the context by an exception, it ignores
            SIGTERM from then on: torchrun sends SIGTERM as soon as another process has ended, and this one may not have
            printed its error or closed its logs. torchrun kills the remaining processes after 30 s.
    """
    global _first
    if threading.current_thread() is not threading.main_thread():
        yield  # signals arrive only in the main thread
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
    """Number of the signal that arrived within :func:`deferred`; 0 if none did."""
    return 0 if _first is None else _first.number


def left_to_parent(init: Callable[[int], None] | None) -> Callable[[int], None]:
    """A ``worker_init_fn`` whose workers ignore the first signal, because the training still needs them.

    A second signal ends a worker, such as the SIGTERM that torch sends to one that does not respond.
    """
    return partial(_init_worker, init)


def _init_worker(init: Callable[[int], None] | None, worker: int) -> None:
    first = _FirstSignal(dict.fromkeys(SIGNALS, signal.SIG_DFL))
    for number in SIGNALS:
        signal.signal(number, first)
    if init is not None:
        init(worker)
