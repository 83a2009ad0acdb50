"""The sample data: small images with several handwritten digits, with labels and boxes in COCO format.

The handwriting is real: 1,797 samples of 8x8 pixels that scikit-learn contains, so nothing is downloaded. Each
image shows one to five digits of varied size, slant and colour on a varied background. The set is for
multi-label classification (which digits are in the image) and detection (where they are).
"""

import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np
from PIL import Image, ImageDraw
from PIL.Image import Resampling, Transform

from tresnet_downstream.errors import UserError

VERSION = 1  # must be increased with every change of the created files
GENERATOR = "make_digits.py"
SPLITS = ("train", "val")  # the position is part of each image's seed
LICENCE = {"id": 1, "name": "CC BY 4.0", "url": "https://creativecommons.org/licenses/by/4.0/"}
SOURCE = "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, doi:10.24432/C50P49, test set"
OPTIONS = {  # default, smallest value, meaning
    "train": (3000, 1, "number of training images"),
    "val": (500, 1, "number of validation images"),
    "size": (128, 64, "side of an image in pixels"),
    "seed": (0, 0, "seed of all random numbers"),
    "long_tail": (1, 1, "ratio of the frequencies of digit 0 and digit 9 in training images; 1 for a balanced set"),
}
NUM_CLASSES = 10
TRAIN_SHARE = 0.8  # of each class's samples
MAX_DIGITS = 5
DIGIT_LENGTH = (30.0, 62.0)  # longer side of a digit before its rotation, in pixels of an image of side 128
MAX_COVERED = 0.15  # share of a digit's stroke that later digits may hide
MIN_CONTRAST = 80.0  # between stroke and background, in luma of 0 to 255
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
JPEG_QUALITY = 92

Array = np.ndarray
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels; right and bottom are the first outside
Rng = np.random.Generator


class SetInfo(TypedDict):
    """The description of a set, in its annotation files.

    Attributes:
        description: what the images show.
        generator: name of the program that created the set.
        version: version of the created files.
        arguments: values of :data:`OPTIONS`, without ``long_tail`` for a balanced set.
        source: where the handwriting is from.
    """

    description: str
    generator: str
    version: int
    arguments: dict[str, int]
    source: str


class Samples(NamedTuple):
    """The handwritten samples of one split."""

    images: Array  # (n, 12, 12), float32, ink from 0 to 1 with an empty rim of two
    labels: Array  # (n,), 0 to 9
    numbers: Array  # (n,), position in scikit-learn's data set


def load_samples(seed: int) -> dict[str, Samples]:
    """Reads the handwritten samples and splits each class into disjoint training and validation samples.

    Samples whose three nearest neighbours do not all have the same label are left out (3%), because most of them are
    illegible for a person too.

    Raises:
        UserError: if scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits  # imported here because it takes a second
    except ImportError:
        advice = 'pip install "tresnet-downstream[digits]"'
        raise UserError(f"scikit-learn, which holds the handwriting, is missing: {advice}") from None
    data = load_digits()
    flat, labels = data.data, data.target
    squares = (flat**2).sum(1)
    distances = squares[:, None] + squares - 2 * flat @ flat.T
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :3]
    readable = (labels[nearest] == labels[:, None]).all(1)
    images = np.pad(data.images / 16, ((0, 0), (2, 2), (2, 2))).astype(np.float32)
    shuffled = np.random.default_rng([seed, len(SPLITS)]).permutation(np.flatnonzero(readable))
    classes = [shuffled[labels[shuffled] == label] for label in range(NUM_CLASSES)]
    train = np.concatenate([numbers[: round(TRAIN_SHARE * len(numbers))] for numbers in classes])
    parts = {"train": train, "val": np.setdiff1d(shuffled, train)}
    return {split: Samples(images[numbers], labels[numbers], numbers) for split, numbers in parts.items()}


def draw_ground(rng: Rng, size: int) -> Array:
    """Draws a dark background (flat, gradient, cloudy or rough): float32 of shape (3, size, size), 0 to 255."""
    base = np.clip(rng.uniform(5, 110) + rng.normal(0, 30, (3, 1, 1)), 0, 255).astype(np.float32)
    kind = rng.integers(4)
    pattern = np.zeros((size, size), dtype=np.float32)
    if kind == 1:
        angle = rng.uniform(0, 2 * math.pi)
        ramp = np.linspace(-1, 1, size, dtype=np.float32) / math.sqrt(2)
        pattern = ramp * math.cos(angle) + ramp[:, None] * math.sin(angle)
    elif kind > 1:
        cells = rng.integers(3, 8) if kind == 2 else rng.integers(20, 44)
        noise = Image.fromarray(rng.uniform(-1, 1, (cells, cells)).astype(np.float32))
        pattern = np.clip(np.asarray(noise.resize((size, size), Resampling.BICUBIC)), -1, 1)
    # The amplitude leaves the background dark enough for a colour with more than the smallest contrast.
    amplitude = rng.uniform(-40, 40, (3, 1, 1)).astype(np.float32) * (0.6 if kind == 3 else 1)
    return np.clip(base + pattern * amplitude, 0, 255)


def draw_distractor(rng: Rng, canvas: Array) -> None:
    """Draws a blob, or a line from edge to edge, on a canvas of shape (3, size, size)."""
    size = canvas.shape[1]
    draw = ImageDraw.Draw(mask := Image.new("L", (size, size)))
    x, y = rng.uniform(0, size, 2)
    if rng.random() < 0.5:
        rx, ry = rng.uniform(0.03, 0.09, 2) * size
        draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=255)
    else:
        angle, width = rng.uniform(0, math.pi), round(rng.uniform(0.012, 0.03) * size)
        dx, dy = 2 * size * math.cos(angle), 2 * size * math.sin(angle)
        draw.line((x - dx, y - dy, x + dx, y + dy), fill=255, width=width)
    alpha = np.asarray(mask, dtype=np.float32) / 255 * rng.uniform(0.4, 0.9)
    canvas += (rng.uniform(0, 255, (3, 1, 1)).astype(np.float32) - canvas) * alpha


def tight_box(mask: Array) -> Box:
    """The smallest box that contains all True values."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def render_stroke(rng: Rng, image: Array, length: float) -> Array:
    """Enlarges one sample with a random rotation, slant, width and stroke weight.

    Args:
        rng: the random generator.
        image: ink of shape (12, 12), 0 to 1.
        length: longer side of the upright digit in pixels.

    Returns:
        the coverage of each pixel, float32 of shape (h, w), 0 to 1. Pixels of at least 0.5 belong to the digit, which
        touches all four sides.
    """
    threshold = rng.uniform(0.42, 0.56)  # a lower threshold gives a bolder stroke
    left, top, right, bottom = tight_box(image > threshold)
    scale, middle = length / max(right - left, bottom - top), np.array([left + right, top + bottom]) / 2
    angle, slant, aspect = math.radians(rng.uniform(-14, 14)), rng.uniform(-0.2, 0.2), rng.uniform(0.87, 1.15)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    to_sample = np.array([[1 / aspect, slant], [0, 1]]) @ turn / scale
    side = math.ceil(1.4 * length) + 4  # the rotation enlarges a sample by at most 1.3
    matrix = np.column_stack([to_sample, middle - to_sample.sum(1) * side / 2]).ravel().tolist()
    ink = np.asarray(Image.fromarray(image).transform((side, side), Transform.AFFINE, matrix, Resampling.BICUBIC))
    left, top, right, bottom = tight_box(ink >= threshold)
    # The slope is proportional to the scale, so the edge of every stroke is one to two pixels wide.
    slope = scale * rng.uniform(0.5, 1)
    return np.clip((ink[top:bottom, left:right] - threshold) * slope + 0.5, 0, 1)


def find_place(rng: Rng, shape: tuple[int, ...], owner: Array, totals: list[int]) -> tuple[slice, slice] | None:
    """Finds a random box that covers at most ``MAX_COVERED`` of each digit drawn so far.

    Args:
        rng: the random generator.
        shape: height and width of the box.
        owner: the digit that each pixel shows, of shape (size, size): 0 for the background, k for the k-th digit.
        totals: number of pixels of each digit's whole stroke.

    Returns:
        rows and columns of the box; None after twelve attempts.
    """
    visible = np.bincount(owner.ravel(), minlength=len(totals) + 1)[1:]
    for _ in range(12):
        top, left = (int(rng.integers(1, len(owner) - length)) for length in shape)
        box = slice(top, top + shape[0]), slice(left, left + shape[1])
        inside = np.bincount(owner[box].ravel(), minlength=len(totals) + 1)[1:]
        if np.all(visible - inside >= (1 - MAX_COVERED) * np.array(totals)):
            return box
    return None


def choose_colour(rng: Rng, around: Array) -> Array:
    """Chooses a colour that is brighter than the pixels ``around``, of shape (3, n); both from 0 to 255."""
    colours = np.concatenate([rng.uniform(0, 255, (20, 3)), [[0, 0, 0], [255, 255, 255]]]).astype(np.float32)
    contrast = (colours @ LUMA)[:, None] - LUMA @ around
    lost = (contrast < MIN_CONTRAST).mean(1)  # share of the pixels, for each colour
    colour: Array = colours[np.argmax(lost <= max(0.01, lost.min()))]
    return colour


def long_tailed_shares(ratio: float) -> Array:
    """The frequencies of the digits 0 to 9 in a long-tailed set: float64 of shape (10,), with sum 1.

    They decrease geometrically: digit d is ``ratio ** (d / 9)`` times rarer than digit 0.

    Examples:
        >>> shares = long_tailed_shares(100)
        >>> round(float(shares[0] / shares[9]))
        100
    """
    shares = float(ratio) ** -np.linspace(0, 1, NUM_CLASSES)
    normalised: Array = shares / shares.sum()
    return normalised


def draw_image(
    rng: Rng, samples: Samples, size: int, shares: Array | None = None
) -> tuple[Image.Image, list[tuple[int, Box]], Array]:
    """Draws one image.

    Args:
        rng: the random generator.
        samples: the handwritten samples.
        size: side of the image in pixels.
        shares: frequencies of the digits, of shape (10,); None for equal frequencies.

    Returns:
        the image; for each digit its position in ``samples`` and the box of its visible part; and the digit that each
        pixel shows, of shape (size, size): 0 for the background, k for the k-th digit.
    """
    canvas = draw_ground(rng, size)
    for _ in range(rng.choice(3, p=[0.7, 0.2, 0.1])):
        draw_distractor(rng, canvas)
    owner = np.zeros((size, size), dtype=np.intp)
    totals: list[int] = []
    chosen: list[int] = []
    for _ in range(rng.integers(1, MAX_DIGITS + 1)):
        # Different functions, so a balanced set stays identical to those of releases without long-tailed sets.
        label = rng.integers(NUM_CLASSES) if shares is None else rng.choice(NUM_CLASSES, p=shares)
        index = int(rng.choice(np.flatnonzero(samples.labels == label)))
        length, box = rng.uniform(*DIGIT_LENGTH), None
        while box is None and length >= DIGIT_LENGTH[0]:
            stroke = render_stroke(rng, samples.images[index], length * size / 128)
            box = find_place(rng, stroke.shape, owner, totals)
            length *= 0.8
        if box is None:
            continue  # the image has no room left
        window = canvas[:, box[0], box[1]]
        colour = choose_colour(rng, window[:, ::2, ::2].reshape(3, -1))
        window += (colour[:, None, None] - window) * (stroke * rng.uniform(0.88, 1))
        chosen.append(index)
        owner[box][stroke >= 0.5] = len(chosen)
        totals.append(int((stroke >= 0.5).sum()))
    canvas += (rng.random((size, size), dtype=np.float32) - 0.5) * rng.uniform(0, 16)
    bands = [Image.fromarray(band) for band in np.clip(canvas + 0.5, 0, 255).astype(np.uint8)]
    digits = [(index, tight_box(owner == k)) for k, index in enumerate(chosen, start=1)]
    return Image.merge("RGB", bands), digits, owner


def make_split(folder: Path, split: str, samples: Samples, info: SetInfo, numbers: Iterable[int]) -> None:
    """Writes the images of the given numbers to ``folder/split``, and ``folder/annotations/instances_split.json``."""
    (folder / split).mkdir()
    seed, size = info["arguments"]["seed"], info["arguments"]["size"]
    ratio = info["arguments"].get("long_tail", 1)
    shares = long_tailed_shares(ratio) if ratio > 1 and split == "train" else None
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for number in numbers:
        rng = np.random.default_rng([seed, SPLITS.index(split), number])
        image, digits, _ = draw_image(rng, samples, size, shares)
        name = f"{number:06d}.jpg"
        image.save(folder / split / name, quality=JPEG_QUALITY)
        images.append({"id": number, "file_name": name, "width": size, "height": size, "license": LICENCE["id"]})
        for index, (left, top, right, bottom) in digits:
            keys = {"id": len(annotations) + 1, "image_id": number, "category_id": int(samples.labels[index]) + 1}
            box = {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}
            outline = {"segmentation": [[left, top, right, top, right, bottom, left, bottom]], "iscrowd": 0}
            annotations.append({**keys, **box, **outline, "sample": int(samples.numbers[index])})
    categories = [{"id": digit + 1, "name": str(digit), "supercategory": "digit"} for digit in range(NUM_CLASSES)]
    content = {"info": info, "licenses": [LICENCE], "categories": categories, "images": images}
    (folder / "annotations").mkdir(exist_ok=True)
    text = json.dumps({**content, "annotations": annotations})
    (folder / "annotations" / f"instances_{split}.json").write_text(text, encoding="utf-8")


def is_made(out: Path, info: SetInfo) -> bool:
    """Whether a folder holds the complete set that ``info`` describes.

    Raises:
        UserError: if the folder holds files that do not belong to the sample data.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    try:
        files = [out / "annotations" / f"instances_{split}.json" for split in SPLITS]
        infos = [json.loads(file.read_text(encoding="utf-8"))["info"] for file in files]
        ours = all(other["generator"] == GENERATOR for other in infos)
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours or any(entry.name not in (*SPLITS, "annotations") for entry in out.iterdir()):
        raise UserError(f"{out}: holds files that do not belong to the sample data; name another folder as `out`")
    counts = {split: len(list((out / split).glob("*.jpg"))) for split in SPLITS}
    return all(other == info for other in infos) and counts.items() <= info["arguments"].items()


def make_digits(
    out: str | Path,
    *,
    train: int = OPTIONS["train"][0],
    val: int = OPTIONS["val"][0],
    size: int = OPTIONS["size"][0],
    seed: int = OPTIONS["seed"][0],
    long_tail: int = OPTIONS["long_tail"][0],
    track: Callable[[Iterable[int], int, str], Iterable[int]] = lambda items, total, what: items,
) -> bool:
    """Creates the sample data in a folder, unless the folder already holds the same set.

    The folder appears only when it is complete; a set that was created with other arguments is replaced.

    Args:
        out: folder for ``train/``, ``val/`` and ``annotations/instances_{train,val}.json``.
        train: number of training images, at least 1.
        val: number of validation images, at least 1.
        size: height and width of an image in pixels, at least 64.
        seed: seed of all random numbers, at least 0.
        long_tail: ratio of the frequencies of digit 0 and digit 9 in training images, at least 1. The frequencies
            decrease geometrically from digit to digit; 1 gives equal ones. Validation images are always balanced.
        track: ``function(items, total, what)`` that yields the items and shows progress.

    Returns:
        whether the set was created; False if it existed.

    Raises:
        UserError: if an argument is too small, the folder holds other files, or scikit-learn is not installed.
    """
    arguments = {"train": train, "val": val, "size": size, "seed": seed, "long_tail": long_tail}
    for name, (_, least, _) in OPTIONS.items():
        if arguments[name] < least:
            raise UserError(f"`{name}`: got {arguments[name]}, must be at least {least}")
    if long_tail == 1:
        del arguments["long_tail"]  # as in sets of releases without long-tailed sets
    out = Path(out).resolve()
    info: SetInfo = {
        "description": "Handwritten digits in small images, with labels and boxes",
        "generator": GENERATOR,
        "version": VERSION,
        "arguments": arguments,
        "source": SOURCE,
    }
    if is_made(out, info):
        return False
    samples = load_samples(seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    # The temporary folder, with the replaced set in it, is removed in any case.
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        fresh = Path(temporary, "fresh")
        fresh.mkdir()
        for split in SPLITS:
            count = arguments[split]
            make_split(fresh, split, samples[split], info, track(range(1, count + 1), count, split))
        if out.exists():
            os.rename(out, Path(temporary, "replaced"))
        os.rename(fresh, out)
    return True
