"""The interface of models that can be exported."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Generic, TypeVar

import numpy as np
from torch import Tensor, nn

from tresnet_downstream.errors import UserError
from tresnet_downstream.exported.file import VERSION, FileDescription
from tresnet_downstream.exported.formats.interface import Arrays

T = TypeVar("T")
Run = Callable[[Arrays], dict[str, np.ndarray]]


class DifferentOutputsError(UserError):
    """Raised if the outputs of an exported file differ from those of the model."""


class Exportable(ABC, Generic[T]):
    """A model that can be exported. ``T`` is the type of a prepared image.

    Attributes:
        kind: kind of the model, by which an exported file is opened.
        module: the module to export, in evaluation mode, on the CPU and in float32. It takes a tensor for each of
            ``inputs`` and returns one for each of ``outputs``.
        inputs, outputs: names of inputs and outputs.
        per_image: the inputs whose first axis is the batch.
        int8_modules: names of submodules of ``module`` that int8 quantises; None for all.
        size: height and width of the images in pixels.
    """

    kind: ClassVar[str]
    inputs: ClassVar[tuple[str, ...]]
    outputs: ClassVar[tuple[str, ...]]
    per_image: ClassVar[tuple[str, ...]]
    int8_modules: ClassVar[tuple[str, ...] | None] = None
    module: nn.Module
    size: tuple[int, int]

    @abstractmethod
    def description(self) -> FileDescription:
        """The data that prediction needs besides the weights, as plain values."""

    @abstractmethod
    def prepare(self, image: np.ndarray) -> T:
        """Prepares an image (height x width x 3, uint8, RGB)."""

    @abstractmethod
    def batch(self, images: Sequence[T]) -> dict[str, np.ndarray]:
        """The inputs for a batch of prepared images, by name."""

    @abstractmethod
    def example(self) -> tuple[Tensor, ...]:
        """The inputs for two images, in order. With one image, the exporter would fix the batch size to 1."""

    @abstractmethod
    def drawn(self) -> Sequence[T]:
        """Prepared synthetic images on which a float32 file is compared."""

    @abstractmethod
    def compare(self, run: Run, images: Sequence[T], int8: bool) -> str:
        """Compares a file with torch, with a single image and with batches.

        Args:
            run: function that returns the file's outputs, by name, for its inputs.
            images: images from :meth:`prepare`.
            int8: whether the file is in int8; a float32 file must agree up to rounding.

        Returns:
            a line with the differences.

        Raises:
            DifferentOutputsError: if the differences are too large.
            UserError: if the file cannot be run.
        """

    def text(self) -> str:
        """The description in the exported file, as JSON."""
        return json.dumps({"kind": self.kind, "version": VERSION, **self.description()})


def synthetic_images(number: int, height: int, width: int) -> np.ndarray:
    """Synthetic images of waves, blocks and noise, always the same: uint8 of shape (number, height, width, 3)."""
    draw = np.random.RandomState(0)
    y, x = np.mgrid[0:height, 0:width]
    images = draw.randint(0, 256, (number, height, width, 3)).astype(np.float64)
    for image in images:
        turns = draw.uniform(0.5, 8, (2, 3))
        waves = np.sin(2 * np.pi * (turns[0] * x[..., None] / width + turns[1] * y[..., None] / height))
        blocks = ((x // draw.randint(4, 40) + y // draw.randint(4, 40)) % 2)[..., None]
        image[:] = 0.2 * image + 0.4 * (127.5 + 127.5 * waves) + 0.4 * 255 * blocks
    return images.astype(np.uint8)


def batches(images: Sequence[T], most: int = 8) -> list[Sequence[T]]:
    """The first item alone, and then batches of up to ``most`` items.

    Examples:
        >>> batches([1, 2, 3, 4], most=2)
        [[1], [2, 3], [4]]
    """
    return [images[:1], *(images[start : start + most] for start in range(1, len(images), most))]
