"""A library's bare ``except`` does not suppress Ctrl-C."""

import contextlib
import signal
import threading

import pytest

from tresnet_downstream import interrupts


def swallow_control_c():
    with contextlib.suppress(BaseException):
        signal.raise_signal(signal.SIGINT)


def test_swallowed_control_c_is_raised_at_the_next_look():
    after_look = []

    def look_twice():
        with interrupts.remembered():
            interrupts.look()
            swallow_control_c()
            interrupts.look()
            after_look.append("reached")

    with pytest.raises(KeyboardInterrupt):
        look_twice()
    assert not after_look


def test_swallowed_control_c_ends_its_block_is_then_forgotten_and_the_old_handler_is_back():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interrupts.remembered():
        swallow_control_c()
    interrupts.look()
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_leave_the_handler_alone():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work():
        with interrupts.remembered():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
