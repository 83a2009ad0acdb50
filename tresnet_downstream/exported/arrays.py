"""From images to the inputs of exported files."""

from collections.abc import Mapping, Sequence

import numpy as np


def stacked(images: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The inputs of single images, with a first axis of images."""
    return {name: np.stack([image[name] for image in images]) for name in images[0]}


def as_network_input(images: np.ndarray) -> np.ndarray:
    """N x H x W x 3, uint8, to N x 3 x H x W in [0, 1], float32."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / 255
