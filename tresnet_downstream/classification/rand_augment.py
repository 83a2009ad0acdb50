"""RandAugment of the published multi-label recipes: the operations of the package ``randaugment`` 1.0.2.

An operation takes and gives uint8 arrays of shape (height, width, 3) in RGB; its pixels are those of the
package, which works with Pillow as well. What is random is drawn beforehand, by `draw_steps`.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

MAGNITUDES = range(1, 10)
NUM_STEPS = 2
STEP_PROBABILITY = 0.5
FILL = (128, 128, 128)
CUTOUT_FILL = (125, 122, 113)
CUTOUT_SIZES = (0, 2, 4, 7, 9, 11, 13, 16, 18, 20)  # pixels, whatever the size of the picture


@dataclass(frozen=True)
class Operation:
    """An operation on a picture.

    Attributes:
        apply: gives the changed picture, from the picture and a strength.
        strengths: the strength at each of the magnitudes 0 to 9; zeros where there is nothing to choose.
        signed: whether the strength is negated at random.
    """

    apply: Callable[[Image.Image, float], Image.Image]
    strengths: tuple[float, ...] = (0.0,) * 10
    signed: bool = False


class Step(NamedTuple):
    """One drawn operation: its name, magnitude (1 to 9), sign, and (row, column) of the cutout's centre."""

    name: str
    magnitude: int
    sign: int
    centre: tuple[int, int]


def _shear_x(picture: Image.Image, slope: float) -> Image.Image:
    return _affine(picture, (1, slope, 0, 0, 1, 0), Image.Resampling.BICUBIC)


def _shear_y(picture: Image.Image, slope: float) -> Image.Image:
    return _affine(picture, (1, 0, 0, slope, 1, 0), Image.Resampling.BICUBIC)


def _translate_x(picture: Image.Image, fraction: float) -> Image.Image:
    return _affine(picture, (1, 0, fraction * picture.width, 0, 1, 0), Image.Resampling.NEAREST)


def _translate_y(picture: Image.Image, fraction: float) -> Image.Image:
    return _affine(picture, (1, 0, 0, 0, 1, fraction * picture.height), Image.Resampling.NEAREST)


def _affine(picture: Image.Image, matrix: tuple[float, ...], resample: Image.Resampling) -> Image.Image:
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix, resample, fillcolor=FILL)


def _rotate(picture: Image.Image, degrees: float) -> Image.Image:
    return picture.rotate(degrees, Image.Resampling.NEAREST, fillcolor=FILL)


def _linear(last: float) -> tuple[float, ...]:
    return tuple(np.linspace(0, last, 10).tolist())


def _enhance_with(
    kind: Callable[[Image.Image], Any],
) -> Callable[[Image.Image, float], Image.Image]:
    return lambda picture, change: kind(picture).enhance(1 + change)


# Cutout, which needs a place as well, is the fifteenth.
OPERATIONS = {
    "Invert": Operation(lambda picture, _: ImageOps.invert(picture)),
    "AutoContrast": Operation(lambda picture, _: ImageOps.autocontrast(picture)),
    "Equalize": Operation(lambda picture, _: ImageOps.equalize(picture)),
    "Posterize": Operation(
        lambda picture, bits: ImageOps.posterize(picture, int(bits)), (8, 8, 7, 7, 6, 6, 5, 5, 4, 4)
    ),
    "Solarize": Operation(
        lambda picture, threshold: ImageOps.solarize(picture, int(threshold)),
        (256, 228, 200, 171, 143, 114, 86, 57, 29, 0),
    ),
    "Rotate": Operation(_rotate, _linear(30)),
    "ShearX": Operation(_shear_x, _linear(0.3), signed=True),
    "ShearY": Operation(_shear_y, _linear(0.3), signed=True),
    "TranslateX": Operation(_translate_x, _linear(150 / 331), signed=True),
    "TranslateY": Operation(_translate_y, _linear(150 / 331), signed=True),
    "Contrast": Operation(_enhance_with(ImageEnhance.Contrast), _linear(0.9), signed=True),
    "Color": Operation(_enhance_with(ImageEnhance.Color), _linear(0.9), signed=True),
    "Brightness": Operation(_enhance_with(ImageEnhance.Brightness), _linear(0.9), signed=True),
    "Sharpness": Operation(_enhance_with(ImageEnhance.Sharpness), _linear(0.9), signed=True),
}
NAMES = (*OPERATIONS, "Cutout")


def apply_operation(
    image: np.ndarray, name: str, magnitude: int, sign: int = 1, centre: tuple[int, int] = (0, 0)
) -> np.ndarray:
    """Apply one operation.

    Args:
        image: uint8 of shape (height, width, 3), left as it is.
        name: one of `NAMES`.
        magnitude: 0 to 9; RandAugment draws 1 to 9.
        sign: 1 or -1; counts where the operation is signed.
        centre: row and column of the cutout's centre; counts for ``Cutout`` alone.

    Returns:
        uint8 of the same shape.
    """
    if name == "Cutout":
        half = CUTOUT_SIZES[magnitude] // 2
        image = image.copy()
        rows, columns = (slice(max(place - half, 0), place + half) for place in centre)
        image[rows, columns] = CUTOUT_FILL
        return image
    operation = OPERATIONS[name]
    strength = operation.strengths[magnitude] * (sign if operation.signed else 1)
    return np.array(operation.apply(Image.fromarray(image), strength))


def draw_steps(generator: random.Random, shape: tuple[int, ...]) -> list[Step]:
    """Draw two operations, with replacement, each of which then takes place or does not.

    Args:
        generator: the source of every draw.
        shape: height and width of the picture, for the place of a cutout; more axes are ignored.

    Returns:
        The steps that take place, none to two, in order.
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
