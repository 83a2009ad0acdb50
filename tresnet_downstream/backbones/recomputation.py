"""Activation checkpointing that takes no statistic twice.

The forward pass is run a second time for the backward pass (Chen et al., 2016). Batch statistics of the first run
are used in the second, which therefore moves no running statistics and reads each feature map once less.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Statistics = tuple[Tensor, Tensor]


class _Runs(threading.local):
    """What the run that goes on in this thread takes down, or reads."""

    recorded: dict[nn.Module, Statistics] | None = None
    replayed: dict[nn.Module, Statistics] | None = None


_runs = _Runs()


def checkpointed(run: Callable[[Tensor], Any], x: Tensor) -> Any:
    """``run(x)``, of which nothing but ``x`` and its batch statistics is kept for the backward pass."""
    statistics: dict[nn.Module, Statistics] = {}
    roles = partial(_role, statistics=statistics)
    return checkpoint(run, x, use_reentrant=False, context_fn=lambda: (roles("recorded"), roles("replayed")))


def is_recomputing() -> bool:
    """Whether this is the second run."""
    return _runs.replayed is not None


def statistics_of(norm: nn.Module, measure: Callable[[], Statistics]) -> Statistics:
    """The norm's statistics of the first run, else what ``measure`` gives."""
    if _runs.replayed is not None and norm in _runs.replayed:
        return _runs.replayed[norm]
    found = measure()
    if _runs.recorded is not None:
        _runs.recorded[norm] = found
    return found


@contextmanager
def _role(role: str, statistics: dict[nn.Module, Statistics]) -> Iterator[None]:
    """Inside, norms write (``recorded``) or read (``replayed``) these statistics; who reads moves no running ones."""
    before = getattr(_runs, role)
    setattr(_runs, role, statistics)
    try:
        yield
    finally:
        setattr(_runs, role, before)
