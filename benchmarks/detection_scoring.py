"""Compares the scoring of detections with pycocotools and faster-coco-eval: time and scores."""

import contextlib
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from random_boxes import random_boxes

from tresnet_downstream.benchmark.interleaved import Timing, interleaved, require_repeats, speed_ratio
from tresnet_downstream.benchmark.machine import machine_line
from tresnet_downstream.command_line import Parser, run
from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.coco_index import library
from tresnet_downstream.evaluation.detection_scores import HEADLINE, detection_scores

REFERENCE, FASTER, OURS = "pycocotools", "faster-coco-eval", "this toolkit"
NUM_CLASSES = 80


@dataclass(frozen=True, eq=False)
class ScoringComparison:
    """Times and scores of several implementations for the same detections.

    Attributes:
        num_images: number of images.
        num_objects: number of ground-truth boxes.
        num_detections: number of detections.
        timings: times from dicts in memory to COCO's twelve numbers, by name of the implementation. `REFERENCE` is one
            of the names.
        statistics: COCO's twelve numbers, in [0, 1], by the same names.
    """

    num_images: int
    num_objects: int
    num_detections: int
    timings: dict[str, Timing]
    statistics: dict[str, np.ndarray]

    def difference(self, name: str) -> float:
        """Returns the largest absolute difference of the twelve numbers from those of pycocotools."""
        return float(np.abs(self.statistics[name] - self.statistics[REFERENCE]).max())

    def markdown(self) -> str:
        """Returns a table of the times and a table of the twelve numbers, as Markdown."""
        lines = [
            f"{self.num_detections:,} boxes on {self.num_images:,} images with {self.num_objects:,} objects",
            "",
            "| | seconds | x pycocotools | largest difference |",
            "|---|---:|---:|---:|",
        ]
        for name, timing in self.timings.items():
            low, high = timing.quartiles
            ratio = speed_ratio(timing, self.timings[REFERENCE])
            spread = f"{timing.median:.2f} ({low:.2f} to {high:.2f})"
            lines.append(f"| {name} | {spread} | {ratio} | {self.difference(name):.1e} |")
        lines += ["", f"| | {' | '.join(self.statistics)} |", "|---" * (1 + len(self.statistics)) + "|"]
        for place, key in enumerate(HEADLINE):
            values = (f"{numbers[place]:.12f}" for numbers in self.statistics.values())
            lines.append(f"| {key} | {' | '.join(values)} |")
        return "\n".join(lines) + "\n"


def compare_scoring(
    num_images: int = 2_000,
    num_boxes: int = 166_056,
    repeats: int = 3,
    seed: int = 0,
    tell: Callable[[str], object] = lambda line: None,
) -> ScoringComparison:
    """Scores random detections with pycocotools, with faster-coco-eval, and with this toolkit.

    The second implementation calls faster-coco-eval directly. This toolkit uses faster-coco-eval, too.

    Args:
        num_images: number of images.
        num_boxes: number of detections on all images together.
        repeats: number of timed rounds. In each round, every implementation scores the detections once.
        seed: seed of the boxes.
        tell: function that is called with each line of progress.

    Raises:
        UserError: if a number is too small, or if one of the two packages is missing.
    """
    if num_images < 1 or num_boxes < num_images:
        raise UserError(
            f"`num_images` {num_images}, `num_boxes` {num_boxes}: give at least one image and one box per image"
        )
    require_repeats(repeats)
    libraries = {REFERENCE: library("pycocotools"), FASTER: library("faster_coco_eval")}
    tell(f"making {num_boxes:,} boxes")
    truth, detections = _boxes(num_images, num_boxes, seed)
    statistics: dict[str, np.ndarray] = {}

    def directly(name: str) -> None:
        statistics[name] = _direct_statistics(*libraries[name], truth, detections)

    def ours() -> None:
        scores = detection_scores(truth, detections, backend="faster_coco_eval")
        statistics[OURS] = np.array(list(scores.headline.values())) / 100

    timings = interleaved(
        {REFERENCE: lambda: directly(REFERENCE), FASTER: lambda: directly(FASTER), OURS: ours},
        repeats,
        warm_up=0,
        on_repeat=lambda done: tell(f"round {done} of {repeats}"),
    )
    return ScoringComparison(num_images, len(truth["annotations"]), len(detections), timings, statistics)


def _boxes(num_images: int, num_boxes: int, seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns a random ground truth, and exactly ``num_boxes`` of the detections that were drawn for it."""
    more_than_enough = -(-num_boxes // num_images)
    truth, detections = random_boxes(num_images, NUM_CLASSES, seed, false_alarms=more_than_enough)
    chosen = np.random.default_rng(seed).choice(len(detections), num_boxes, replace=False)
    return truth, [detections[place] for place in np.sort(chosen)]


def _direct_statistics(
    index_type: Any, evaluation_type: Any, truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]]
) -> np.ndarray:
    """Computes the twelve numbers as described in the documentation of the package."""
    with contextlib.redirect_stdout(io.StringIO()):
        index = index_type()
        # Both packages change the dicts that they receive.
        index.dataset = {**truth, "annotations": [dict(annotation) for annotation in truth["annotations"]]}
        index.createIndex()
        run = evaluation_type(index, index.loadRes([dict(detection) for detection in detections]), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return np.asarray(run.stats[:12], np.float64)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line, measures, and prints the results."""
    parser = Parser(description=__doc__)
    parser.add_argument("--images", type=int, metavar="N", default=2_000, help="number of images")
    parser.add_argument("--boxes", type=int, metavar="N", default=166_056, help="number of predicted boxes")
    parser.add_argument("--repeats", type=int, metavar="N", default=3, help="timed rounds")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the boxes")
    options = parser.parse_args(arguments)
    compared = compare_scoring(
        options.images,
        options.boxes,
        options.repeats,
        options.seed,
        lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(machine_line(), compared.markdown(), sep="\n\n", end="")


if __name__ == "__main__":
    sys.exit(run(main))
