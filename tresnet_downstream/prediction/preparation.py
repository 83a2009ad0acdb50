"""Converts the validation pipeline of a config or an exported file to a function of arrays."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tresnet_downstream.prediction import resizing

# A function from an image, uint8 of shape (height, width, 3), to the prepared image, the input of the network.
Preparation = Callable[[np.ndarray], np.ndarray]


def _squash(size: int | Sequence[int], p: float = 1.0) -> Preparation:
    _require_certain(p)
    height, width = resizing.sides_of(size)
    return lambda image: resizing.resize(image, height, width)


def _crop(size: int, fraction: float = 0.875, interpolation: str = "bilinear", p: float = 1.0) -> Preparation:
    _require_certain(p)
    resizing.require_crop(size, fraction, interpolation)
    return lambda image: resizing.resize_and_crop(image, size, fraction, interpolation)


def _require_certain(p: float) -> None:
    if p != 1:
        raise ValueError(f"p is {p}, but the preparation of images must not be random")


# The transforms of `classification/transforms.py` for scoring.
_STEPS: Mapping[str, Callable[..., Preparation]] = {"SquashResize": _squash, "ResizeAndCrop": _crop}


def preparation_of(pipeline: Sequence[Mapping[str, Any]]) -> Preparation | None:
    """A function that applies the steps of a pipeline, with the same pixels as the pipeline in training and scoring.

    Args:
        pipeline: for each step, a dictionary of its ``type`` and its arguments.

    Returns:
        The function. None for a pipeline with other steps or arguments, for which
        :func:`classification.transforms.build_pipeline` is needed.

    Examples:
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

    def prepare(image: np.ndarray) -> np.ndarray:
        for step in steps:
            image = step(image)
        return image

    return prepare
