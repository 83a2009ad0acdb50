"""Times several candidates in turn, so that changes in the machine's speed affect all of them equally."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from tresnet_downstream.errors import UserError


@dataclass(frozen=True)
class Timing:
    """What one candidate took, repeat by repeat.

    Attributes:
        seconds: of each repeat, in the order of the run.
    """

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Of the repeats, in seconds."""
        return float(np.median(self.seconds))

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and third, in seconds: half of the repeats lie between them."""
        low, high = np.percentile(self.seconds, (25, 75))
        return float(low), float(high)


@dataclass(frozen=True)
class Ratio:
    """How many times as fast a candidate is as a peer, from repeats that stood side by side.

    Attributes:
        median: of the ratios of the repeats; above 1 where the candidate is faster.
        quartiles: the first and third.
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
    """Runs every candidate once, then all of them again, ``repeats`` times over.

    Args:
        candidates: what to time, by name.
        repeats: how often, 1 or more.
        warm_up: rounds before those that count.
        synchronise: waits for the device, before and after each candidate.
        on_repeat: told after each round how many are done, those that warm up included.

    Returns:
        the times of each candidate, under its name.

    Raises:
        UserError: for less than one repeat.
    """
    require_repeats(repeats)
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    for done in range(warm_up + repeats):
        # Each round begins elsewhere: who comes after whom is not always the same.
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
    """Refuses less than one repeat: called before work that timing comes after.

    Raises:
        UserError: for less than one.
    """
    if repeats < 1:
        raise UserError(f"`repeats` {repeats}: give a whole number, at least 1")


def speed_ratio(timing: Timing, peer: Timing) -> Ratio:
    """How many times as fast as ``peer``; both from one call of `interleaved`."""
    ratios = np.divide(peer.seconds, timing.seconds)
    low, high = np.percentile(ratios, (25, 75))
    return Ratio(float(np.median(ratios)), (float(low), float(high)))
