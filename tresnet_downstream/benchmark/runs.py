"""Prepares one step of training or inference for timing.

Everything is channels-last. Training is as timm's benchmark has it: forward, cross-entropy, backward and a step of SGD
with momentum; the short types by autocast, float16 with its gradients scaled. Inference has the weights and pictures
converted to the short types.
"""

from abc import ABC, abstractmethod
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
    """The data type in which a case computes."""
    dtype: torch.dtype = getattr(torch, case.type)
    return dtype


class Step(ABC):
    """What is timed: calling it does one step with the case's pictures.

    Attributes:
        case: what it is a step of.
        network: with random weights, on the device; the same whatever ran before.
        macs: multiply-adds of its forward pass for a picture.
        layers: its convolutions and linear layers for the case's pictures, and how many there are of each.
    """

    def __init__(self, case: Case, device: Device) -> None:
        self.case, self.device = case, device
        torch.manual_seed(SEED)
        network = network_named(case.network).build()
        self.network: nn.Module = network.to(device.torch_device).to(memory_format=torch.channels_last)
        # Before the network is fused: neither knows oneDNN's own operators.
        self.macs = multiply_adds(self.network, case.size)
        layers = layers_of(self.network, case.size)
        self.layers = {layer.of_batch(case.batch_size): count for layer, count in layers.items()}
        self.images, self.labels = self.batch(case.batch_size)

    @abstractmethod
    def run(self, images: Tensor, labels: Tensor) -> None:
        """One step with these pictures, N x 3 x H x W in [0, 1], and N class numbers."""

    def __call__(self) -> None:
        """One step with the case's pictures."""
        self.run(self.images, self.labels)

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        """Random pictures, the same for every network, and labels."""
        draw = torch.Generator(self.device.torch_device).manual_seed(SEED)
        options: Any = {"device": self.device.torch_device, "generator": draw}
        images = torch.rand(count, 3, self.case.size, self.case.size, **options)
        labels = torch.randint(NUM_CLASSES, (count,), **options)
        return images.to(memory_format=torch.channels_last), labels

    @abstractmethod
    def peak_bytes(self, count: int | None = None) -> int:
        """Of one step, without parameters, buffers, pictures and what the weights' gradients take.

        Args:
            count: of pictures; the case's if None.
        """

    @abstractmethod
    def needed_bytes(self, count: int) -> int:
        """What a step with so many pictures takes beyond the weights."""

    def bytes_kept(self) -> int | None:
        """What is in use between forward and backward pass; None where there is no backward."""
        return None


class Training(Step):
    """Forward, loss, backward and the optimiser's step."""

    def __init__(self, case: Case, device: Device) -> None:
        super().__init__(case, device)
        self.network.train()
        self.forward: Any = torch.compile(self.network) if case.form == "compiled" else self.network
        self.optimiser = torch.optim.SGD(self.network.parameters(), lr=1e-4, momentum=0.9)
        self.scaler = torch.amp.GradScaler(device.kind, enabled=case.type == "float16")

    def run(self, images: Tensor, labels: Tensor) -> None:
        """One step; the weights move."""
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(self.loss(images, labels)).backward()
        self.scaler.step(self.optimiser)
        self.scaler.update()

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """The forward pass up to the loss."""
        with torch.autocast(self.device.kind, dtype_of(self.case), enabled=self.case.type != "float32"):
            return F.cross_entropy(self.forward(images), labels)

    def bytes_kept(self) -> int:
        """Everything that the forward pass leaves for the backward pass, however it is kept."""
        return self.device.bytes_kept(lambda: self.loss(self.images, self.labels))

    def peak_bytes(self, count: int | None = None) -> int:
        """Of forward and backward pass."""
        images, labels = (self.images, self.labels) if count is None else self.batch(count)
        self.optimiser.zero_grad(set_to_none=True)
        peak = self.device.peak_bytes(lambda: self.loss(images, labels).backward(), self._gradients)
        self.optimiser.zero_grad(set_to_none=True)
        return peak

    def needed_bytes(self, count: int) -> int:
        """The peak, the pictures, and for each weight a gradient and a momentum."""
        weights = sum(parameter.nbytes for parameter in self.network.parameters())
        return self.peak_bytes(count) + self.batch(count)[0].nbytes + 2 * weights

    def _gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self.network.parameters() if parameter.grad is not None]


class Inference(Step):
    """The forward pass in evaluation mode."""

    def __init__(self, case: Case, device: Device) -> None:
        super().__init__(case, device)
        self.network.eval()
        if case.form == "fused":
            network: Any = self.network
            self.network = fuse(network)
        self.network = self.network.to(dtype_of(case)).to(memory_format=torch.channels_last)
        self.forward: Any = self.network
        if case.form == "compiled":
            self.forward = torch.compile(self.network, options={"freezing": True})

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        """As in training, but in the type of the weights."""
        images, labels = super().batch(count)
        return images.to(dtype_of(self.case)), labels

    def run(self, images: Tensor, labels: Tensor) -> None:
        """One step, without a gradient."""
        # Not inference mode, in which torch's compiler does not freeze weights.
        with torch.no_grad():
            self.forward(images)

    def peak_bytes(self, count: int | None = None) -> int:
        """Of the forward pass."""
        images, labels = (self.images, self.labels) if count is None else self.batch(count)
        return self.device.peak_bytes(lambda: self.run(images, labels), tuple)

    def needed_bytes(self, count: int) -> int:
        """The peak and the pictures."""
        return self.peak_bytes(count) + self.batch(count)[0].nbytes


def prepared(case: Case, device: Device) -> Step:
    """A step that is ready for its first call.

    Raises:
        UserError: if the network cannot be built here.
    """
    return Training(case, device) if case.task == "training" else Inference(case, device)
