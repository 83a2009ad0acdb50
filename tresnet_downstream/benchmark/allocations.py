"""Records the allocations of torch's CPU allocator, and computes the memory in use and its peak."""

import os
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

from torch import Tensor
from torch.profiler import ProfilerActivity, profile


class Allocations:
    """Context manager that records every allocation inside its block.

    The record includes temporary tensors inside operators and tensors that autograd's hooks do not see. Memory that was
    allocated before the block does not count, and its deallocation inside the block does not count either.
    """

    def __init__(self) -> None:
        # The profiler's library reads this variable once. If it is not set, a missing GPU is reported as an error.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        self._changes: list[tuple[int, int]] = []

    def __enter__(self) -> "Allocations":
        self._profile.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._profile.__exit__(kind, error, trace)
        self._changes = _changes(self._profile)

    def in_use(self) -> int:
        """Bytes that were allocated inside the block and are in use at its end."""
        return sum(self._sizes_at_end().values())

    def peak(self, apart_from: Iterable[Tensor] = ()) -> int:
        """Largest number of bytes in use at one time.

        Args:
            apart_from: tensors whose storages do not count, if they exist at the end of the block.
        """
        end = self._sizes_at_end()
        ignored = {tensor.untyped_storage().data_ptr() for tensor in apart_from} & end.keys()
        # The last allocation at the address of a tensor is the tensor's; earlier ones had other owners.
        last = {address: place for place, (address, size) in enumerate(self._changes) if size > 0}
        in_use = peak = 0
        sizes: dict[int, int] = {}
        for place, (address, size) in enumerate(self._changes):
            if size > 0 and not (address in ignored and last[address] == place):
                sizes[address] = size
                in_use += size
            elif size < 0:
                in_use -= sizes.pop(address, 0)
            peak = max(peak, in_use)
        return peak

    def _sizes_at_end(self) -> dict[int, int]:
        sizes: dict[int, int] = {}
        for address, size in self._changes:
            if size > 0:
                sizes[address] = size
            else:
                sizes.pop(address, None)
        return sizes


def _changes(recorded: profile) -> list[tuple[int, int]]:
    """Address and size of each allocation in order of time; a deallocation has a negative size."""
    results: Any = recorded.profiler.kineto_results  # type: ignore[union-attr]
    # Allocation events are identified by an attribute, because the types of events have no public names.
    events = [event for event in _flat(results.experimental_event_tree()) if hasattr(event.typed[1], "alloc_size")]
    events = [event for event in events if event.typed[1].device.type == "cpu"]
    events.sort(key=lambda event: event.start_time_ns)
    return [(event.typed[1].ptr, event.typed[1].alloc_size) for event in events]


def _flat(events: Iterable[Any]) -> Iterator[Any]:
    waiting = list(events)
    while waiting:
        event = waiting.pop()
        waiting.extend(event.children)
        yield event
