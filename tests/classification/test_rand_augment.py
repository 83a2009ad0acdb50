import gzip
import json
import random
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tresnet_downstream.classification.rand_augment import (
    FILL,
    MAGNITUDES,
    NAMES,
    OPERATIONS,
    apply_operation,
    draw_steps,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "rand_augment.json.gz"


def sample_picture():
    """A picture of 40 x 56 with texture, colour gradients and less than the full range of values."""
    noise = np.random.RandomState(0).randint(0, 256, (40, 56, 3))
    smooth = (noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1) + np.roll(noise, (1, 1), (0, 1))) // 4
    y, x = np.mgrid[0:40, 0:56]
    gradients = np.stack([3 * y, 2 * x, 60 + y - x], axis=2)
    return (20 + (smooth + gradients) // 2).astype(np.uint8)


@pytest.fixture(scope="module")
def golden():
    return json.loads(gzip.decompress(GOLDEN.read_bytes()))


def test_every_operation_gives_the_pixels_of_the_package(golden):
    picture = sample_picture()
    assert zlib.crc32(picture.tobytes()) == golden["picture_crc32"]
    for case in golden["results"]:
        ours = apply_operation(picture, case["name"], case["magnitude"], case["sign"], tuple(case["centre"]))
        values = np.array([ours[tuple(position)] for position in golden["positions"]], int)
        # Bicubic interpolation cuts off sums that the package has in float64.
        allowed = 1 if case["name"] in ("ShearX", "ShearY") else 0
        assert np.abs(values - case["pixels"]).max() <= allowed, case
        assert abs(float(ours.mean()) - case["mean"]) < (0.02 if allowed else 1e-4), case
        assert allowed or zlib.crc32(ours.tobytes()) == case["crc32"], case


@pytest.mark.parametrize("shape", [(96, 96), (50, 131), (1, 1), (2, 9), (200, 4)])
@pytest.mark.parametrize("kind", ["noise", "plain", "edges"])
def test_shears_are_within_1_of_pillow_and_nearly_always_equal(shape, kind):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    image = {"noise": image, "plain": np.full_like(image, 77), "edges": image // 128 * 255}[kind]
    for magnitude in range(10):
        for sign in (1, -1):
            slope = OPERATIONS["ShearX"].strengths[magnitude] * sign
            for name, matrix in (("ShearX", (1, slope, 0, 0, 1, 0)), ("ShearY", (1, 0, 0, slope, 1, 0))):
                expected = Image.fromarray(image).transform(
                    shape[::-1], Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=FILL
                )
                difference = np.abs(apply_operation(image, name, magnitude, sign).astype(int) - np.asarray(expected))
                assert difference.max() <= 1
                assert kind == "edges" or (difference > 0).mean() < 0.02


def test_the_golden_cases_cover_every_operation_magnitude_and_sign(golden):
    cases = {(case["name"], case["magnitude"]) for case in golden["results"]}
    assert cases == {(name, magnitude) for name in NAMES for magnitude in range(1, 10)}
    assert set(NAMES) == set(golden["names"])
    assert Counter(case["sign"] for case in golden["results"])[-1] == 8 * 9


def test_operations_leave_their_input_as_it_is():
    picture = sample_picture()
    picture.setflags(write=False)
    for name in NAMES:
        changed = apply_operation(picture, name, 9, centre=(3, 3))
        assert changed.flags.writeable
        assert changed.shape == picture.shape


def test_rotation_is_only_counter_clockwise():
    picture = np.zeros((41, 41, 3), np.uint8)
    picture[20, 30:] = 255
    for sign in (1, -1):
        turned = apply_operation(picture, "Rotate", 9, sign)
        assert (turned[:20] == 255).any()
        assert not (turned[21:] == 255).any()


def expect_uniform(counts, outcomes, total):
    """Each count lies within 4.5 standard deviations of what a uniform draw gives."""
    probability = 1 / len(outcomes)
    allowed = 4.5 * (total * probability * (1 - probability)) ** 0.5
    assert set(counts) == set(outcomes)
    assert max(abs(count - total * probability) for count in counts.values()) < allowed


def test_operations_magnitudes_signs_and_places_are_drawn_uniformly():
    generator = random.Random(0)
    steps = [step for _ in range(8000) for step in draw_steps(generator, (4, 6, 3))]
    for values, outcomes in (
        ([step.name for step in steps], NAMES),
        ([step.magnitude for step in steps], MAGNITUDES),
        ([step.sign for step in steps], (-1, 1)),
        ([step.centre for step in steps], [(row, column) for row in range(4) for column in range(6)]),
        ([(step.name, step.magnitude) for step in steps], [(n, m) for n in NAMES for m in range(1, 10)]),
    ):
        expect_uniform(Counter(values), outcomes, len(steps))


def test_each_of_two_operations_takes_place_with_probability_one_half():
    generator = random.Random(1)
    counts = Counter(len(draw_steps(generator, (8, 8))) for _ in range(8000))
    for steps, share in ((0, 0.25), (1, 0.5), (2, 0.25)):
        assert abs(counts[steps] / 8000 - share) < 4.5 * (share * (1 - share) / 8000) ** 0.5


def test_operations_are_drawn_with_replacement():
    generator = random.Random(2)
    pairs = [steps for steps in (draw_steps(generator, (8, 8)) for _ in range(8000)) if len(steps) == 2]
    same = sum(first.name == second.name for first, second in pairs)
    assert abs(same / len(pairs) - 1 / 15) < 4.5 * (1 / 15 * 14 / 15 / len(pairs)) ** 0.5
