"""Measures how long a training with annotations of MS-COCO's size takes to start, with and without a cache."""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tresnet_downstream.benchmark.interleaved import require_repeats
from tresnet_downstream.benchmark.machine import machine_line
from tresnet_downstream.classification.datasets import MultiLabelDataset
from tresnet_downstream.command_line import Parser, run

IMAGES, BOXES, CLASSES = 82_081, 604_907, 80  # as in MS-COCO 2014's training split, without images that have no label
CORNERS = 22  # number of corners of an outline; it makes the file about as large as MS-COCO's


@dataclass(frozen=True)
class StartUp:
    """Seconds until a data set of MS-COCO's size is ready.

    Attributes:
        megabytes: size of the annotation file in MB.
        first: time of the first start, which parses the annotations and writes the cache.
        later: times of later starts, which read the cache.
        without_cache: time of a start that parses the annotations and writes no cache.
    """

    megabytes: float
    first: float
    later: tuple[float, ...]
    without_cache: float

    def __str__(self) -> str:
        later = f"{np.median(self.later):.2f} s ({min(self.later):.2f} to {max(self.later):.2f})"
        return (
            f"annotations of {self.megabytes:.0f} MB: {self.without_cache:.1f} s without a cache, {self.first:.1f} s "
            f"at the first start, {later} at later ones"
        )


def start_up(folder: Path, repeats: int = 5) -> StartUp:
    """Measures how long it takes to build a data set from an annotation file and empty image files.

    Args:
        folder: an empty folder, in which the files are created.
        repeats: number of starts with the cache.

    Raises:
        UserError: if ``repeats`` is less than 1.
    """
    require_repeats(repeats)
    file, images = folder / "instances.json", folder / "images"
    write_annotations(file, images)

    def build(cache: Path | None) -> MultiLabelDataset:
        squash = {"type": "SquashResize", "size": 448}
        return MultiLabelDataset(str(file), str(images), [squash], cache_dir=None if cache is None else str(cache))

    return StartUp(
        megabytes=file.stat().st_size / 1e6,
        first=_seconds(lambda: build(folder / "cache")),
        later=tuple(_seconds(lambda: build(folder / "cache")) for _ in range(repeats)),
        without_cache=_seconds(lambda: build(None)),
    )


def write_annotations(file: Path, images: Path) -> None:
    """Writes a COCO file of MS-COCO's size, with outlines, and creates an empty file for each of its images."""
    draw = np.random.default_rng(0)
    names = [f"COCO_train2014_{number:012}.jpg" for number in range(IMAGES)]
    images.mkdir()
    for name in names:
        os.close(os.open(images / name, os.O_CREAT | os.O_WRONLY))
    image_of = np.concatenate([np.arange(IMAGES), draw.integers(0, IMAGES, BOXES - IMAGES)])
    corners = draw.integers(0, 64000, (BOXES, 2 * CORNERS)) / 100
    class_of = draw.integers(0, CLASSES, BOXES)
    annotations = (
        {
            "segmentation": [outline],
            "area": 1234.5,
            "iscrowd": 0,
            "image_id": image,
            "bbox": outline[:4],
            "category_id": category + 1,
            "id": number,
        }
        for number, (image, category, outline) in enumerate(
            zip(image_of.tolist(), class_of.tolist(), corners.tolist(), strict=True)
        )
    )
    records = [{"id": number, "file_name": name, "height": 427, "width": 640} for number, name in enumerate(names)]
    categories = [{"id": number + 1, "name": f"class {number}"} for number in range(CLASSES)]
    with open(file, "w", encoding="utf-8") as stream:
        stream.write(f'{{"images": {json.dumps(records)}, "categories": {json.dumps(categories)}, "annotations": [')
        for number, annotation in enumerate(annotations):
            stream.write((", " if number else "") + json.dumps(annotation))
        stream.write("]}")


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line, measures, and prints the results."""
    parser = Parser(description=__doc__)
    parser.add_argument("--repeats", type=int, metavar="N", default=5, help="timed rounds")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        print(machine_line(), start_up(Path(folder), options.repeats), sep="\n\n")


if __name__ == "__main__":
    sys.exit(run(main))
