"""Compares a detector in ONNX Runtime and OpenVINO, in float32 and int8, with the same detector in MMDetection."""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tresnet_downstream.benchmark.exported_models import Row
from tresnet_downstream.benchmark.interleaved import interleaved, require_repeats, speed_ratio
from tresnet_downstream.errors import UserError
from tresnet_downstream.images import find_images, read_image

PEER = "MMDetection, eager"


def compare_exported_detector(
    checkpoint: str | Path,
    patterns: Sequence[str],
    batch_size: int = 1,
    repeats: int = 9,
    tell: Callable[[str], object] = lambda line: None,
) -> list[Row]:
    """Measures the speed of a detector on the CPU, from resized images to boxes, at the score threshold of its config.

    Args:
        checkpoint: checkpoint of a detector that can be exported.
        patterns: image files, folders or patterns. The images calibrate int8, and the first ``batch_size`` are timed.
        batch_size: number of images per call.
        repeats: number of timed calls of each candidate, after one warm-up call.
        tell: function that is called with each line of progress.

    Returns:
        one row for each candidate.

    Raises:
        UserError: if a number is out of range, a package is missing, or the detector cannot be exported.
    """
    require_repeats(repeats)
    files = find_images(patterns)
    if not 1 <= batch_size <= len(files):
        raise UserError(f"`batch_size` {batch_size}: give a whole number from 1 to {len(files)}, the number of images")
    from tresnet_downstream.deployment.detector import ExportableDetector
    from tresnet_downstream.deployment.export import export
    from tresnet_downstream.detection.predict import load_detector
    from tresnet_downstream.exported import ExportedDetector

    model = ExportableDetector(load_detector(checkpoint))
    images = [model.prepare(read_image(file)) for file in files[:batch_size]]
    candidates: dict[str, Callable[[], object]] = {PEER: partial(model.predicted, images, model.score_threshold)}
    exports: dict[str, tuple[str, Sequence[str]]] = {
        "ONNX Runtime": ("model.onnx", []),
        "OpenVINO": ("model.xml", []),
        "OpenVINO, int8": ("int8.xml", files),
    }
    with tempfile.TemporaryDirectory() as folder:
        for who, (name, calibration) in exports.items():
            tell(f"exporting for {who}")
            export(model, Path(folder, name), calibration)
            candidates[who] = partial(ExportedDetector(Path(folder, name)).run, images, model.score_threshold)
        timings = interleaved(candidates, repeats, on_repeat=lambda done: tell(f"round {done} of {repeats + 1}"))
    return [Row(who, batch_size / timing.median, speed_ratio(timing, timings[PEER])) for who, timing in timings.items()]
