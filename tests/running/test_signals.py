"""The first signal is remembered, and the second one acts."""

import signal

import pytest

from tresnet_downstream.running import signals


@pytest.fixture
def acted():
    """The signals that reached the handlers of before, which stand in for the system's."""
    numbers = []
    before = {number: signal.signal(number, lambda number, _: numbers.append(number)) for number in signals.SIGNALS}
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


def test_signal_that_torchrun_passes_on_counts_once(acted):
    with signals.deferred():
        assert signals.received() == 0
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert signals.received() == signal.SIGTERM
        assert acted == []
    assert signals.received() == 0


def test_the_same_signal_acts_when_it_comes_again_later(acted, monkeypatch):
    monkeypatch.setattr(signals, "SAME_SIGNAL_SECONDS", 0.0)
    with signals.deferred():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert acted == [signal.SIGTERM]
        assert signals.received() == signal.SIGTERM


def test_another_signal_acts_at_once(acted):
    with signals.deferred():
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGTERM)
        assert acted == [signal.SIGTERM]
        signal.raise_signal(signal.SIGINT)
        assert acted == [signal.SIGTERM, signal.SIGINT]
