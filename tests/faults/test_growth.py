"""A soak test detects a small leak, and does not report the noise of the allocator."""

import numpy as np
import pytest
from faults.growth import growth

SECONDS = np.arange(900.0)


def noise(seed):
    """Memory that goes up and down by some 10 MB, each time for seconds."""
    steps = np.random.RandomState(seed).normal(0, 10, 1000)
    return 800 + np.convolve(steps, np.ones(10) / 10, "valid")[: len(SECONDS)]


@pytest.mark.parametrize("seed", range(5))
def test_leak_is_detected(seed):
    leaking = noise(seed) + 0.02 * SECONDS  # 12 MB in the last 600 s
    line = growth(SECONDS, leaking)
    assert line.is_growth(4.0)
    assert line.total == pytest.approx(12, abs=4 * line.error)


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_not_reported_as_growth(seed):
    assert not growth(SECONDS, noise(seed)).is_growth(0.0)


def test_memory_that_fills_up_during_the_warm_up_is_no_growth():
    assert not growth(SECONDS, 800 - 500 * np.exp(-SECONDS / 30)).is_growth(0.1)


def test_open_files_that_are_one_more_at_each_end_grow():
    assert growth(range(300), [6 + number for number in range(300)]).is_growth(0.5)
    assert not growth(range(300), [6] * 300).is_growth(0.5)


def test_too_few_readings_are_refused():
    with pytest.raises(ValueError, match="at least 48"):
        growth(range(30), [1] * 30)
