"""From JPEG files to what goes to the device: this toolkit beside the ASL release's way, with Pillow, on one core.

The peer is rebuilt from its description: Pillow decodes, torchvision resizes the Pillow image to the square, a
rectangle is painted, two of fifteen operations take place with probability 0.5 each, and ToTensor makes float32 of
it. Ours ends in uint8, which the device turns into floats.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
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
from tresnet_downstream.pictures import find_images, read_image

PICTURES_AT_ONCE = 90  # of each candidate in a repeat, about, so that every operation has its share
# The decoding that each of our pipelines begins with.
_DECODING = {"training": "reduced decoding ours", "evaluation": "decoding ours"}


class Draws(NamedTuple):
    """What is random about one picture: the cutout's centre, row and column, its colour, and the operations."""

    centre: tuple[int, int]
    colour: tuple[int, int, int]
    steps: list[Step]


@dataclass(frozen=True)
class Row:
    """One way to prepare pictures.

    Attributes:
        what: ``training``, ``evaluation``, ``decoding`` or ``reduced decoding``, which is training's.
        who: ``release`` or ``ours``.
        images_per_second: the median, on one core.
        quartiles: the first and third of it.
        ratio: times as fast as the release's way of the same; None for the release itself.
        limit: what ``ratio`` would be if everything behind our decoding took no time; None for decoding itself and
            for the release.
    """

    what: str
    who: str
    images_per_second: float
    quartiles: tuple[float, float]
    ratio: Ratio | None
    limit: Ratio | None


@dataclass(frozen=True)
class PipelineComparison:
    """Times of every way to prepare the same pictures.

    Attributes:
        num_files: files that every way read in each repeat.
        mean_bytes: of a file.
        size: side of the pictures that come out, in pixels.
        rows: one for each way.
    """

    num_files: int
    mean_bytes: float
    size: int
    rows: tuple[Row, ...]

    def markdown(self) -> str:
        """What was read, and a table in pictures a second on one core."""
        mean_size = f"mean size: {self.mean_bytes / 1000:.0f} kB"
        lines = [
            f"files: {self.num_files}; {mean_size}; pictures of {self.size} x {self.size}",
            "",
            "| | | images/s | x release | x release if only decoding took time |",
            "| --- | --- | ---: | ---: | ---: |",
        ]
        for row in self.rows:
            low, high = row.quartiles
            speed = f"{row.images_per_second:.0f} ({low:.0f} to {high:.0f})"
            ratio, limit = ("" if value is None else str(value) for value in (row.ratio, row.limit))
            lines.append(f"| {row.what} | {row.who} | {speed} | {ratio} | {limit} |")
        return "\n".join(lines) + "\n"


def compare_pipelines(
    patterns: Sequence[str],
    size: int = 448,
    repeats: int = 9,
    on_repeat: Callable[[int], object] = lambda done: None,
) -> PipelineComparison:
    """Times training, evaluation and decoding alone, each the release's way and ours, in turn, on one core.

    In each repeat every way prepares every picture, few pictures several times: about `PICTURES_AT_ONCE` or more.

    Args:
        patterns: JPEG files, folders of them, or patterns, see `find_images`. They are read from memory that the
            system holds.
        size: side of the pictures that come out.
        repeats: how often the pictures are prepared in each way.
        on_repeat: told after each round how many are done, one that warms up included.

    Raises:
        BadImageError: a file cannot be read.
        UserError: for less than one repeat, and where there is no picture.
    """
    require_repeats(repeats)
    files = [Path(file) for file in find_images(patterns)]
    for file in files:
        read_image(file)
    count = len(files) * max(1, round(PICTURES_AT_ONCE / len(files)))
    threads, cv2_threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        candidates = _candidates(files, count, size, repeats)
        timings = interleaved(candidates, repeats, on_repeat=on_repeat)
    finally:
        torch.set_num_threads(threads)
        cv2.setNumThreads(cv2_threads)
    rows = tuple(_row(name, count, timings) for name in timings)
    return PipelineComparison(len(files), mean(file.stat().st_size for file in files), size, rows)


def _row(name: str, count: int, timings: Mapping[str, Timing]) -> Row:
    what, _, who = name.rpartition(" ")
    timing = timings[name]
    slow, fast = (count / seconds for seconds in reversed(timing.quartiles))
    ratio = limit = None
    if who == "ours":
        # Pillow decodes at full size whatever follows.
        release = timings["decoding release" if what == "reduced decoding" else f"{what} release"]
        ratio = speed_ratio(timing, release)
        if what in _DECODING:
            limit = speed_ratio(timings[_DECODING[what]], release)
    return Row(what, who, count / timing.median, (slow, fast), ratio, limit)


def _candidates(files: Sequence[Path], count: int, size: int, repeats: int) -> dict[str, Callable[[], object]]:
    """Every way to prepare ``count`` pictures."""
    resize, to_tensor = transforms.Resize((size, size)), transforms.ToTensor()
    squash: dict[str, Any] = {"type": "SquashResize", "size": size}
    training = build_pipeline([squash, {"type": "Cutout", "factor": 0.5}, {"type": "RandAugment"}])
    evaluation = build_pipeline([squash])

    def file_of(number: int) -> Path:
        return files[number % len(files)]

    def decode(number: int) -> Image.Image:
        with Image.open(file_of(number)) as picture:
            converted: Image.Image = picture.convert("RGB")
            return converted

    # Both prepare the same pictures; what was drawn for them is known to the release's way beforehand.
    draws = [_draws(training, number) for number in range((1 + repeats) * count)]

    def release_training(number: int) -> torch.Tensor:
        picture = _cut_out(resize(decode(number)), draws[number].centre, draws[number].colour)
        for step in draws[number].steps:
            picture = _apply_with_pillow(picture, step)
        tensor: torch.Tensor = to_tensor(picture)
        return tensor

    def ours_training(number: int) -> np.ndarray:
        _start_draws(training, number)
        prepared: np.ndarray = training(image=read_image(file_of(number), (size, size)))["image"]
        return prepared

    ways: dict[str, Callable[[int], object]] = {
        "training release": release_training,
        "training ours": ours_training,
        "evaluation release": lambda number: to_tensor(resize(decode(number))),
        "evaluation ours": lambda number: evaluation(image=read_image(file_of(number)))["image"],
        "decoding release": decode,
        "decoding ours": lambda number: read_image(file_of(number)),
        "reduced decoding ours": lambda number: read_image(file_of(number), (size, size)),
    }
    return {name: _many(way, count) for name, way in ways.items()}


def _many(prepare: Callable[[int], object], count: int) -> Callable[[], object]:
    numbers = iter(range(10**9))

    def run() -> None:
        for _ in range(count):
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
