"""Measures TResNet-M fused, in ONNX Runtime and in OpenVINO, in float32 and int8, beside timm's TResNet-M."""

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
from tresnet_downstream.deployment.exportable import drawn_pictures
from tresnet_downstream.deployment.quantisation import FEWEST
from tresnet_downstream.errors import UserError
from tresnet_downstream.exported import ExportedClassifier

PEER = "timm_tresnet_m"


@dataclass(frozen=True)
class Row:
    """One way to run the network.

    Attributes:
        who: what runs it.
        images_per_second: the median.
        ratio: images/s as a multiple of the peer's, repeat by repeat.
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
    """Times TResNet-M with random weights and drawn pictures on the CPU.

    Args:
        size: side of the pictures, in pixels.
        batch_size: pictures at a time.
        repeats: timed calls of each, after one that warms up.
        tell: told in a line what is going on.
        network: of :data:`NETWORKS`, this toolkit's.

    Raises:
        UserError: for numbers that are too small, or a package that is missing.
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
    pictures = drawn_pictures(batch_size, size, size).transpose(0, 3, 1, 2).astype(np.float32) / 255
    batch = torch.from_numpy(pictures).contiguous(memory_format=torch.channels_last)
    with tempfile.TemporaryDirectory() as folder:
        files = _exported(ours, Path(folder), tell)
        ways: dict[str, Callable[[], object]] = {PEER: lambda: peer(batch), "fuse": lambda: fused(batch)}
        ways |= {who: partial(model.logits, pictures) for who, model in files.items()}
        with torch.inference_mode():
            timings = interleaved(ways, repeats, on_repeat=lambda done: tell(f"round {done} of {repeats + 1}"))
    return [Row(who, batch_size / timing.median, speed_ratio(timing, timings[PEER])) for who, timing in timings.items()]


def _exported(model: ImageClassifier, folder: Path, tell: Callable[[str], object]) -> dict[str, ExportedClassifier]:
    size = model.pipeline[0]["size"]
    calibration = [str(folder / f"{number}.png") for number in range(FEWEST)]
    for file, picture in zip(calibration, drawn_pictures(FEWEST, size, size), strict=True):
        Image.fromarray(picture).save(file)
    exports = {
        "ONNX Runtime": ("model.onnx", []),
        "OpenVINO": ("model.xml", []),
        "OpenVINO, int8": ("int8.xml", calibration),
    }
    models = {}
    for who, (name, pictures) in exports.items():
        tell(f"exporting for {who}")
        export(ExportableClassifier(model), folder / name, pictures)
        models[who] = ExportedClassifier(folder / name)
    return models


def markdown(rows: list[Row], peer: str = PEER) -> str:
    """A table of what was measured."""
    lines = [f"| | images/s | x {peer} |", "| --- | ---: | ---: |"]
    lines += [f"| {row.who} | {row.images_per_second:.1f} | {row.ratio} |" for row in rows]
    return "\n".join(lines) + "\n"
