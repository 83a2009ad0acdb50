"""Int8 by calibration, with OpenVINO's NNCF."""

import io
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

import numpy as np

from tresnet_downstream.classification.transforms import build_pipeline
from tresnet_downstream.deployment.exported import required
from tresnet_downstream.errors import UserError
from tresnet_downstream.pictures import read_image

# Fewer say too little of the range of the feature maps; more than NNCF's default change little and take time.
FEWEST, MOST = 32, 300
Track = Callable[[Iterable[str], int, str], Iterable[str]]


def calibration_pictures(files: Sequence[str], pipeline: Sequence[dict[str, Any]], track: Track) -> np.ndarray:
    """Pictures as the network will see them: N x H x W x 3, uint8, at most :data:`MOST` spread over ``files``.

    Raises:
        UserError: for fewer than :data:`FEWEST`, and for one that cannot be read.
    """
    if len(files) < FEWEST:
        raise UserError(f"int8 needs {FEWEST} pictures or more to calibrate with, got {len(files)}")
    chosen = [files[int(place)] for place in np.linspace(0, len(files) - 1, min(len(files), MOST))]
    prepare = build_pipeline(pipeline)
    return np.stack([prepare(image=read_image(file))["image"] for file in track(chosen, len(chosen), "read")])


def quantised(model: Any, pictures: np.ndarray) -> Any:
    """The int8 form of an OpenVINO model.

    Weights are quantised per output channel, feature maps per tensor, with zero points where they have a negative side,
    as behind a leaky ReLU (NNCF's ``MIXED`` preset). Ranges and the correction of biases come from the pictures.

    Args:
        model: of OpenVINO, with one input of N x 3 x H x W in [0, 1].
        pictures: from :func:`calibration_pictures`.

    Raises:
        UserError: if NNCF is not installed.
    """
    # Else NNCF tells its makers that it was used.
    os.environ.setdefault("NNCF_CI", "1")
    with _quiet():
        nncf = required("nncf", "int8")
        nncf.set_log_level(logging.ERROR)
        dataset = nncf.Dataset(list(_single(pictures)))
        return nncf.quantize(model, dataset, preset=nncf.QuantizationPreset.MIXED, subset_size=len(pictures))


@contextmanager
def _quiet() -> Iterator[None]:
    """Has NNCF's progress bar on a terminal's error stream alone, and nothing said of CUDA, which it does not need."""
    logger = logging.getLogger("torch.utils.cpp_extension")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(sys.stderr if sys.stderr.isatty() else io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _single(pictures: np.ndarray) -> Iterator[np.ndarray]:
    for picture in pictures:
        yield picture.transpose(2, 0, 1)[None].astype(np.float32) / 255
