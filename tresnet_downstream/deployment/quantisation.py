"""Int8 by calibration, with OpenVINO's NNCF."""

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
from tresnet_downstream.pictures import BadImageError, read_image

T = TypeVar("T")
# Fewer say too little of the range of the feature maps; more than NNCF's default change little and take time.
FEWEST, MOST = 32, 300
# Operations of these names, in a program that is exported, stay in float32: see `export.onnx_program`.
IN_FLOAT = "float32/"
Track = Callable[[Iterable[str], int, str], Iterable[str]]


def calibration_pictures(
    files: Sequence[str], prepare: Callable[[np.ndarray], T], track: Track
) -> tuple[list[T], list[str]]:
    """Pictures as the network will see them, at most :data:`MOST` spread over ``files``.

    Args:
        files: paths.
        prepare: makes of a picture (height x width x 3, uint8) what is kept of it.
        track: passes files on and shows how far they are.

    Returns:
        what was prepared, and why the others of those chosen cannot be read.

    Raises:
        UserError: for fewer than :data:`FEWEST`, or fewer that can be read.
    """
    if len(files) < FEWEST:
        raise UserError(f"int8 needs {FEWEST} pictures or more to calibrate with, got {len(files)}")
    chosen = [files[int(place)] for place in np.linspace(0, len(files) - 1, min(len(files), MOST))]
    prepared, unreadable = [], []
    for file in track(chosen, len(chosen), "read"):
        try:
            prepared.append(prepare(read_image(file)))
        except BadImageError as error:
            unreadable.append(str(error))
    if len(prepared) < FEWEST:
        raise UserError(
            f"int8 needs {FEWEST} pictures or more to calibrate with, and {len(prepared)} of {len(chosen)} can be "
            f"read; the first that cannot: {unreadable[0]}"
        )
    return prepared, unreadable


def quantised(model: Any, pictures: Sequence[Mapping[str, np.ndarray]]) -> Any:
    """The int8 form of an OpenVINO model.

    Weights are quantised per output channel, feature maps per tensor, with zero points where they have a negative side,
    as behind a leaky ReLU (NNCF's ``MIXED`` preset). Ranges and the correction of biases come from the pictures.

    Args:
        model: of OpenVINO; operations whose names begin with :data:`IN_FLOAT` stay as they are.
        pictures: the model's inputs by name, one picture in each.

    Raises:
        UserError: if NNCF is not installed.
    """
    # Else NNCF tells its makers that it was used.
    os.environ.setdefault("NNCF_CI", "1")
    in_float = [each.get_friendly_name() for each in model.get_ops() if each.get_friendly_name().startswith(IN_FLOAT)]
    with _quiet():
        nncf = required("nncf", "int8")
        nncf.set_log_level(logging.ERROR)
        return nncf.quantize(
            model,
            nncf.Dataset(pictures),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(pictures),
            ignored_scope=nncf.IgnoredScope(names=in_float, validate=False) if in_float else None,
        )


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
