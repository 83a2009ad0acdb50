"""Weights and images of the golden files. Both are computed by rules, so that the files are small."""

import gzip
import json
import zlib
from pathlib import Path

import numpy as np
import torch

GOLDEN = Path(__file__).parent / "golden"


def golden(name):
    """The golden file of this name."""
    with gzip.open(GOLDEN / f"{name}.json.gz") as file:
        return json.load(file)


def release_state_dict(keys):
    """Weights in float64 for a release's keys and shapes; each tensor is drawn from its key."""
    return {key: torch.tensor(_fill(key, shape)) for key, shape in keys.items()}


def _fill(key, shape):
    draw = np.random.RandomState(zlib.crc32(key.encode()) & 0xFFFFFFFF)
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, dtype=np.int64)
    if key.endswith("running_var"):
        return 0.5 + draw.random_sample(shape)
    if key.endswith("running_mean"):
        return 0.1 * draw.standard_normal(shape)
    if len(shape) >= 2:
        return draw.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    if key.endswith("bias"):
        return 0.1 * draw.standard_normal(shape)
    weight = 0.6 * draw.standard_normal(shape)
    weight[::16] = 0
    return weight


def pictures(size):
    """Noise, a wave and blocks: 3 x 3 x size x size in [0, 1], float64."""
    y, x = np.mgrid[0:size, 0:size]
    noise = np.random.RandomState(7).random_sample((3, size, size))
    wave = [0.5 + 0.5 * np.sin(2 * np.pi * ((c + 1) * x + (3 - c) * y) / size) for c in range(3)]
    blocks = [(x // (8 * (c + 1)) + y // 8) % 2 for c in range(3)]
    return torch.tensor(np.stack([noise, np.stack(wave), np.stack(blocks)]))
