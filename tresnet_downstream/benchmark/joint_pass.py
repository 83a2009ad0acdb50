"""Measures the time and memory of a label head: compares a joint model with its detector alone."""

import copy
import gc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from tresnet_downstream.benchmark.allocations import Allocations
from tresnet_downstream.benchmark.interleaved import Ratio, interleaved, require_repeats, speed_ratio
from tresnet_downstream.errors import UserError

if TYPE_CHECKING:
    from mmdet.structures import DetDataSample
    from mmengine.model import BaseModel

BOXES = 4  # number of boxes in each image


@dataclass(frozen=True)
class Row:
    """Time and memory of one kind of pass.

    Attributes:
        kind: ``inference`` or ``training``. Training computes the losses and the backward pass.
        detector_seconds: median time of the detector alone, in seconds.
        joint_seconds: median time of the joint model, in seconds.
        time: ratio of the joint model's time to the detector's, computed for each repeat.
        memory: ratio of the joint model's peak memory to the detector's.
    """

    kind: str
    detector_seconds: float
    joint_seconds: float
    time: Ratio
    memory: float


def compare_joint(
    checkpoint: str | Path,
    size: int = 128,
    batch_size: int = 8,
    repeats: int = 15,
    tell: Callable[[str], object] = lambda line: None,
) -> list[Row]:
    """Measures the time and memory of a joint model and of its detector on the CPU, with random images.

    Args:
        checkpoint: checkpoint of a joint model.
        size: side of the images, in pixels; a multiple of 32.
        batch_size: number of images per pass.
        repeats: number of timed passes of each model, after one warm-up pass.
        tell: function that is called with each line of progress.

    Returns:
        one row for inference and one for training.

    Raises:
        UserError: if a number is invalid, or the checkpoint is of another task.
    """
    from tresnet_downstream.detection.predict import load_detector
    from tresnet_downstream.joint.predict import gives_labels_and_boxes

    require_repeats(repeats)
    if batch_size < 1 or size < 32 or size % 32:
        raise UserError(
            f"`batch_size` {batch_size}, `size` {size}: give a batch size of at least 1, and a multiple of 32 as size"
        )
    model: BaseModel = load_detector(checkpoint)
    if not gives_labels_and_boxes(model):
        raise UserError(f"{checkpoint}: is a checkpoint of a detector; give one of a joint model (labels and boxes)")
    images, samples = _batch(model, size, batch_size)

    def infer(network: nn.Module) -> None:
        with torch.inference_mode():
            network.eval()(images, copy.deepcopy(samples), mode="predict")

    def train(network: "BaseModel") -> None:
        losses = network.train()(images, copy.deepcopy(samples), mode="loss")
        network.parse_losses(losses)[0].backward()
        network.zero_grad()

    rows = []
    for kind, step in {"inference": infer, "training": train}.items():
        tell(f"measuring {kind}")
        passes = {"detector": partial(step, model.detector), "both": partial(step, model)}
        timings = interleaved(passes, repeats)
        peaks = {}
        for name, one_pass in passes.items():
            gc.collect()
            with Allocations() as allocations:
                one_pass()
            peaks[name] = allocations.peak()
        # The detector's speed divided by the joint model's is the joint model's time divided by the detector's.
        ratio = speed_ratio(timings["detector"], timings["both"])
        rows.append(
            Row(kind, timings["detector"].median, timings["both"].median, ratio, peaks["both"] / peaks["detector"])
        )
    return rows


def markdown(rows: list[Row]) -> str:
    """Returns the rows as a Markdown table."""
    lines = ["| pass | detector, s | both, s | time x | peak memory x |", "| --- | ---: | ---: | ---: | ---: |"]
    lines += [
        f"| {row.kind} | {row.detector_seconds:.3f} | {row.joint_seconds:.3f} | {row.time} | {row.memory:.3f} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def _batch(model: "BaseModel", size: int, batch_size: int) -> tuple[torch.Tensor, list["DetDataSample"]]:
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    draw = torch.Generator().manual_seed(0)
    samples = []
    for number in range(batch_size):
        shape = {"img_shape": (size, size), "ori_shape": (size, size), "batch_input_shape": (size, size)}
        sample = DetDataSample(metainfo={**shape, "pad_shape": (size, size), "scale_factor": (1.0, 1.0)})
        corners = torch.rand(BOXES, 2, generator=draw) * size / 2
        sides = size / 8 + torch.rand(BOXES, 2, generator=draw) * size / 4
        labels = torch.arange(number, number + BOXES) % len(model.classes)
        sample.gt_instances = InstanceData(bboxes=torch.cat([corners, corners + sides], 1), labels=labels)
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        samples.append(sample)
    return torch.rand(batch_size, 3, size, size, generator=draw), samples
