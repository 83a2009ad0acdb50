"""Prepares one step of training or inference for timing.

All tensors are channels-last. As in timm's benchmark, a training step consists of forward pass, cross-entropy, backward
pass and a step of SGD with momentum. Training in bfloat16 and float16 uses autocast, float16 also gradient scaling.
For inference in bfloat16 and float16, weights and images are converted to the type.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tresnet_downstream.benchmark.cases import Case
from tresnet_downstream.benchmark.convolutions_alone import layers_of
from tresnet_downstream.benchmark.devices import Device
from tresnet_downstream.benchmark.networks import NUM_CLASSES, network_named
from tresnet_downstream.benchmark.work import multiply_adds
from tresnet_downstream.deployment import fuse

SEED = 0


def dtype_of(case: Case) -> torch.dtype:
    """Returns the data type in which a case computes."""
    dtype: torch.dtype = getattr(torch, case.type)
    return dtype


class Step(ABC):
    """A step of training or inference to be timed. A call runs one step with the images of the case.

    Attributes:
        case: the case of the step.
        network: network with random weights, on the device. The weights do not depend on earlier steps.
        macs: number of multiply-adds of the forward pass for one image.
        layers: convolutions and linear layers for the batch of the case, and the number of each layer.
    """

    def __init__(self, case: Case, device: Device) -> None:
        self.case, self.device = case, device
        torch.manual_seed(SEED)
        network = network_named(case.network).build()
        self.network: nn.Module = network.to(device.torch_device).to(memory_format=torch.channels_last)
        # Both count before the network is fused, because neither knows oneDNN's own operators.
        self.macs = multiply_adds(self.network, case.size)
        layers = layers_of(self.network, case.size)
        self.layers = {layer.of_batch(case.batch_size): count for layer, count in layers.items()}
        self.images, self.labels = self.batch(case.batch_size)

    @abstractmethod
    def run(self, images: Tensor, labels: Tensor) -> None:
        """Runs one step.

        Args:
            images: images of shape N x 3 x H x W, in [0, 1].
            labels: N class numbers.
        """

    def __call__(self) -> None:
        """Runs one step with the images of the case."""
        self.run(self.images, self.labels)

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        """Returns ``count`` random images, which are the same for every network, and their labels."""
        draw = torch.Generator(self.device.torch_device).manual_seed(SEED)
        device = self.device.torch_device
        images = torch.rand(count, 3, self.case.size, self.case.size, device=device, generator=draw)
        labels = torch.randint(NUM_CLASSES, (count,), device=device, generator=draw)
        return images.to(memory_format=torch.channels_last), labels

    @abstractmethod
    def peak_bytes(self, count: int | None = None) -> int:
        """Returns the peak memory of one step in bytes, without parameters, buffers, images and gradients of weights.

        Args:
            count: number of images; None for the batch size of the case.
        """

    @abstractmethod
    def needed_bytes(self, count: int) -> int:
        """Returns the bytes that a step with ``count`` images needs in addition to the weights."""

    def bytes_kept(self) -> int | None:
        """Returns the bytes in use between forward and backward pass, or None if there is no backward pass."""
        return None


class Training(Step):
    """A training step: forward pass, loss, backward pass and optimiser step."""

    def __init__(self, case: Case, device: Device) -> None:
        super().__init__(case, device)
        self.network.train()
        self.forward: Callable[[Tensor], Tensor] = (
            torch.compile(self.network) if case.form == "compiled" else self.network
        )
        self.optimiser = torch.optim.SGD(self.network.parameters(), lr=1e-4, momentum=0.9)
        self.scaler = torch.amp.GradScaler(device.kind, enabled=case.type == "float16")

    def run(self, images: Tensor, labels: Tensor) -> None:
        """Runs one step, which updates the weights."""
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(self.loss(images, labels)).backward()
        self.scaler.step(self.optimiser)
        self.scaler.update()

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Computes the forward pass up to the loss."""
        with torch.autocast(self.device.kind, dtype_of(self.case), enabled=self.case.type != "float32"):
            return F.cross_entropy(self.forward(images), labels)

    def bytes_kept(self) -> int:
        """Returns the bytes of everything that the forward pass leaves for the backward pass, however it is stored."""
        return self.device.bytes_kept(lambda: self.loss(self.images, self.labels))

    def peak_bytes(self, count: int | None = None) -> int:
        """Returns the peak memory of forward and backward pass, in bytes."""
        images, labels = (self.images, self.labels) if count is None else self.batch(count)
        self.optimiser.zero_grad(set_to_none=True)
        peak = self.device.peak_bytes(lambda: self.loss(images, labels).backward(), self._gradients)
        self.optimiser.zero_grad(set_to_none=True)
        return peak

    def needed_bytes(self, count: int) -> int:
        """Returns the bytes of the peak, the images, and one gradient and one momentum for each weight."""
        weights = sum(parameter.nbytes for parameter in self.network.parameters())
        return self.peak_bytes(count) + self.batch(count)[0].nbytes + 2 * weights

    def _gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self.network.parameters() if parameter.grad is not None]


class Inference(Step):
    """An inference step: the forward pass in evaluation mode."""

    def __init__(self, case: Case, device: Device) -> None:
        super().__init__(case, device)
        self.network.eval()
        if case.form == "fused":
            network: Any = self.network
            self.network = fuse(network)
        self.network = self.network.to(dtype_of(case)).to(memory_format=torch.channels_last)
        self.forward: Callable[[Tensor], Tensor] = self.network
        if case.form == "compiled":
            self.forward = torch.compile(self.network, options={"freezing": True})

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        """Returns the same images as in training, converted to the type of the weights, and their labels."""
        images, labels = super().batch(count)
        return images.to(dtype_of(self.case)), labels

    def run(self, images: Tensor, labels: Tensor) -> None:
        """Runs one step without gradients."""
        # Inference mode is not used, because torch's compiler does not freeze weights in it.
        with torch.no_grad():
            self.forward(images)

    def peak_bytes(self, count: int | None = None) -> int:
        """Returns the peak memory of the forward pass, in bytes."""
        images, labels = (self.images, self.labels) if count is None else self.batch(count)
        return self.device.peak_bytes(lambda: self.run(images, labels), tuple)

    def needed_bytes(self, count: int) -> int:
        """Returns the bytes of the peak and the images."""
        return self.peak_bytes(count) + self.batch(count)[0].nbytes


def prepared(case: Case, device: Device) -> Step:
    """Returns a step that is ready for its first call.

    Raises:
        UserError: if the network cannot be built on this machine.
    """
    return Training(case, device) if case.task == "training" else Inference(case, device)
