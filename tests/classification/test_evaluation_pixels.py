"""Scores with our resized pixels are as good as with the pixels on which the published weights were scored."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from tresnet_downstream.classification.transforms import squash_resize
from tresnet_downstream.evaluation import multilabel_scores
from tresnet_downstream.jpeg import decode_jpeg

CLASSES, TRAINING, SCORED, SIZE = 8, 500, 700, 56


def jpeg_of(targets, draw):
    """Noise with a faint stripe pattern for each class that is shown."""
    height, width = draw.integers(60, 110, 2)
    y, x = np.mgrid[0:height, 0:width] / 100
    picture = draw.normal(128, 40, (height, width, 3))
    for number in np.flatnonzero(targets):
        angle, waves = np.pi * number / CLASSES, 12 + 3 * number
        stripes = np.sin(2 * np.pi * waves * (x * np.cos(angle) + y * np.sin(angle)) + draw.uniform(0, 6))
        picture += 9 * stripes[:, :, None] * np.roll([1.0, 0.6, 0.2], number)
    stream = io.BytesIO()
    Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def as_published(content):
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def as_here(content):
    return squash_resize(decode_jpeg(content), SIZE, SIZE)


@torch.inference_mode()
def features_of(pictures):
    """Of a layer of random filters: the mean and the spread of each."""
    generator = torch.Generator().manual_seed(0)
    filters = torch.randn((96, 3, 9, 9), generator=generator)
    filters -= filters.mean((1, 2, 3), keepdim=True)
    inputs = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    maps = torch.cat([torch.relu(torch.nn.functional.conv2d(part, filters, stride=3)) for part in inputs.split(100)])
    return torch.cat([maps.mean((2, 3)), maps.std((2, 3)), torch.ones(len(maps), 1)], dim=1).double().numpy()


@pytest.fixture(scope="module")
def scored():
    """Targets, and the scores of one network on the pixels of Pillow and on ours."""
    draw = np.random.default_rng(0)
    targets = (draw.random((TRAINING + SCORED, CLASSES)) < 0.3).astype(np.int8)
    contents = [jpeg_of(row, draw) for row in targets]
    theirs, ours = ([way(content) for content in contents] for way in (as_published, as_here))
    difference = np.abs(np.stack(theirs).astype(int) - np.stack(ours))
    features = features_of(theirs)
    mean, spread = features[:TRAINING].mean(0), features[:TRAINING].std(0) + 1e-6
    prepared = (features - mean) / spread
    fit = prepared[:TRAINING]
    weights = np.linalg.solve(fit.T @ fit + 30 * np.eye(fit.shape[1]), fit.T @ (targets[:TRAINING] - 0.3))
    scores = [prepared @ weights, ((features_of(ours) - mean) / spread) @ weights]
    return difference, targets[TRAINING:], [1 / (1 + np.exp(-4 * score[TRAINING:])) for score in scores]


def test_pixels_are_within_1_of_pillows(scored):
    difference, _, _ = scored
    assert difference.max() == 1
    assert (difference > 0).mean() < 0.1


def test_map_is_within_a_twentieth_of_a_point(scored):
    _, targets, (theirs, ours) = scored
    published, here = (multilabel_scores(scores, targets).mAP for scores in (theirs, ours))
    # Of a network that is neither blind nor perfect: then every exchanged pair would show.
    assert 50 < published < 95
    assert abs(published - here) < 0.05
