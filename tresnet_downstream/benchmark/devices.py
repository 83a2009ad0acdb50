"""Operations that differ between the CPU and a GPU: synchronisation, memory measurement, description."""

import gc
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from tresnet_downstream.benchmark.allocations import Allocations
from tresnet_downstream.errors import UserError


class Device(ABC):
    """Where steps run.

    Attributes:
        kind: ``cpu`` or ``cuda``.
        torch_device: what tensors are moved to.
    """

    kind: str
    torch_device: torch.device

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """Its name and what else a reader needs who judges the figures later."""

    @abstractmethod
    def synchronise(self) -> None:
        """Waits until all work is done."""

    @abstractmethod
    def bytes_kept(self, work: Callable[[], object]) -> int:
        """Bytes allocated in ``work`` that are still in use while its result is."""

    @abstractmethod
    def peak_bytes(self, work: Callable[[], object], apart_from: Callable[[], Iterable[Tensor]]) -> int:
        """Most bytes in use at a time within ``work``, above what was in use before.

        Args:
            work: what allocates.
            apart_from: called after it; tensors that came to be within it and do not count.
        """

    @abstractmethod
    def fitting(self, step: Callable[[int], object], needed: Callable[[int], int]) -> Callable[[int], bool]:
        """Gives a function that says whether a step of so many pictures fits.

        Args:
            step: does one with so many.
            needed: the bytes that it takes.
        """

    @abstractmethod
    def missing_compiler(self) -> str | None:
        """What ``torch.compile`` lacks here, if anything."""


class Cpu(Device):
    """The processor and its memory, measured at torch's allocator."""

    kind = "cpu"
    torch_device = torch.device("cpu")

    def describe(self) -> dict[str, str]:
        """Nothing beyond what `machine` says."""
        return {"device": "cpu"}

    def synchronise(self) -> None:
        """Nothing: every operator is done when it returns."""

    def bytes_kept(self, work: Callable[[], object]) -> int:
        """Exact."""
        gc.collect()
        with Allocations() as allocations:
            result = work()
        num_bytes = allocations.in_use()
        del result
        return num_bytes

    def peak_bytes(self, work: Callable[[], object], apart_from: Callable[[], Iterable[Tensor]]) -> int:
        """Exact, save for what a library allocates past torch."""
        gc.collect()
        with Allocations() as allocations:
            result = work()
        del result
        return allocations.peak(apart_from())

    def fitting(self, step: Callable[[int], object], needed: Callable[[int], int]) -> Callable[[int], bool]:
        """By arithmetic, from what two and four pictures need: a process that takes too much is killed."""
        available = available_memory()
        if available is None:
            return lambda batch_size: True
        # Not from one: libraries take other ways for a single picture.
        two, four = needed(2), needed(4)
        return lambda batch_size: two + (batch_size - 2) * (four - two) / 2 <= available

    def missing_compiler(self) -> str | None:
        """A C++ compiler, which the CPU's kernels need."""
        names = [os.environ.get("CXX", ""), "g++", "clang++", "cl"]
        return None if any(name and shutil.which(name) for name in names) else "a C++ compiler, such as g++"


class Cuda(Device):
    """An NVIDIA GPU, or what torch shows as one."""

    kind = "cuda"

    def __init__(self, name: str) -> None:
        self.torch_device = torch.device(name)
        torch.cuda.set_device(self.torch_device)
        # Products of matrices in the same arithmetic as convolutions have by default.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32

    def describe(self) -> dict[str, str]:
        """Name and memory, CUDA's version, and how float32 is multiplied."""
        properties = torch.cuda.get_device_properties(self.torch_device)
        return {
            "device": properties.name,
            "device memory": f"{properties.total_memory / 2**30:.0f} GiB",
            "CUDA": str(torch.version.cuda),
            "float32 products": "TF32" if torch.backends.cudnn.allow_tf32 else "IEEE",
        }

    def synchronise(self) -> None:
        """Waits for the GPU."""
        torch.cuda.synchronize(self.torch_device)

    def bytes_kept(self, work: Callable[[], object]) -> int:
        """By the allocator, which rounds each tensor up to 512 bytes."""
        gc.collect()
        before = torch.cuda.memory_allocated(self.torch_device)
        result = work()
        num_bytes = torch.cuda.memory_allocated(self.torch_device) - before
        del result
        return num_bytes

    def peak_bytes(self, work: Callable[[], object], apart_from: Callable[[], Iterable[Tensor]]) -> int:
        """By the allocator; of ``apart_from``, what is there at the time of the peak counts all the same."""
        gc.collect()
        before = torch.cuda.memory_allocated(self.torch_device)
        torch.cuda.reset_peak_memory_stats(self.torch_device)
        work()
        return torch.cuda.max_memory_allocated(self.torch_device) - before

    def fitting(self, step: Callable[[int], object], needed: Callable[[int], int]) -> Callable[[int], bool]:
        """By trying."""

        def fits(batch_size: int) -> bool:
            fitted = True
            try:
                step(batch_size)
                self.synchronise()
            except torch.OutOfMemoryError:
                fitted = False
            # Only here, where the error no longer holds the step's tensors.
            gc.collect()
            torch.cuda.empty_cache()
            return fitted

        return fits

    def missing_compiler(self) -> str | None:
        """Triton, which the GPU's kernels need."""
        return None if find_spec("triton") else "Triton: pip install triton"


def device_named(name: str) -> Device:
    """The device of a name that torch knows and has, such as ``cpu`` or ``cuda:1``.

    Raises:
        UserError: if it is neither CPU nor GPU.
    """
    kind = torch.device(name).type
    if kind == "cpu":
        return Cpu()
    if kind == "cuda":
        return Cuda(name if ":" in name else f"cuda:{torch.cuda.current_device()}")
    raise UserError(f"`device` {name}: the benchmark measures on cpu and cuda")


def largest_batch(fits: Callable[[int], bool], at_most: int = 2**16) -> int:
    """The most pictures that fit, up to ``at_most``, by doubling and bisection; 0 if not even one does."""
    low, high = 0, 1
    while high <= at_most and fits(high):
        low, high = high, 2 * high
    high = min(high, at_most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def available_memory() -> int | None:
    """Bytes that a process may still take without swapping, or None where Linux does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    # A container may take less than the machine has.
    limit, used = (_number_in(Path("/sys/fs/cgroup") / name) for name in ("memory.max", "memory.current"))
    return available if limit is None or used is None else min(available, limit - used)


def _number_in(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
