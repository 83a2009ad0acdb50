"""Records the allocations of torch's CPU allocator, and computes the memory in use and its peak."""

import os
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

from torch import Tensor
from torch.profiler import ProfilerActivity, profile


class Allocations:
    """Records every allocation of the block that it surrounds.

    Tensors that an operator holds for a moment are seen too, as are those that escape autograd's hooks. What existed
    before the block does not count, nor does giving it back.
    """

    def __init__(self) -> None:
        # Read once by the profiler's library, which otherwise reports the lack of a GPU as an error.
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
        """Bytes at the end of the block."""
        return sum(self._sizes_at_end().values())

    def peak(self, apart_from: Iterable[Tensor] = ()) -> int:
        """Most bytes in use at a time, without the storages of tensors that were there at the end."""
        end = self._sizes_at_end()
        ignored = {tensor.untyped_storage().data_ptr() for tensor in apart_from} & end.keys()
        # The last allocation at such an address is the tensor's; earlier ones there were others'.
        last = {address: place for place, (address, size) in enumerate(self._changes) if size > 0}
        in_use = most = 0
        sizes: dict[int, int] = {}
        for place, (address, size) in enumerate(self._changes):
            if size > 0 and not (address in ignored and last[address] == place):
                sizes[address] = size
                in_use += size
            elif size < 0:
                in_use -= sizes.pop(address, 0)
            most = max(most, in_use)
        return most

    def _sizes_at_end(self) -> dict[int, int]:
        sizes: dict[int, int] = {}
        for address, size in self._changes:
            if size > 0:
                sizes[address] = size
            else:
                sizes.pop(address, None)
        return sizes


def _changes(recorded: profile) -> list[tuple[int, int]]:
    """Address and size of each allocation in order of time; negative sizes are given back."""
    results: Any = recorded.profiler.kineto_results  # type: ignore[union-attr]
    # Told by what they have: the event's types have no public names.
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
