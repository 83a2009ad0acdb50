"""Ctrl-C that a library's bare ``except`` cannot suppress: it is recorded, and raised again by :func:`look`."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tresnet_downstream.system_errors import chain_of

_received = threading.Event()


@contextmanager
def remembered() -> Iterator[None]:
    """A context in which Ctrl-C raises KeyboardInterrupt as usual, and again if a library suppressed it.

    The next call of :func:`look`, or the end of the context, raises it again. Contexts may be nested.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals arrive only in the main thread
        return

    def receive(number: int, frame: FrameType | None) -> None:
        _received.set()
        signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGINT, receive)
    swallowed: BaseException | None = None
    try:
        yield
    except Exception as error:
        # MMEngine's bare ``except`` raises other errors while handling KeyboardInterrupt.
        if not _received.is_set() and not any(isinstance(link, KeyboardInterrupt) for link in chain_of(error)):
            raise
        swallowed = error
    finally:
        signal.signal(signal.SIGINT, before)
        was_pressed = _received.is_set() or swallowed is not None
        _received.clear()
    if was_pressed:
        raise KeyboardInterrupt from swallowed


def look() -> None:
    """Raises KeyboardInterrupt if Ctrl-C was pressed since :func:`remembered` was entered."""
    if _received.is_set():
        raise KeyboardInterrupt
