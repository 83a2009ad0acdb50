"""Activation checkpointing that computes batch statistics once.

The forward pass is run a second time for the backward pass (Chen et al., 2016). The second run uses the batch
statistics, parameters, buffers and modes of the first, even if the modules have changed since. It therefore does not
update running statistics and reads each feature map once less.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Measured = TypeVar("Measured")
Result = TypeVar("Result")


class _Runs(threading.local):
    """The batch statistics and decisions that the current thread records in the first run and reuses in the second."""

    recorded: list[object] | None = None
    replayed: Iterator[Any] | None = None


_runs = _Runs()


def checkpointed(
    run: Callable[[Tensor], Result], x: Tensor, modules: Sequence[nn.Module], draws: bool = True
) -> Result:
    """Calls ``run(x)`` and saves only ``x`` and the batch statistics for the backward pass.

    Args:
        run: a function that calls the modules.
        x: the argument of ``run``.
        modules: the modules that ``run`` calls.
        draws: whether ``run`` draws random numbers. The second run then restores the random state of the first.
    """
    second = _SecondRun([part for module in modules for part in module.modules()])
    contexts = _FirstRun(second.measured), second
    return checkpoint(run, x, use_reentrant=False, preserve_rng_state=draws, context_fn=lambda: contexts)


def is_recomputing() -> bool:
    """Whether the current thread is in a second run."""
    return _runs.replayed is not None


def measured_once(measure: Callable[[], Measured]) -> Measured:
    """``measure()``, or in a second run the value of the same call in the first. Both runs call in the same order."""
    if _runs.replayed is not None:
        replayed: Measured = next(_runs.replayed)
        return replayed
    value = measure()
    if _runs.recorded is not None:
        _runs.recorded.append(value)
    return value


def placeholder(shape: Sequence[int], like: Tensor) -> Tensor:
    """An uninitialised tensor of the given shape, for results that autograd needs but whose values no code reads."""
    return like.new_empty(()).expand(shape)


class _FirstRun:
    def __init__(self, measured: list[object]) -> None:
        self.measured = measured

    def __enter__(self) -> None:
        self.outer, _runs.recorded = _runs.recorded, self.measured

    def __exit__(self, *_: object) -> None:
        _runs.recorded = self.outer


class _SecondRun:
    """The context of the second run. It is entered once for each backward pass through the same graph."""

    def __init__(self, modules: list[nn.Module]) -> None:
        self.measured: list[object] = []
        # Dictionaries are copied, because torch.func.functional_call replaces tensors in the modules' own.
        keys = "training", "_parameters", "_buffers"
        self.states = [(module, {key: copy(module.__dict__[key]) for key in keys}) for module in modules]

    def __enter__(self) -> None:
        self.outer = _runs.recorded, _runs.replayed
        _runs.recorded, _runs.replayed = None, iter(self.measured)
        self.current = [(module, {key: module.__dict__[key] for key in state}) for module, state in self.states]
        for module, state in self.states:
            module.__dict__.update(state)

    def __exit__(self, *_: object) -> None:
        _runs.recorded, _runs.replayed = self.outer
        for module, state in self.current:
            module.__dict__.update(state)
