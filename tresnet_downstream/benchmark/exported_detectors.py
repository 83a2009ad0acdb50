"""Measures a detector in ONNX Runtime and OpenVINO, in float32 and int8, beside the same detector in MMDetection."""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tresnet_downstream.benchmark.exported_models import Row
from tresnet_downstream.benchmark.interleaved import interleaved, require_repeats, speed_ratio
from tresnet_downstream.errors import UserError
from tresnet_downstream.pictures import find_images, read_image

PEER = "MMDetection, eager"


def compare_exported_detector(
    checkpoint: str | Path,
    patterns: Sequence[str],
    batch_size: int = 1,
    repeats: int = 9,
    tell: Callable[[str], object] = lambda line: None,
) -> list[Row]:
    """Times a detector on the CPU, from resized pictures to boxes, at the score threshold of its config.

    Args:
        checkpoint: of a detector that can be exported.
        patterns: pictures, folders or patterns, which int8 is calibrated with; the first ``batch_size`` are timed.
        batch_size: pictures at a time.
        repeats: timed calls of each, after one that warms up.
        tell: told in a line what is going on.

    Raises:
        UserError: for numbers that are too small, a package that is missing, and a detector that cannot be exported.
    """
    require_repeats(repeats)
    images = find_images(patterns)
    if not 1 <= batch_size <= len(images):
        raise UserError(f"`batch_size` {batch_size}: give a whole number, 1 to the {len(images)} pictures there are")
    from tresnet_downstream.deployment.detector import ExportableDetector
    from tresnet_downstream.deployment.export import export
    from tresnet_downstream.detection.predict import load_detector
    from tresnet_downstream.exported import ExportedDetector

    model = ExportableDetector(load_detector(checkpoint))
    pictures = [model.prepare(read_image(file)) for file in images[:batch_size]]
    ways: dict[str, Callable[[], Any]] = {PEER: partial(model.predicted, pictures, model.score_threshold)}
    exports: dict[str, tuple[str, Sequence[str]]] = {
        "ONNX Runtime": ("model.onnx", []),
        "OpenVINO": ("model.xml", []),
        "OpenVINO, int8": ("int8.xml", images),
    }
    with tempfile.TemporaryDirectory() as folder:
        for who, (name, calibration) in exports.items():
            tell(f"exporting for {who}")
            export(model, Path(folder, name), calibration)
            ways[who] = partial(ExportedDetector(Path(folder, name)).run, pictures, model.score_threshold)
        timings = interleaved(ways, repeats, on_repeat=lambda done: tell(f"round {done} of {repeats + 1}"))
    return [Row(who, batch_size / timing.median, speed_ratio(timing, timings[PEER])) for who, timing in timings.items()]
