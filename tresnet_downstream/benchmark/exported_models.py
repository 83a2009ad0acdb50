"""Compares TResNet-M fused, in ONNX Runtime and in OpenVINO, in float32 and int8, with timm's TResNet-M."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tresnet_downstream.benchmark.interleaved import Ratio, interleaved, require_repeats, speed_ratio
from tresnet_downstream.benchmark.networks import NETWORKS
from tresnet_downstream.classification import ImageClassifier
from tresnet_downstream.deployment import fuse
from tresnet_downstream.deployment.classifier import ExportableClassifier
from tresnet_downstream.deployment.export import export
from tresnet_downstream.deployment.exportable import synthetic_images
from tresnet_downstream.deployment.quantisation import FEWEST
from tresnet_downstream.errors import UserError
from tresnet_downstream.exported import ExportedClassifier

PEER = "timm_tresnet_m"


@dataclass(frozen=True)
class Row:
    """Speed of one implementation.

    Attributes:
        who: name of the implementation.
        images_per_second: median over the repeats.
        ratio: ratio of the images/s to those of the peer, computed for each repeat.
    """

    who: str
    images_per_second: float
    ratio: Ratio


def compare_exported(
    size: int = 224,
    batch_size: int = 8,
    repeats: int = 9,
    tell: Callable[[str], object] = lambda line: None,
    network: str = "tresnet_m",
) -> list[Row]:
    """Measures the speed of TResNet-M on the CPU, with random weights and synthetic images.

    Args:
        size: side of the images, in pixels.
        batch_size: number of images per call.
        repeats: number of timed calls of each candidate, after one warm-up call.
        tell: function that is called with each line of progress.
        network: name of a network of this toolkit in :data:`NETWORKS`.

    Returns:
        one row for each candidate.

    Raises:
        UserError: if a number is too small or a package is missing.
    """
    require_repeats(repeats)
    if batch_size < 1:
        raise UserError(f"`batch_size` {batch_size}: give a whole number, at least 1")
    torch.manual_seed(0)
    ours = NETWORKS[network].build().eval()
    assert isinstance(ours, ImageClassifier)
    ours.pipeline = ({"type": "SquashResize", "size": size},)
    ours.classes = tuple(str(number) for number in range(1000))
    peer = NETWORKS[PEER].build().eval().to(memory_format=torch.channels_last)
    fused = fuse(ours).to(memory_format=torch.channels_last)
    images = synthetic_images(batch_size, size, size).transpose(0, 3, 1, 2).astype(np.float32) / 255
    batch = torch.from_numpy(images).contiguous(memory_format=torch.channels_last)
    with tempfile.TemporaryDirectory() as folder:
        models = _exported(ours, Path(folder), tell)
        candidates: dict[str, Callable[[], object]] = {PEER: lambda: peer(batch), "fuse": lambda: fused(batch)}
        candidates |= {who: partial(model.logits, images) for who, model in models.items()}
        with torch.inference_mode():
            timings = interleaved(candidates, repeats, on_repeat=lambda done: tell(f"round {done} of {repeats + 1}"))
    return [Row(who, batch_size / timing.median, speed_ratio(timing, timings[PEER])) for who, timing in timings.items()]


def _exported(model: ImageClassifier, folder: Path, tell: Callable[[str], object]) -> dict[str, ExportedClassifier]:
    size = model.pipeline[0]["size"]
    calibration = [str(folder / f"{number}.png") for number in range(FEWEST)]
    for file, image in zip(calibration, synthetic_images(FEWEST, size, size), strict=True):
        Image.fromarray(image).save(file)
    exports = {
        "ONNX Runtime": ("model.onnx", []),
        "OpenVINO": ("model.xml", []),
        "OpenVINO, int8": ("int8.xml", calibration),
    }
    models = {}
    for who, (name, images) in exports.items():
        tell(f"exporting for {who}")
        export(ExportableClassifier(model), folder / name, images)
        models[who] = ExportedClassifier(folder / name)
    return models


def markdown(rows: list[Row], peer: str = PEER) -> str:
    """Returns the rows as a Markdown table."""
    lines = [f"| | images/s | x {peer} |", "| --- | ---: | ---: |"]
    lines += [f"| {row.who} | {row.images_per_second:.1f} | {row.ratio} |" for row in rows]
    return "\n".join(lines) + "\n"
