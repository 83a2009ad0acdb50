"""Activation checkpointing that takes no statistic twice.

The forward pass is run a second time for the backward pass (Chen et al., 2016). The second run uses the batch
statistics, parameters, buffers and modes of the first, whatever happened to the modules since. So it moves no running
statistics and reads each feature map once less.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Measured = TypeVar("Measured")


class _Runs(threading.local):
    """The statistics, and decisions on them, that this thread records in a first run or reads in a second run."""

    recorded: list[Any] | None = None
    replayed: Iterator[Any] | None = None


_runs = _Runs()


def checkpointed(run: Callable[[Tensor], Any], x: Tensor, modules: Sequence[nn.Module], draws: bool = True) -> Any:
    """``run(x)``, of which only ``x`` and the batch statistics are kept for the backward pass.

    Args:
        run: calls the modules.
        x: its argument.
        modules: those that ``run`` calls.
        draws: whether ``run`` draws random numbers, which the second run must repeat.
    """
    second = _SecondRun([part for module in modules for part in module.modules()])
    contexts = _FirstRun(second.measured), second
    return checkpoint(run, x, use_reentrant=False, preserve_rng_state=draws, context_fn=lambda: contexts)


def is_recomputing() -> bool:
    """Whether this is the second run."""
    return _runs.replayed is not None


def measured_once(measure: Callable[[], Measured]) -> Measured:
    """In a second run what the first measured here, since both call in the same order; else ``measure()``."""
    if _runs.replayed is not None:
        return next(_runs.replayed)
    value = measure()
    if _runs.recorded is not None:
        _runs.recorded.append(value)
    return value


def placeholder(shape: Sequence[int], like: Tensor) -> Tensor:
    """An uninitialised tensor of the given shape, where autograd needs a result but no code reads its values."""
    return like.new_empty(()).expand(shape)


class _FirstRun:
    def __init__(self, measured: list[Any]) -> None:
        self.measured = measured

    def __enter__(self) -> None:
        self.before, _runs.recorded = _runs.recorded, self.measured

    def __exit__(self, *_: object) -> None:
        _runs.recorded = self.before


class _SecondRun:
    """May be entered several times: once for each backward pass through the same graph."""

    def __init__(self, modules: list[nn.Module]) -> None:
        self.measured: list[Any] = []
        # Dictionaries are copied, so that torch.func.functional_call, which exchanges their tensors, leaves ours.
        kept = "training", "_parameters", "_buffers"
        self.states = [(module, {key: copy(module.__dict__[key]) for key in kept}) for module in modules]

    def __enter__(self) -> None:
        self.before = _runs.recorded, _runs.replayed
        _runs.recorded, _runs.replayed = None, iter(self.measured)
        self.current = [(module, {key: module.__dict__[key] for key in state}) for module, state in self.states]
        for module, state in self.states:
            module.__dict__.update(state)

    def __exit__(self, *_: object) -> None:
        _runs.recorded, _runs.replayed = self.before
        for module, state in self.current:
            module.__dict__.update(state)
