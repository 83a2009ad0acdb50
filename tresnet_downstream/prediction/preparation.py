"""From the pipeline of a validation, as a config or an exported file has it, to functions of arrays."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tresnet_downstream.prediction import resizing

# From a picture, uint8 of shape (height, width, 3), to the one that the network takes.
Preparation = Callable[[np.ndarray], np.ndarray]


def _squash(size: int | Sequence[int], p: float = 1.0) -> Preparation:
    _require_certain(p)
    height, width = resizing.sides_of(size)
    return lambda picture: resizing.resize(picture, height, width)


def _crop(size: int, fraction: float = 0.875, interpolation: str = "bilinear", p: float = 1.0) -> Preparation:
    _require_certain(p)
    resizing.require_crop(size, fraction, interpolation)
    return lambda picture: resizing.resize_and_crop(picture, size, fraction, interpolation)


def _require_certain(p: float) -> None:
    if p != 1:
        raise ValueError(f"p is {p}, and what is drawn at random is no preparation")


# The transforms of `classification/transforms.py` that pictures are scored with.
_STEPS: Mapping[str, Callable[..., Preparation]] = {"SquashResize": _squash, "ResizeAndCrop": _crop}


def preparation_of(pipeline: Sequence[Mapping[str, Any]]) -> Preparation | None:
    """The steps of a pipeline, one after the other; their pixels are those of the pipeline in training and scoring.

    Args:
        pipeline: for each step a dictionary of its ``type`` and its arguments.

    Returns:
        the function; None for a pipeline with other steps or arguments, which
        :func:`classification.transforms.build_pipeline` builds or refuses.

    Example:
        >>> prepare = preparation_of([{"type": "SquashResize", "size": 8}])
        >>> prepare(np.zeros((20, 30, 3), np.uint8)).shape
        (8, 8, 3)
    """
    steps = []
    for entry in pipeline:
        arguments = {key: value for key, value in entry.items() if key != "type"}
        make = _STEPS.get(str(entry.get("type")))
        if make is None:
            return None
        try:
            steps.append(make(**arguments))
        except (TypeError, ValueError):
            return None

    def prepare(picture: np.ndarray) -> np.ndarray:
        for step in steps:
            picture = step(picture)
        return picture

    return prepare
