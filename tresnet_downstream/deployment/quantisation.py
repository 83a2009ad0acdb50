"""Int8 quantisation with calibration, by OpenVINO's NNCF."""

import io
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, TypeVar

import numpy as np

from tresnet_downstream.errors import UserError
from tresnet_downstream.exported.formats.interface import required
from tresnet_downstream.images import BadImageError, read_image

T = TypeVar("T")
# Number of calibration images. Fewer do not determine the range of the feature maps; more than NNCF's default change
# little and take time.
FEWEST, MOST = 32, 300
# Prefix of the names of operations that stay in float32, see `export.onnx_program`.
IN_FLOAT = "float32/"
Track = Callable[[Iterable[str], int, str], Iterable[str]]


def calibration_images(
    files: Sequence[str], prepare: Callable[[np.ndarray], T], track: Track
) -> tuple[list[T], list[str]]:
    """Reads and prepares calibration images: at most :data:`MOST`, evenly spaced over ``files``.

    Args:
        files: paths of images.
        prepare: prepares an image (height x width x 3, uint8).
        track: yields the files and shows progress.

    Returns:
        the prepared images, and the reasons for unreadable ones.

    Raises:
        UserError: if there are fewer than :data:`FEWEST` readable images.
    """
    if len(files) < FEWEST:
        raise UserError(f"int8 needs at least {FEWEST} images for calibration, got {len(files)}")
    chosen = [files[int(place)] for place in np.linspace(0, len(files) - 1, min(len(files), MOST))]
    prepared, unreadable = [], []
    for file in track(chosen, len(chosen), "read"):
        try:
            prepared.append(prepare(read_image(file)))
        except BadImageError as error:
            unreadable.append(str(error))
    if len(prepared) < FEWEST:
        raise UserError(
            f"int8 needs at least {FEWEST} images for calibration, but only {len(prepared)} of {len(chosen)} can be "
            f"read; the first that cannot: {unreadable[0]}"
        )
    return prepared, unreadable


def quantised(model: Any, images: Sequence[Mapping[str, np.ndarray]]) -> Any:
    """Quantises an OpenVINO model to int8.

    Weights are quantised per output channel and feature maps per tensor; feature maps with negative values, such as
    after a leaky ReLU, have zero points (NNCF's ``MIXED`` preset). Ranges and bias corrections are computed from the
    images.

    Args:
        model: an OpenVINO model; operations whose names begin with :data:`IN_FLOAT` are not quantised.
        images: the model's inputs by name, for one image each.

    Raises:
        UserError: if NNCF is not installed.
    """
    # Turns NNCF's telemetry off.
    os.environ.setdefault("NNCF_CI", "1")
    in_float = [each.get_friendly_name() for each in model.get_ops() if each.get_friendly_name().startswith(IN_FLOAT)]
    with _quiet():
        nncf = required("nncf", "int8")
        nncf.set_log_level(logging.ERROR)
        return nncf.quantize(
            model,
            nncf.Dataset(images),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(images),
            ignored_scope=nncf.IgnoredScope(names=in_float, validate=False) if in_float else None,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """A context in which NNCF's progress bar is shown only on a terminal, and warnings about CUDA are suppressed."""
    logger = logging.getLogger("torch.utils.cpp_extension")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(sys.stderr if sys.stderr.isatty() else io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
