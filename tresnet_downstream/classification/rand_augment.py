"""RandAugment of the published multi-label recipes, with the operations of the package ``randaugment`` 1.0.2.

An operation takes and returns uint8 arrays of shape (height, width, 3) in RGB. The results equal those of the package,
which uses Pillow. `draw_steps` draws all random values before the operations are applied.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tresnet_downstream.classification import pixel_operations as pixels

MAGNITUDES = range(1, 10)
NUM_STEPS = 2
STEP_PROBABILITY = 0.5
FILL = (128, 128, 128)
CUTOUT_FILL = (125, 122, 113)
CUTOUT_SIZES = (0, 2, 4, 7, 9, 11, 13, 16, 18, 20)  # in pixels, independent of the size of the image


@dataclass(frozen=True)
class Operation:
    """An operation on an image.

    Attributes:
        apply: a function of the image and a strength, which returns the changed image.
        strengths: the strength for each of the magnitudes 0 to 9; zeros if the operation has no strength.
        signed: whether the strength is negated with probability 0.5.
    """

    apply: Callable[[np.ndarray, float], np.ndarray]
    strengths: tuple[float, ...] = (0.0,) * 10
    signed: bool = False


class Step(NamedTuple):
    """A drawn operation: name, magnitude (1 to 9), sign, and (row, column) of the centre of a cutout."""

    name: str
    magnitude: int
    sign: int
    centre: tuple[int, int]


def _linear(last: float) -> tuple[float, ...]:
    return tuple(np.linspace(0, last, 10).tolist())


# The fifteenth operation is Cutout, which also needs a position.
OPERATIONS = {
    "Invert": Operation(lambda image, _: pixels.invert(image)),
    "AutoContrast": Operation(lambda image, _: pixels.auto_contrast(image)),
    "Equalize": Operation(lambda image, _: pixels.equalize(image)),
    "Posterize": Operation(lambda image, bits: pixels.posterize(image, int(bits)), (8, 8, 7, 7, 6, 6, 5, 5, 4, 4)),
    "Solarize": Operation(
        lambda image, threshold: pixels.solarize(image, int(threshold)),
        (256, 228, 200, 171, 143, 114, 86, 57, 29, 0),
    ),
    "Rotate": Operation(lambda image, degrees: pixels.rotate(image, degrees, FILL), _linear(30)),
    "ShearX": Operation(lambda image, slope: pixels.shear_x(image, slope, FILL), _linear(0.3), signed=True),
    "ShearY": Operation(lambda image, slope: pixels.shear_y(image, slope, FILL), _linear(0.3), signed=True),
    "TranslateX": Operation(
        lambda image, part: pixels.translate(image, part * image.shape[1], 0, FILL), _linear(150 / 331), signed=True
    ),
    "TranslateY": Operation(
        lambda image, part: pixels.translate(image, 0, part * image.shape[0], FILL), _linear(150 / 331), signed=True
    ),
    "Contrast": Operation(lambda image, change: pixels.contrast(image, 1 + change), _linear(0.9), signed=True),
    "Color": Operation(lambda image, change: pixels.colour(image, 1 + change), _linear(0.9), signed=True),
    "Brightness": Operation(lambda image, change: pixels.brightness(image, 1 + change), _linear(0.9), signed=True),
    "Sharpness": Operation(lambda image, change: pixels.sharpness(image, 1 + change), _linear(0.9), signed=True),
}
NAMES = (*OPERATIONS, "Cutout")


def apply_operation(
    image: np.ndarray, name: str, magnitude: int, sign: int = 1, centre: tuple[int, int] = (0, 0)
) -> np.ndarray:
    """Applies one operation.

    Args:
        image: uint8 of shape (height, width, 3), which is not changed.
        name: one of `NAMES`.
        magnitude: 0 to 9; RandAugment draws 1 to 9.
        sign: 1 or -1, used if the operation is signed.
        centre: row and column of the centre of a cutout, used by ``Cutout``.

    Returns:
        uint8 of the same shape.
    """
    if name == "Cutout":
        half = CUTOUT_SIZES[magnitude] // 2
        rows, columns = (slice(max(place - half, 0), place + half) for place in centre)
        return pixels.paint(image, rows, columns, CUTOUT_FILL)
    operation = OPERATIONS[name]
    strength = operation.strengths[magnitude] * (sign if operation.signed else 1)
    return operation.apply(image, strength)


def draw_steps(generator: random.Random, shape: tuple[int, ...]) -> list[Step]:
    """Draws two operations with replacement, each of which is then applied with probability 0.5.

    Args:
        generator: the random generator.
        shape: height and width of the image, for the position of a cutout. Further axes are ignored.

    Returns:
        The operations to apply, none to two, in order.
    """
    steps = [
        Step(
            name=generator.choice(NAMES),
            magnitude=generator.choice(MAGNITUDES),
            sign=generator.choice((-1, 1)),
            centre=(generator.randrange(shape[0]), generator.randrange(shape[1])),
        )
        for _ in range(NUM_STEPS)
    ]
    return [step for step in steps if generator.random() < STEP_PROBABILITY]
