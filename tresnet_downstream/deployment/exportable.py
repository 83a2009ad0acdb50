"""What a kind of model gives to be exported, and what each exported file says of itself."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from torch import Tensor, nn

from tresnet_downstream.exported.file import VERSION
from tresnet_downstream.exported.formats.interface import Arrays

T = TypeVar("T")
Run = Callable[[Arrays], dict[str, np.ndarray]]


class Exportable(ABC, Generic[T]):
    """A model of some kind that can be exported; ``T`` is what is kept of a picture.

    Attributes:
        kind: of model, by which an exported file is opened again.
        module: what is exported, in evaluation mode, on the CPU and in float32. Takes a tensor for each of ``inputs``,
            gives one for each of ``outputs``.
        inputs, outputs: names.
        per_picture: of ``inputs``, those with a first axis of pictures, in any number.
        int8_modules: names of modules below ``module`` whose operations int8 quantises; None for all.
        size: height and width of the pictures, in pixels.
    """

    kind: ClassVar[str]
    inputs: ClassVar[tuple[str, ...]]
    outputs: ClassVar[tuple[str, ...]]
    per_picture: ClassVar[tuple[str, ...]]
    int8_modules: ClassVar[tuple[str, ...] | None] = None
    module: nn.Module
    size: tuple[int, int]

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """What prediction needs to know beside the weights, as plain data."""

    @abstractmethod
    def prepare(self, picture: np.ndarray) -> T:
        """What is kept of a picture (height x width x 3, uint8, RGB)."""

    @abstractmethod
    def batch(self, pictures: Sequence[T]) -> dict[str, np.ndarray]:
        """The inputs for pictures, by name."""

    @abstractmethod
    def example(self) -> tuple[Tensor, ...]:
        """The inputs for two pictures, in order: the exporter takes an axis of length 1 for one that stays so."""

    @abstractmethod
    def drawn(self) -> Sequence[T]:
        """Pictures that a float32 file is compared on."""

    @abstractmethod
    def compare(self, run: Run, pictures: Sequence[T], int8: bool) -> str:
        """Compares a file with torch, one picture at a time and several.

        Args:
            run: the file's outputs, by name, for its inputs.
            pictures: from :meth:`prepare`.
            int8: whether the file is in int8; a float32 file must agree within rounding.

        Returns:
            a line that says how far they are apart.

        Raises:
            UserError: if they are too far apart.
        """

    def text(self) -> str:
        """What an exported file says of itself."""
        return json.dumps({"kind": self.kind, "version": VERSION, **self.description()})


def drawn_pictures(number: int, height: int, width: int) -> np.ndarray:
    """Waves, blocks and noise, drawn from one seed: ``number`` x ``height`` x ``width`` x 3, uint8."""
    draw = np.random.RandomState(0)
    y, x = np.mgrid[0:height, 0:width]
    pictures = draw.randint(0, 256, (number, height, width, 3)).astype(np.float64)
    for picture in pictures:
        turns = draw.uniform(0.5, 8, (2, 3))
        waves = np.sin(2 * np.pi * (turns[0] * x[..., None] / width + turns[1] * y[..., None] / height))
        blocks = ((x // draw.randint(4, 40) + y // draw.randint(4, 40)) % 2)[..., None]
        picture[:] = 0.2 * picture + 0.4 * (127.5 + 127.5 * waves) + 0.4 * 255 * blocks
    return pictures.astype(np.uint8)


def batches(pictures: Sequence[T], most: int = 8) -> list[Sequence[T]]:
    """The first picture alone, and the others up to ``most`` at a time."""
    return [pictures[:1], *(pictures[start : start + most] for start in range(1, len(pictures), most))]
