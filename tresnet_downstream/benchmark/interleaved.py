"""Times several candidates in turn, so that changes in the machine's speed affect all of them equally."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from tresnet_downstream.errors import UserError


@dataclass(frozen=True)
class Timing:
    """Times of one candidate.

    Attributes:
        seconds: time of each repeat in seconds, in the order of the repeats.
    """

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median over the repeats, in seconds."""
        return float(np.median(self.seconds))

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile over the repeats, in seconds. Half of the repeats lie between them."""
        low, high = np.percentile(self.seconds, (25, 75))
        return float(low), float(high)


@dataclass(frozen=True)
class Ratio:
    """Speed of a candidate relative to that of a peer, computed for each repeat.

    Attributes:
        median: median over the repeats; above 1 if the candidate is faster.
        quartiles: first and third quartile over the repeats.
    """

    median: float
    quartiles: tuple[float, float]

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.quartiles[0]:.2f} to {self.quartiles[1]:.2f})"


def interleaved(
    candidates: Mapping[str, Callable[[], object]],
    repeats: int = 9,
    warm_up: int = 1,
    synchronise: Callable[[], object] = lambda: None,
    on_repeat: Callable[[int], object] = lambda done: None,
) -> dict[str, Timing]:
    """Times every candidate once per round.

    Args:
        candidates: functions to time, by name.
        repeats: number of timed rounds, at least 1.
        warm_up: number of rounds before the timed rounds.
        synchronise: function that waits for the device; called before and after each candidate.
        on_repeat: function that is called after each round with the number of finished rounds, including warm-up
            rounds.

    Returns:
        the times of each candidate, by name.

    Raises:
        UserError: if ``repeats`` is less than 1.
    """
    require_repeats(repeats)
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    for done in range(warm_up + repeats):
        # Each round starts with another candidate, so that the order of the candidates varies.
        start = done % len(names) if names else 0
        for name in names[start:] + names[:start]:
            synchronise()
            begin = time.perf_counter()
            candidates[name]()
            synchronise()
            if done >= warm_up:
                seconds[name].append(time.perf_counter() - begin)
        on_repeat(done + 1)
    return {name: Timing(tuple(times)) for name, times in seconds.items()}


def require_repeats(repeats: int) -> None:
    """Raises an error if there is no repeat. Called before the work that precedes the timing.

    Raises:
        UserError: if ``repeats`` is less than 1.
    """
    if repeats < 1:
        raise UserError(f"`repeats` {repeats}: give a whole number, at least 1")


def speed_ratio(timing: Timing, peer: Timing) -> Ratio:
    """Computes the speed relative to that of ``peer``. Both timings must be from one call of `interleaved`."""
    ratios = np.divide(peer.seconds, timing.seconds)
    low, high = np.percentile(ratios, (25, 75))
    return Ratio(float(np.median(ratios)), (float(low), float(high)))
