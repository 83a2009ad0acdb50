"""A lower bound for the time of a step: the time of its convolutions and matrix products, each run alone.

A matrix product with the same number of operations is not a valid reference: in float32 on AMD processors, torch's
matrix products reach half the speed of its convolutions. Therefore, each layer is timed with its own shape, type and
memory layout, and with the fastest of torch's operators.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from tresnet_downstream.benchmark.devices import Device
from tresnet_downstream.deployment.fused_layers import FusedConvolution

FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT = "forward", "input gradient", "weight gradient"
_TRIALS = 2  # timed calls of each operator, after one warm-up call, to choose the fastest operator


@dataclass(frozen=True)
class Layer:
    """Shapes of a convolution without bias. A linear layer is a 1x1 convolution of images of one pixel.

    Attributes:
        inputs: shape of the inputs, N x C x H x W.
        weight: shape of the weight, out x C / groups x height x width.
        stride: vertical and horizontal stride.
        padding: vertical and horizontal zero padding on each side.
        dilation: vertical and horizontal distance between the weights.
        groups: number of channel groups.
        input_gradient: whether training needs the gradient of the inputs; False for the first layer, whose inputs are
            the images.
        weight_gradient: whether training needs the gradient of the weight; False for constant weights, such as those of
            a blur.
    """

    inputs: tuple[int, ...]
    weight: tuple[int, ...]
    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1
    input_gradient: bool = True
    weight_gradient: bool = True

    @property
    def outputs(self) -> tuple[int, ...]:
        """Shape of the outputs, N x out x H' x W'."""
        sides = (
            (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for side, kernel, stride, padding, dilation in zip(
                self.inputs[2:], self.weight[2:], self.stride, self.padding, self.dilation, strict=True
            )
        )
        return (self.inputs[0], self.weight[0], *sides)

    @property
    def macs(self) -> int:
        """Number of multiply-adds of the forward pass."""
        return prod(self.weight) * prod(self.outputs) // self.weight[0]

    @property
    def is_product(self) -> bool:
        """Whether the layer is a matrix product of pixels and weights."""
        is_plain = (self.stride, self.padding, self.groups) == ((1, 1), (0, 0), 1)
        return is_plain and self.weight[2:] == (1, 1)

    def of_batch(self, count: int) -> "Layer":
        """Returns the same layer for ``count`` times as many images."""
        return replace(self, inputs=(count * self.inputs[0], *self.inputs[1:]))

    def passes(self, task: str) -> tuple[str, ...]:
        """Returns the names of the passes of this layer that a step runs.

        Args:
            task: ``training`` or ``inference``.
        """
        if task == "inference":
            return (FORWARD,)
        gradients = ((INPUT_GRADIENT, self.input_gradient), (WEIGHT_GRADIENT, self.weight_gradient))
        return (FORWARD, *(name for name, is_needed in gradients if is_needed))


def layers_of(network: nn.Module, size: int) -> Counter[Layer]:
    """Counts the convolutions and linear layers of the forward pass in evaluation mode.

    Args:
        network: network that takes an input of shape 1 x 3 x ``size`` x ``size``.
        size: side of the image, in pixels.

    Returns:
        the number of each layer for one image. Other matrix products, such as those of attention, are not counted.
    """
    first = next(network.parameters())
    image = torch.zeros(1, 3, size, size, device=first.device, dtype=first.dtype)
    constants = {buffer.untyped_storage().data_ptr() for buffer in network.buffers()}
    training = network.training
    with torch.no_grad(), _Recorder(constants) as recorder:
        network.eval()(image)
    network.train(training)
    first_layers = [replace(layer, input_gradient=False) for layer in recorder.layers[:1]]
    return Counter(first_layers + recorder.layers[1:])


class _Recorder(TorchDispatchMode):
    """Context manager that records the layers inside its block, whichever modules call them.

    Args:
        constants: addresses of the storages of weights that are not trained.
    """

    def __init__(self, constants: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layers: list[Layer] = []
        self._constants = constants

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        packet = func.overloadpacket
        if packet is torch.ops.aten.convolution and not args[6] and args[0].dim() == 4:
            inputs, weight, _, stride, padding, dilation, _, _, groups = args
            settings = (tuple(stride), tuple(padding), tuple(dilation), groups)
            self._record(Layer(tuple(inputs.shape), tuple(weight.shape), *settings), weight)
        elif packet in (torch.ops.aten.mm, torch.ops.aten.addmm):
            inputs, weight = args[-2:]
            self._record(Layer((*inputs.shape, 1, 1), (*weight.shape[::-1], 1, 1)), weight)
        return func(*args, **(kwargs or {}))

    def _record(self, layer: Layer, weight: Tensor) -> None:
        is_trained = weight.untyped_storage().data_ptr() not in self._constants
        self.layers.append(replace(layer, weight_gradient=is_trained))


class ConvolutionsAlone:
    """Runs every layer of several networks by itself; each call is one round.

    Layers of equal shape are timed together. In a round, such a layer runs as many times in a row as it occurs in the
    network that has the most of it. Therefore, a round takes about as long as the convolutions of one step.

    Args:
        networks: for each network, the layers of a step and the number of each layer.
        task: ``training`` (forward, input gradient and weight gradient) or ``inference``.
        dtype: data type of inputs, weights and gradients.
        device: device that runs the layers.
    """

    def __init__(self, networks: Iterable[Mapping[Layer, int]], task: str, dtype: torch.dtype, device: Device) -> None:
        self._task, self._device = task, device
        self._counts: Counter[Layer] = Counter()
        for layers in networks:
            self._counts |= Counter(layers)
        operands = _Operands(self._counts, dtype, device)
        self._ways = {
            (layer, name): self._fastest(_ways(layer, name, task, operands))
            for layer in self._counts
            for name in layer.passes(task)
        }
        self._rounds: list[dict[Layer, float]] = []

    def __call__(self) -> None:
        """Times every pass of every layer."""
        seconds = dict.fromkeys(self._counts, 0.0)
        for (layer, _), way in self._ways.items():
            seconds[layer] += self._seconds(way, self._counts[layer])
        self._rounds.append(seconds)

    def seconds(self, layers: Mapping[Layer, int]) -> tuple[float, ...]:
        """Returns the seconds that the layers of one network took in each round.

        Args:
            layers: layers of one of the networks that the constructor received, and the number of each layer.
        """
        return tuple(sum(count * times[layer] for layer, count in layers.items()) for times in self._rounds)

    def _fastest(self, ways: Sequence[Callable[[], object]]) -> Callable[[], object]:
        if len(ways) == 1:
            return ways[0]
        for way in ways:
            self._seconds(way, 1)
        return min(ways, key=lambda way: min(self._seconds(way, 1) for _ in range(_TRIALS)))

    def _seconds(self, way: Callable[[], object], count: int) -> float:
        """Returns the mean time of ``count`` calls in a row, in seconds."""
        # Inference mode is not used, because oneDNN's operators have no kernels of their own for it.
        with torch.no_grad():
            self._device.synchronise()
            begin = time.perf_counter()
            for _ in range(count):
                way()
            self._device.synchronise()
            return (time.perf_counter() - begin) / count


class _Operands:
    """Channels-last tensors for layers that run one at a time; the tensors of all layers share the same memory."""

    def __init__(self, layers: Iterable[Layer], dtype: torch.dtype, device: Device) -> None:
        shapes = [(layer.inputs, layer.weight, layer.outputs) for layer in layers]
        # The values are small and have both signs, so that sums neither overflow nor become denormal.
        self._inputs, self._weights, self._gradients = (
            (torch.rand(max(map(prod, kind)), device=device.torch_device) - 0.5).to(dtype)
            for kind in zip(*shapes, strict=True)
        )

    def of(self, layer: Layer) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the inputs, the weight and the gradient of the outputs of a layer."""
        memory = (self._inputs, self._weights, self._gradients)
        return tuple(map(_channels_last, memory, (layer.inputs, layer.weight, layer.outputs)))  # type: ignore[return-value]


def _channels_last(memory: Tensor, shape: tuple[int, ...]) -> Tensor:
    first, channels, height, width = shape
    return memory[: prod(shape)].view(first, height, width, channels).permute(0, 3, 1, 2)


def _ways(layer: Layer, name: str, task: str, operands: _Operands) -> list[Callable[[], object]]:
    """Returns the operators that can compute one pass of a layer."""
    inputs, weight, gradient = operands.of(layer)
    ways = [_convolution(layer, name, inputs, weight, gradient)]
    if layer.is_product:
        ways.append(_product(name, inputs, weight, gradient))
    if task == "inference" and _fits_fused_convolution(layer, inputs):
        # The layout of constant weights may be changed beforehand, as in fused and compiled networks.
        fused = FusedConvolution(weight, weight.new_zeros(len(weight)))
        ways.append(lambda: fused(inputs))
    return ways


def _convolution(layer: Layer, name: str, inputs: Tensor, weight: Tensor, gradient: Tensor) -> Callable[[], object]:
    stride, padding, dilation, groups = layer.stride, layer.padding, layer.dilation, layer.groups
    if name == FORWARD:
        return lambda: F.conv2d(inputs, weight, None, stride, padding, dilation, groups)
    backward = torch.ops.aten.convolution_backward
    settings = (None, stride, padding, dilation, False, (0, 0), groups)
    which = [name == INPUT_GRADIENT, name == WEIGHT_GRADIENT, False]
    return lambda: backward(gradient, inputs, weight, *settings, which)


def _product(name: str, inputs: Tensor, weight: Tensor, gradient: Tensor) -> Callable[[], object]:
    """Returns the matrix product that computes one pass of a layer.

    The product returns one row per pixel or, for the weight gradient, a matrix of the weight's shape.
    """
    pixels, gradients = (tensor.permute(0, 2, 3, 1).flatten(0, 2) for tensor in (inputs, gradient))
    matrix = weight.flatten(1)
    if name == FORWARD:
        return lambda: F.linear(pixels, matrix)
    return (lambda: gradients @ matrix) if name == INPUT_GRADIENT else (lambda: gradients.T @ pixels)


def _fits_fused_convolution(layer: Layer, inputs: Tensor) -> bool:
    kernel = layer.weight[2]
    is_centred = layer.weight[2:] == (kernel, kernel) and layer.padding == (kernel // 2,) * 2 and kernel % 2 == 1
    is_plain = (layer.stride, layer.dilation, layer.groups) == ((1, 1), (1, 1), 1)
    return inputs.device.type == "cpu" and is_centred and is_plain


@dataclass(frozen=True)
class Share:
    """Share of a step's time that its convolutions take if they run alone, in (0, 1].

    Attributes:
        median: median over the repeats.
        quartiles: first and third quartile over the repeats.
    """

    median: float
    quartiles: tuple[float, float]

    def __str__(self) -> str:
        low, high = self.quartiles
        return f"{self.median:.0%} ({low:.0%} to {high:.0%})"


def share_of_step(alone: Sequence[float], steps: Sequence[float]) -> Share | None:
    """Computes the share of a step's time that its convolutions take if they run alone.

    Args:
        alone: seconds of the convolutions alone, for each repeat.
        steps: seconds of the whole step, for each repeat.

    Returns:
        the share, or None if its third quartile is above 1. A step cannot take less time than its parts, so in that
        case either the machine was busier while the convolutions ran alone, or the step uses a faster implementation
        of them.
    """
    low, median, high = np.percentile(np.divide(alone, steps), (25, 50, 75)).tolist()
    return Share(median, (low, high)) if high <= 1 else None
