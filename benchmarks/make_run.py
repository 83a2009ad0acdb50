"""Creates a run folder of any size with random scores, to measure time and memory of scores and reports."""

import argparse
import sys
from pathlib import Path

import numpy as np
from random_boxes import random_boxes

from tresnet_downstream.evaluation import (
    DetectionRun,
    MultilabelRun,
    write_detection_run,
    write_multilabel_run,
)


def make(folder: Path, num_images: int, num_classes: int, seed: int) -> None:
    """Writes the run of a multi-label classifier.

    For each class, between 1 in 1,000 and 1 in 3 images are positive. The scores roughly separate positives from
    negatives.
    """
    # The arrays are written to the disk in parts, because a run may be larger than memory.
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for name, dtype in (("probabilities", np.float32), ("targets", np.int8)):
        path, shape = folder / f"made_{name}.npy", (num_images, num_classes)
        arrays[name] = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    draw = np.random.default_rng(seed)
    rates = draw.permutation(np.geomspace(1e-3, 1 / 3, num_classes)).astype(np.float32)
    rows = max(1, 2**22 // num_classes)
    for first in range(0, num_images, rows):
        block = slice(first, min(first + rows, num_images))
        shape = (block.stop - first, num_classes)
        targets = draw.random(shape, np.float32) < rates
        logits = 1.3 * draw.standard_normal(shape, np.float32) - 3 + 3.5 * targets
        arrays["targets"][block], arrays["probabilities"][block] = targets, 1 / (1 + np.exp(-logits))
    run = MultilabelRun(
        **arrays,
        images=[f"{number:06}.jpg" for number in range(num_images)],
        classes=tuple(f"class {number}" for number in range(num_classes)),
        image_folder=str(folder),
        threshold=0.5,
        top_k=3,
        about={"data": "random numbers of benchmarks/make_run.py"},
    )
    write_multilabel_run(run, folder)
    for name in arrays:
        (folder / f"made_{name}.npy").unlink()


def make_detector(folder: Path, num_images: int, num_classes: int, seed: int) -> None:
    """Writes the run of a detector.

    It has one to four detections near each object, some of another class, and false positives.
    """
    truth, detections = random_boxes(num_images, num_classes, seed)
    run = DetectionRun(
        ground_truth=truth,
        predictions={"bbox": detections},
        image_ids=[image["id"] for image in truth["images"]],
        classes=tuple(category["name"] for category in truth["categories"]),
        image_folder=str(folder),
        backend="faster_coco_eval",
        about={"data": "random boxes of benchmarks/make_run.py"},
    )
    write_detection_run(run, folder)


def main() -> None:
    """Parses the command line and writes the run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--detector", action="store_true", help="write the run of a detector instead of a classifier")
    parser.add_argument("--images", type=int, help="number of images (default: 40,137, or 5,000 for a detector)")
    parser.add_argument("--classes", type=int, default=80, help="number of classes (default: 80)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random numbers (default: 0)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the run")
    options = parser.parse_args()
    if options.detector:
        make_detector(options.out, options.images or 5_000, options.classes, options.seed)
    else:
        make(options.out, options.images or 40_137, options.classes, options.seed)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    sys.exit(main())
