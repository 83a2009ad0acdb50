"""Compares the speed from JPEG files to batches with that of the ASL release, which uses Pillow, on one core.

The release's pipeline is rebuilt from its description: Pillow decodes, torchvision resizes the Pillow image to the
square, a rectangle is painted, two of fifteen operations are applied with probability 0.5 each, and ToTensor converts
the image to float32. The pipeline of this toolkit returns uint8, which the device converts to floats.
"""

import random
import sys
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
from tresnet_downstream.benchmark.machine import machine_line
from tresnet_downstream.classification.rand_augment import (
    CUTOUT_FILL,
    CUTOUT_SIZES,
    FILL,
    OPERATIONS,
    Step,
)
from tresnet_downstream.classification.transforms import build_pipeline
from tresnet_downstream.command_line import Parser, run
from tresnet_downstream.images import find_images, read_image

# Approximate number of images per candidate and repeat, large enough for every operation to have its share.
IMAGES_AT_ONCE = 90
# The decoding with which each pipeline of this toolkit begins.
_DECODING = {"training": "reduced decoding ours", "evaluation": "decoding ours"}


class Draws(NamedTuple):
    """Random values of one image: centre (row and column) and colour of the cutout, and the operations."""

    centre: tuple[int, int]
    colour: tuple[int, int, int]
    steps: list[Step]


@dataclass(frozen=True)
class Row:
    """Speed of one pipeline.

    Attributes:
        what: ``training``, ``evaluation``, ``decoding`` or ``reduced decoding``, which is the decoding of training.
        who: ``release`` or ``ours``.
        images_per_second: median over the repeats, on one core.
        quartiles: first and third quartile over the repeats, in images/s.
        ratio: speed relative to the release's pipeline for the same purpose; None for the release itself.
        limit: the value of ``ratio`` if everything after the decoding of this toolkit took no time; None for decoding
            alone and for the release.
    """

    what: str
    who: str
    images_per_second: float
    quartiles: tuple[float, float]
    ratio: Ratio | None
    limit: Ratio | None


@dataclass(frozen=True)
class PipelineComparison:
    """Speeds of several pipelines for the same images.

    Attributes:
        num_files: number of files that every pipeline read in each repeat.
        mean_bytes: mean size of the files, in bytes.
        size: side of the prepared images, in pixels.
        rows: one row for each pipeline.
    """

    num_files: int
    mean_bytes: float
    size: int
    rows: tuple[Row, ...]

    def markdown(self) -> str:
        """Returns the number and size of the files, and a table of images per second on one core, as Markdown."""
        mean_size = f"mean size: {self.mean_bytes / 1000:.0f} kB"
        lines = [
            f"files: {self.num_files}; {mean_size}; images of {self.size} x {self.size}",
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
    """Times training, evaluation and decoding alone, of the release and of this toolkit, in turn, on one core.

    In each repeat, every pipeline prepares every image. If there are few images, each is prepared several times, so
    that about `IMAGES_AT_ONCE` images or more are prepared.

    Args:
        patterns: JPEG files, folders or patterns, see `find_images`. The files are read from the page cache of the
            system.
        size: side of the prepared images, in pixels.
        repeats: number of timed rounds.
        on_repeat: function that is called after each round with the number of finished rounds, including the warm-up
            round.

    Raises:
        BadImageError: if a file cannot be read.
        UserError: if ``repeats`` is less than 1, or if there is no image.
    """
    require_repeats(repeats)
    files = [Path(file) for file in find_images(patterns)]
    for file in files:
        read_image(file)
    count = len(files) * max(1, round(IMAGES_AT_ONCE / len(files)))
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
        # Pillow always decodes at full size.
        release = timings["decoding release" if what == "reduced decoding" else f"{what} release"]
        ratio = speed_ratio(timing, release)
        if what in _DECODING:
            limit = speed_ratio(timings[_DECODING[what]], release)
    return Row(what, who, count / timing.median, (slow, fast), ratio, limit)


def _candidates(files: Sequence[Path], count: int, size: int, repeats: int) -> dict[str, Callable[[], object]]:
    """Returns the pipelines by name; a call prepares ``count`` images."""
    resize, to_tensor = transforms.Resize((size, size)), transforms.ToTensor()
    squash: dict[str, Any] = {"type": "SquashResize", "size": size}
    training = build_pipeline([squash, {"type": "Cutout", "factor": 0.5}, {"type": "RandAugment"}])
    evaluation = build_pipeline([squash])

    def file_of(number: int) -> Path:
        return files[number % len(files)]

    def decode(number: int) -> Image.Image:
        with Image.open(file_of(number)) as image:
            return image.convert("RGB")

    # Both pipelines use the same random values. For the release's pipeline, they are drawn beforehand.
    draws = [_draws(training, number) for number in range((1 + repeats) * count)]

    def release_training(number: int) -> torch.Tensor:
        image = _cut_out(resize(decode(number)), draws[number].centre, draws[number].colour)
        for step in draws[number].steps:
            image = _apply_with_pillow(image, step)
        return to_tensor(image)

    def ours_training(number: int) -> np.ndarray:
        _start_draws(training, number)
        return training(image=read_image(file_of(number), (size, size)))["image"]

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
    """Returns the random values that the pipeline draws for the image with this number."""
    recorded = albumentations.Compose(training.transforms, save_applied_params=True)
    _start_draws(recorded, number)
    applied = dict(recorded(image=np.zeros((1, 1, 3), np.uint8))["applied_transforms"])
    return Draws(applied["Cutout"]["centre"], applied["Cutout"]["colour"], applied["RandAugment"]["steps"])


def _cut_out(image: Image.Image, centre: tuple[int, int], colour: tuple[int, int, int]) -> Image.Image:
    """Paints a rectangle of half of each side, in one colour, around a pixel."""
    width, height = image.size
    y, x = centre
    corners = (
        max(x - width // 4, 0),
        max(y - height // 4, 0),
        min(x + width // 4, width),
        min(y + height // 4, height),
    )
    ImageDraw.Draw(image).rectangle(corners, fill=colour)
    return image


def _apply_with_pillow(image: Image.Image, step: Step) -> Image.Image:
    if step.name == "Cutout":
        half = CUTOUT_SIZES[step.magnitude] // 2
        y, x = step.centre
        painted = image.copy()
        ImageDraw.Draw(painted).rectangle((x - half, y - half, x + half, y + half), fill=CUTOUT_FILL)
        return painted
    operation = OPERATIONS[step.name]
    strength = operation.strengths[step.magnitude] * (step.sign if operation.signed else 1)
    return PILLOW_OPERATIONS[step.name](image, strength)


def _affine(image: Image.Image, matrix: tuple[float, ...], resample: Image.Resampling) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample, fillcolor=FILL)


PILLOW_OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "Invert": lambda image, _: ImageOps.invert(image),
    "AutoContrast": lambda image, _: ImageOps.autocontrast(image),
    "Equalize": lambda image, _: ImageOps.equalize(image),
    "Posterize": lambda image, bits: ImageOps.posterize(image, int(bits)),
    "Solarize": lambda image, threshold: ImageOps.solarize(image, int(threshold)),
    "Rotate": lambda image, degrees: image.rotate(degrees, Image.Resampling.NEAREST, fillcolor=FILL),
    "ShearX": lambda image, slope: _affine(image, (1, slope, 0, 0, 1, 0), Image.Resampling.BICUBIC),
    "ShearY": lambda image, slope: _affine(image, (1, 0, 0, slope, 1, 0), Image.Resampling.BICUBIC),
    "TranslateX": lambda image, part: _affine(image, (1, 0, part * image.width, 0, 1, 0), Image.Resampling.NEAREST),
    "TranslateY": lambda image, part: _affine(image, (1, 0, 0, 0, 1, part * image.height), Image.Resampling.NEAREST),
    "Contrast": lambda image, change: ImageEnhance.Contrast(image).enhance(1 + change),
    "Color": lambda image, change: ImageEnhance.Color(image).enhance(1 + change),
    "Brightness": lambda image, change: ImageEnhance.Brightness(image).enhance(1 + change),
    "Sharpness": lambda image, change: ImageEnhance.Sharpness(image).enhance(1 + change),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line, measures, and prints the results."""
    parser = Parser(description=__doc__)
    parser.add_argument("images", nargs="+", metavar="PATH", help="JPEG files or folders of JPEG files")
    parser.add_argument("--size", type=int, default=448, metavar="PIXELS", help="side of the images")
    parser.add_argument("--repeats", type=int, metavar="N", default=9, help="timed rounds")
    options = parser.parse_args(arguments)
    total = options.repeats + 1
    compared = compare_pipelines(
        options.images,
        options.size,
        options.repeats,
        lambda done: print(f"round {done} of {total}", file=sys.stderr, flush=True),
    )
    print(machine_line(), compared.markdown(), sep="\n\n", end="")


if __name__ == "__main__":
    sys.exit(run(main))
