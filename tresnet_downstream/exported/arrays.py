"""Converts images to the inputs of exported files."""

from collections.abc import Mapping, Sequence

import numpy as np


def stacked(images: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Stacks the inputs of single images along a new first axis."""
    return {name: np.stack([image[name] for image in images]) for name in images[0]}


def as_network_input(images: np.ndarray) -> np.ndarray:
    """uint8 images N x H x W x 3 to float32 N x 3 x H x W in [0, 1].

    Examples:
        >>> float(as_network_input(np.full((2, 4, 4, 3), 255, np.uint8)).max())
        1.0
    """
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / 255
