"""The work in a network, and how fast the machine multiplies matrices."""

import time
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tresnet_downstream.benchmark.devices import Device

# Each convolution of the forward pass has two of the same work in the backward: to its input and to its weights.
PASSES = {"inference": 1, "training": 3}
_LONG_ENOUGH = 0.05  # seconds, above which the start of a product does not matter
_LARGEST_SIDE = 8192


def multiply_adds(network: nn.Module, size: int) -> int:
    """Multiply-adds of the forward pass in evaluation mode, for one picture of ``size`` x ``size`` pixels."""
    first = next(network.parameters())
    picture = torch.zeros(1, 3, size, size, device=first.device, dtype=first.dtype)
    training = network.training
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(picture)
    network.train(training)
    # torch counts a multiplication and an addition as two.
    return counter.get_total_flops() // 2


class MatrixProduct:
    """A square matrix product that keeps the device busy: what its speed is the ceiling of.

    Attributes:
        side: of the matrices, chosen so that the product takes long enough to be timed.
    """

    def __init__(self, device: Device, dtype: torch.dtype) -> None:
        self.side = 128
        while self.side < _LARGEST_SIDE:
            self.side *= 2
            self._matrix = torch.rand(self.side, self.side, device=device.torch_device).to(dtype)
            self._out = torch.empty_like(self._matrix)
            self()
            if _seconds(self, device) > _LONG_ENOUGH:
                break

    def __call__(self) -> None:
        """Multiplies once."""
        torch.mm(self._matrix, self._matrix, out=self._out)

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        return 2 * self.side**3


def _seconds(work: Callable[[], object], device: Device) -> float:
    device.synchronise()
    begin = time.perf_counter()
    work()
    device.synchronise()
    return time.perf_counter() - begin


def share_of_ceiling(macs: int, task: str, images_per_second: float, ceiling: float) -> float:
    """The part of the machine's speed that goes into a network's convolutions and products.

    Args:
        macs: multiply-adds of the forward pass for one picture.
        task: ``training`` or ``inference``.
        images_per_second: of the whole step.
        ceiling: operations in a second of a large matrix product in the same type.
    """
    return 2 * PASSES[task] * macs * images_per_second / ceiling
