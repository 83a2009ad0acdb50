import time

import pytest

from tresnet_downstream.benchmark.interleaved import Timing, interleaved, speed_ratio
from tresnet_downstream.errors import UserError


def test_candidates_take_turns_and_warm_up_is_not_counted():
    order = []
    timings = interleaved({name: lambda name=name: order.append(name) for name in "abc"}, repeats=3, warm_up=1)
    assert order == [*"abc", *"bca", *"cab", *"abc"]
    assert {name: len(timing.seconds) for name, timing in timings.items()} == dict.fromkeys("abc", 3)


def test_times_are_those_of_the_calls_with_waiting_for_the_device():
    timings = interleaved({"a": lambda: None}, repeats=1, warm_up=0, synchronise=lambda: time.sleep(0.02))
    assert 0.02 <= timings["a"].median < 0.5


def test_median_quartiles_and_ratio_of_repeats():
    fast, slow = Timing((1.0, 2.0, 3.0, 4.0, 5.0)), Timing((2.0, 4.0, 6.0, 8.0, 20.0))
    assert (fast.median, fast.quartiles) == (3.0, (2.0, 4.0))
    assert speed_ratio(fast, slow).median == 2.0
    assert str(speed_ratio(fast, slow)) == "2.00 (2.00 to 2.00)"
    assert speed_ratio(slow, fast).quartiles == (0.5, 0.5)


def test_less_than_one_repeat_is_refused():
    with pytest.raises(UserError, match="`repeats` 0"):
        interleaved({"a": lambda: None}, repeats=0)
