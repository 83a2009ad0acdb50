"""The first signal ends a training in order, and the second one ends it at once."""

import multiprocessing
import signal
import time

import pytest
from torch.utils.data import DataLoader, Dataset

from tresnet_downstream.running import runner, signals


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


@pytest.mark.parametrize(("processes", "reaches"), [(1, True), (2, False)])
def test_a_failing_process_prints_its_error_before_torchruns_signal_ends_it(acted, processes, reaches):
    with pytest.raises(ValueError, match="fails"), signals.deferred(processes):
        raise ValueError("fails")
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)
    assert acted == [signal.SIGTERM] * reaches + [signal.SIGINT]


def test_a_process_that_ended_without_error_handles_signals_again(acted):
    with signals.deferred(2):
        pass
    signal.raise_signal(signal.SIGTERM)
    assert acted == [signal.SIGTERM]


class Stuck(Dataset):
    """Never gives an item."""

    def __init__(self):
        self.has_begun = multiprocessing.Event()

    def __len__(self):
        return 1

    def __getitem__(self, index):
        self.has_begun.set()
        time.sleep(600)


def test_worker_that_does_not_answer_is_ended_with_the_training(monkeypatch):
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.5)  # seconds that torch waits for it
    init = signals.left_to_parent(None)
    dataset = Stuck()
    loader = DataLoader(dataset, num_workers=1, persistent_workers=True, worker_init_fn=init)
    (worker,) = iter(loader)._workers
    assert dataset.has_begun.wait(timeout=60)
    runner._end_workers(loader)
    worker.join(timeout=5)
    assert worker.exitcode == -signal.SIGKILL
