"""Ctrl-C that a library's bare ``except`` cannot swallow: it is remembered, and raised again at the next look."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_received = threading.Event()


@contextmanager
def remembered() -> Iterator[None]:
    """Inside, Ctrl-C raises KeyboardInterrupt as ever, and :func:`look` raises it once more if that was swallowed."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Signals arrive in the main thread alone.
        return

    def receive(number: int, frame: Any) -> None:
        _received.set()
        signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGINT, receive)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        _received.clear()


def look() -> None:
    """Raises KeyboardInterrupt if Ctrl-C was pressed since :func:`remembered` was entered."""
    if _received.is_set():
        raise KeyboardInterrupt
