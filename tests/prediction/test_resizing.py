"""Resizing in integer arithmetic gives the pixels of torch's kernel, for all sizes and values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tresnet_downstream.classification.transforms import build_pipeline, squash_resize
from tresnet_downstream.prediction.preparation import preparation_of
from tresnet_downstream.prediction.resizing import INTERPOLATIONS, resize

SIDES = st.integers(1, 300)


def drawn(kind, height, width, seed=0):
    """A picture of noise, of noise in black and white alone, whose sums are the greatest, or of a ramp."""
    draw = np.random.default_rng(seed)
    if kind == "ramp":
        ramp = np.add.outer(np.arange(height), np.arange(width)) * 255 // max(height + width - 2, 1)
        return np.repeat(ramp.astype(np.uint8)[:, :, None], 3, 2)
    noise = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return noise if kind == "noise" else (noise > 127).astype(np.uint8) * np.uint8(255)


@settings(max_examples=150, deadline=None)
@given(
    SIDES, SIDES, SIDES, SIDES, st.sampled_from(INTERPOLATIONS), st.sampled_from(["noise", "extremes", "ramp"]), SIDES
)
def test_pixels_are_those_of_torch(height, width, new_height, new_width, interpolation, kind, seed):
    picture = drawn(kind, height, width, seed)
    found = resize(picture, new_height, new_width, interpolation)
    assert found.flags.c_contiguous
    assert np.array_equal(found, squash_resize(picture, new_height, new_width, interpolation))


# Where a row of weights has hundreds of values, sums exceed what float32 holds exactly.
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(
    ("shape", "size"), [((3000, 40), (64, 64)), ((40, 5000), (8, 9)), ((1, 700), (1, 3)), ((9, 9), (700, 1))]
)
def test_pixels_are_those_of_torch_at_great_scales(shape, size, interpolation):
    for kind in ("noise", "extremes", "ramp"):
        picture = drawn(kind, *shape)
        assert np.array_equal(resize(picture, *size, interpolation), squash_resize(picture, *size, interpolation))


def test_image_stays_as_it_is_and_may_be_a_view():
    picture = drawn("noise", 40, 30)[:, ::-1]
    picture.flags.writeable = False
    assert np.array_equal(resize(picture, 8, 8), squash_resize(np.ascontiguousarray(picture), 8, 8))
    same = resize(picture, 40, 30)
    assert np.array_equal(same, picture)
    assert not np.shares_memory(same, picture)


PIPELINES = [
    [{"type": "SquashResize", "size": 48}],
    [{"type": "SquashResize", "size": [40, 56], "p": 1.0}],
    [{"type": "ResizeAndCrop", "size": 48}],
    [{"type": "ResizeAndCrop", "size": 48, "fraction": 0.9, "interpolation": "bicubic"}],
    [{"type": "ResizeAndCrop", "size": 48, "fraction": 1}],
    [{"type": "SquashResize", "size": 64}, {"type": "ResizeAndCrop", "size": 32}],
    [],
]


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("shape", [(90, 140), (140, 90), (48, 48), (20, 31)])
def test_preparation_is_the_pipeline_of_training_and_scoring(pipeline, shape):
    picture = drawn("noise", *shape)
    prepare = preparation_of(pipeline)
    assert np.array_equal(prepare(picture), build_pipeline(pipeline)(image=picture)["image"])


@pytest.mark.parametrize(
    "step",
    [
        {"type": "HorizontalFlip", "p": 1.0},
        {"type": "SquashResize", "size": 48, "p": 0.5},
        {"type": "SquashResize", "size": 0},
        {"type": "SquashResize", "size": 48, "more": 1},
        {"type": "ResizeAndCrop", "size": 48, "interpolation": "nearest"},
        {"type": "ResizeAndCrop", "size": 48, "fraction": 1.5},
        {"size": 48},
    ],
)
def test_other_steps_and_arguments_have_no_preparation(step):
    assert preparation_of([{"type": "SquashResize", "size": 48}, step]) is None
