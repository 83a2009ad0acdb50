"""From a JPEG file to what goes to the device: this toolkit beside the ASL release's way, with Pillow, on one core.

The peer is rebuilt from its description: Pillow decodes, torchvision resizes the Pillow image to the square, a
rectangle is painted, two of fifteen operations take place with probability 0.5 each, and ToTensor makes float32 of
it. Ours ends in uint8, which the device turns into floats.
"""

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import albumentations
import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from torchvision import transforms

from tresnet_downstream.benchmark.interleaved import Ratio, Timing, interleaved, require_repeats, speed_ratio
from tresnet_downstream.classification.rand_augment import (
    CUTOUT_FILL,
    CUTOUT_SIZES,
    FILL,
    OPERATIONS,
    Step,
)
from tresnet_downstream.classification.transforms import build_pipeline
from tresnet_downstream.pictures import read_image

PICTURES_AT_ONCE = 90  # of each candidate in a repeat, so that every operation has its share


class Draws(NamedTuple):
    """What is random about one picture: the cutout's centre, row and column, its colour, and the operations."""

    centre: tuple[int, int]
    colour: tuple[int, int, int]
    steps: list[Step]


@dataclass(frozen=True)
class Row:
    """One way to prepare pictures.

    Attributes:
        what: ``training``, ``evaluation`` or ``decoding``.
        who: ``release`` or ``ours``.
        images_per_second: the median, on one core.
        quartiles: the first and third of it.
        ratio: times as fast as the release's way of the same; None for the release itself.
    """

    what: str
    who: str
    images_per_second: float
    quartiles: tuple[float, float]
    ratio: Ratio | None


def compare_pipelines(
    image_file: str | os.PathLike[str],
    size: int = 448,
    repeats: int = 9,
    on_repeat: Callable[[int], object] = lambda done: None,
) -> list[Row]:
    """Times training, evaluation and decoding alone, each the release's way and ours, in turn, on one core.

    Args:
        image_file: a JPEG file, read from memory that the system holds.
        size: side of the pictures that come out.
        repeats: how often `PICTURES_AT_ONCE` pictures are prepared in each way.
        on_repeat: told after each round how many are done, one that warms up included.

    Raises:
        BadImageError: the file cannot be read.
        UserError: for less than one repeat.
    """
    require_repeats(repeats)
    read_image(image_file)
    threads, cv2_threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        timings = interleaved(_candidates(Path(image_file), size, repeats), repeats, on_repeat=on_repeat)
    finally:
        torch.set_num_threads(threads)
        cv2.setNumThreads(cv2_threads)
    return [
        _row(what, who, timing, timings[f"{what} release"])
        for name, timing in timings.items()
        for what, who in [name.split()]
    ]


def markdown(rows: Sequence[Row]) -> str:
    """A table of what was measured, in pictures a second on one core."""
    lines = ["| | | images/s | x release |", "| --- | --- | ---: | ---: |"]
    for row in rows:
        low, high = row.quartiles
        ratio = "" if row.ratio is None else str(row.ratio)
        lines.append(f"| {row.what} | {row.who} | {row.images_per_second:.0f} ({low:.0f} to {high:.0f}) | {ratio} |")
    return "\n".join(lines) + "\n"


def _row(what: str, who: str, timing: Timing, release: Timing) -> Row:
    slow, fast = (PICTURES_AT_ONCE / seconds for seconds in reversed(timing.quartiles))
    ratio = None if who == "release" else speed_ratio(timing, release)
    return Row(what, who, PICTURES_AT_ONCE / timing.median, (slow, fast), ratio)


def _candidates(file: Path, size: int, repeats: int) -> dict[str, Callable[[], object]]:
    resize, to_tensor = transforms.Resize((size, size)), transforms.ToTensor()
    squash: dict[str, Any] = {"type": "SquashResize", "size": size}
    training = build_pipeline([squash, {"type": "Cutout", "factor": 0.5}, {"type": "RandAugment"}])
    evaluation = build_pipeline([squash])

    def decode() -> Image.Image:
        with Image.open(file) as picture:
            return picture.convert("RGB")

    # Both prepare the same pictures; what was drawn for them is known to the release's way beforehand.
    draws = [_draws(training, number) for number in range((1 + repeats) * PICTURES_AT_ONCE)]

    def release_training(number: int) -> torch.Tensor:
        picture = _cut_out(resize(decode()), draws[number].centre, draws[number].colour)
        for step in draws[number].steps:
            picture = _apply_with_pillow(picture, step)
        return to_tensor(picture)

    def ours_training(number: int) -> np.ndarray:
        _start_draws(training, number)
        return training(image=read_image(file, (size, size)))["image"]

    ways: dict[str, Callable[[int], object]] = {
        "training release": release_training,
        "training ours": ours_training,
        "evaluation release": lambda _: to_tensor(resize(decode())),
        "evaluation ours": lambda _: evaluation(image=read_image(file))["image"],
        "decoding release": lambda _: decode(),
        "decoding ours": lambda _: read_image(file),
    }
    return {name: _many(way) for name, way in ways.items()}


def _many(prepare: Callable[[int], object]) -> Callable[[], object]:
    numbers = iter(range(10**9))

    def run() -> None:
        for _ in range(PICTURES_AT_ONCE):
            prepare(next(numbers))

    return run


def _start_draws(pipeline: albumentations.Compose, number: int) -> None:
    generator = np.random.default_rng([0, 0, number])
    pipeline.set_random_state(generator, random.Random(generator.bytes(32)))


def _draws(training: albumentations.Compose, number: int) -> Draws:
    """What the pipeline draws for a picture of this number."""
    recorded = albumentations.Compose(training.transforms, save_applied_params=True)
    _start_draws(recorded, number)
    applied = dict(recorded(image=np.zeros((1, 1, 3), np.uint8))["applied_transforms"])
    return Draws(applied["Cutout"]["centre"], applied["Cutout"]["colour"], applied["RandAugment"]["steps"])


def _cut_out(picture: Image.Image, centre: tuple[int, int], colour: tuple[int, int, int]) -> Image.Image:
    """Half of each side, in one colour, around a pixel."""
    width, height = picture.size
    y, x = centre
    corners = (
        max(x - width // 4, 0),
        max(y - height // 4, 0),
        min(x + width // 4, width),
        min(y + height // 4, height),
    )
    ImageDraw.Draw(picture).rectangle(corners, fill=colour)
    return picture


def _apply_with_pillow(picture: Image.Image, step: Step) -> Image.Image:
    if step.name == "Cutout":
        half = CUTOUT_SIZES[step.magnitude] // 2
        y, x = step.centre
        painted = picture.copy()
        ImageDraw.Draw(painted).rectangle((x - half, y - half, x + half, y + half), fill=CUTOUT_FILL)
        return painted
    operation = OPERATIONS[step.name]
    strength = operation.strengths[step.magnitude] * (step.sign if operation.signed else 1)
    return PILLOW_OPERATIONS[step.name](picture, strength)


def _affine(picture: Image.Image, matrix: tuple[float, ...], resample: Image.Resampling) -> Image.Image:
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix, resample, fillcolor=FILL)


PILLOW_OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "Invert": lambda picture, _: ImageOps.invert(picture),
    "AutoContrast": lambda picture, _: ImageOps.autocontrast(picture),
    "Equalize": lambda picture, _: ImageOps.equalize(picture),
    "Posterize": lambda picture, bits: ImageOps.posterize(picture, int(bits)),
    "Solarize": lambda picture, threshold: ImageOps.solarize(picture, int(threshold)),
    "Rotate": lambda picture, degrees: picture.rotate(degrees, Image.Resampling.NEAREST, fillcolor=FILL),
    "ShearX": lambda picture, slope: _affine(picture, (1, slope, 0, 0, 1, 0), Image.Resampling.BICUBIC),
    "ShearY": lambda picture, slope: _affine(picture, (1, 0, 0, slope, 1, 0), Image.Resampling.BICUBIC),
    "TranslateX": lambda picture, part: _affine(
        picture, (1, 0, part * picture.width, 0, 1, 0), Image.Resampling.NEAREST
    ),
    "TranslateY": lambda picture, part: _affine(
        picture, (1, 0, 0, 0, 1, part * picture.height), Image.Resampling.NEAREST
    ),
    "Contrast": lambda picture, change: ImageEnhance.Contrast(picture).enhance(1 + change),
    "Color": lambda picture, change: ImageEnhance.Color(picture).enhance(1 + change),
    "Brightness": lambda picture, change: ImageEnhance.Brightness(picture).enhance(1 + change),
    "Sharpness": lambda picture, change: ImageEnhance.Sharpness(picture).enhance(1 + change),
}
