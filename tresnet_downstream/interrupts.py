"""Ctrl-C that a library's bare ``except`` cannot swallow: it is remembered, and raised again at the next look."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_received = threading.Event()


@contextmanager
def remembered() -> Iterator[None]:
    """Inside, Ctrl-C raises KeyboardInterrupt as ever, and once more if a library swallowed that.

    :func:`look` raises it at the next look, and the block's end raises it whatever the block ended with. A block may
    stand within another one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Signals arrive in the main thread alone.
        return

    def receive(number: int, frame: Any) -> None:
        _received.set()
        signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGINT, receive)
    swallowed: BaseException | None = None
    try:
        yield
    except Exception as error:
        if not _received.is_set() and not _came_of_control_c(error):
            raise
        swallowed = error
    finally:
        signal.signal(signal.SIGINT, before)
        was_pressed = _received.is_set() or swallowed is not None
        _received.clear()
    if was_pressed:
        raise KeyboardInterrupt from swallowed


def _came_of_control_c(error: BaseException | None) -> bool:
    """Whether an error was raised while KeyboardInterrupt was handled, as by MMEngine's bare ``except``."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def look() -> None:
    """Raises KeyboardInterrupt if Ctrl-C was pressed since :func:`remembered` was entered."""
    if _received.is_set():
        raise KeyboardInterrupt
