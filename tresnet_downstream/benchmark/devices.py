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
    """A device that runs steps.

    Attributes:
        kind: ``cpu`` or ``cuda``.
        torch_device: the device to which tensors are moved.
    """

    kind: str
    torch_device: torch.device

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """Returns the name of the device and other properties that are needed to interpret the figures."""

    @abstractmethod
    def synchronise(self) -> None:
        """Waits until all work of the device is done."""

    @abstractmethod
    def bytes_kept(self, work: Callable[[], object]) -> int:
        """Returns the bytes that ``work`` allocates and that are still in use while its result exists."""

    @abstractmethod
    def peak_bytes(self, work: Callable[[], object], apart_from: Callable[[], Iterable[Tensor]]) -> int:
        """Returns the largest number of bytes in use at one time during ``work``, minus the bytes in use before it.

        Args:
            work: function whose memory is measured.
            apart_from: function that is called after ``work`` and returns tensors that do not count, which ``work``
                has allocated.
        """

    @abstractmethod
    def fitting(self, step: Callable[[int], object], needed: Callable[[int], int]) -> Callable[[int], bool]:
        """Returns a function that tests whether a step with a number of images fits into memory.

        Args:
            step: function that runs a step with a number of images.
            needed: function that returns the bytes that a step with a number of images needs.
        """

    @abstractmethod
    def missing_compiler(self) -> str | None:
        """Returns what ``torch.compile`` needs and this machine lacks, or None if nothing is missing."""


class Cpu(Device):
    """The CPU, whose memory is measured at torch's allocator."""

    kind = "cpu"
    torch_device = torch.device("cpu")

    def describe(self) -> dict[str, str]:
        """Returns the kind of the device only; `machine` returns the properties of the processor."""
        return {"device": "cpu"}

    def synchronise(self) -> None:
        """Does nothing, because every operator is done when it returns."""

    def bytes_kept(self, work: Callable[[], object]) -> int:
        """Returns the exact number of bytes."""
        gc.collect()
        with Allocations() as allocations:
            result = work()
        num_bytes = allocations.in_use()
        del result
        return num_bytes

    def peak_bytes(self, work: Callable[[], object], apart_from: Callable[[], Iterable[Tensor]]) -> int:
        """Returns the exact number of bytes, except for memory that a library allocates without torch's allocator."""
        gc.collect()
        with Allocations() as allocations:
            result = work()
        del result
        return allocations.peak(apart_from())

    def fitting(self, step: Callable[[int], object], needed: Callable[[int], int]) -> Callable[[int], bool]:
        """Extrapolates from the memory that two and four images need.

        Other batches are not run, because a process that uses too much memory is killed.
        """
        available = available_memory()
        if available is None:
            return lambda batch_size: True
        # A batch of one is not used, because libraries use other algorithms for a single image.
        two, four = needed(2), needed(4)
        return lambda batch_size: two + (batch_size - 2) * (four - two) / 2 <= available

    def missing_compiler(self) -> str | None:
        """Returns a hint if there is no C++ compiler, which the kernels of the CPU need."""
        names = [os.environ.get("CXX", ""), "g++", "clang++", "cl"]
        return None if any(name and shutil.which(name) for name in names) else "a C++ compiler, such as g++"


class Cuda(Device):
    """An NVIDIA GPU, or another device that torch presents as one."""

    kind = "cuda"

    def __init__(self, name: str) -> None:
        self.torch_device = torch.device(name)
        torch.cuda.set_device(self.torch_device)
        # Matrix products use the arithmetic that convolutions use by default.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32

    def describe(self) -> dict[str, str]:
        """Returns the name and memory of the GPU, the version of CUDA, and the arithmetic of float32 products."""
        properties = torch.cuda.get_device_properties(self.torch_device)
        return {
            "device": properties.name,
            "device memory": f"{properties.total_memory / 2**30:.0f} GiB",
            "CUDA": str(torch.version.cuda),
            "float32 products": "TF32" if torch.backends.cudnn.allow_tf32 else "IEEE",
        }

    def synchronise(self) -> None:
        """Waits until all work of the GPU is done."""
        torch.cuda.synchronize(self.torch_device)

    def bytes_kept(self, work: Callable[[], object]) -> int:
        """Returns the bytes counted by torch's allocator, which rounds each tensor up to a multiple of 512 bytes."""
        gc.collect()
        before = torch.cuda.memory_allocated(self.torch_device)
        result = work()
        num_bytes = torch.cuda.memory_allocated(self.torch_device) - before
        del result
        return num_bytes

    def peak_bytes(self, work: Callable[[], object], apart_from: Callable[[], Iterable[Tensor]]) -> int:
        """Returns the bytes counted by torch's allocator.

        Tensors of ``apart_from`` that exist at the time of the peak count too.
        """
        gc.collect()
        before = torch.cuda.memory_allocated(self.torch_device)
        torch.cuda.reset_peak_memory_stats(self.torch_device)
        work()
        return torch.cuda.max_memory_allocated(self.torch_device) - before

    def fitting(self, step: Callable[[int], object], needed: Callable[[int], int]) -> Callable[[int], bool]:
        """Returns a function that runs the step, and returns whether the memory was sufficient."""

        def fits(batch_size: int) -> bool:
            fitted = True
            try:
                step(batch_size)
                self.synchronise()
            except torch.OutOfMemoryError:
                fitted = False
            # This must follow the except block: until the block ends, the error holds the step's tensors.
            gc.collect()
            torch.cuda.empty_cache()
            return fitted

        return fits

    def missing_compiler(self) -> str | None:
        """Returns a hint if Triton is not installed, which the kernels of the GPU need."""
        return None if find_spec("triton") else "Triton: pip install triton"


def device_named(name: str) -> Device:
    """Returns the device with this name, such as ``cpu`` or ``cuda:1``. torch must know the name and have the device.

    Raises:
        UserError: if the device is neither a CPU nor a GPU.
    """
    kind = torch.device(name).type
    if kind == "cpu":
        return Cpu()
    if kind == "cuda":
        return Cuda(name if ":" in name else f"cuda:{torch.cuda.current_device()}")
    raise UserError(f"`device` {name}: the benchmark supports only cpu and cuda")


def largest_batch(fits: Callable[[int], bool], at_most: int = 2**16) -> int:
    """Finds the largest number of images that fit, up to ``at_most``, by doubling and bisection; 0 if none fits."""
    low, high = 0, 1
    while high <= at_most and fits(high):
        low, high = high, 2 * high
    high = min(high, at_most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def available_memory() -> int | None:
    """Returns the bytes that a process can still use without swapping, or None if /proc/meminfo has no such number."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    # The memory limit of a container may be lower than the memory of the machine.
    limit, used = (_number_in(Path("/sys/fs/cgroup") / name) for name in ("memory.max", "memory.current"))
    return available if limit is None or used is None else min(available, limit - used)


def _number_in(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
