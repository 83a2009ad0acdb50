import random
import subprocess
import sys

import numpy as np
import pytest
from mmengine.config import ConfigDict
from PIL import Image, ImageDraw

from tresnet_downstream.classification.transforms import (
    Cutout,
    RandAugment,
    SquashResize,
    build_pipeline,
    cut_out,
    enough_pixels,
    squash_resize,
)
from tresnet_downstream.errors import UserError


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def set_draws(transform, seed):
    transform.set_random_state(np.random.default_rng(seed), random.Random(seed))


@pytest.mark.parametrize("shape", [(48, 64), (13, 7), (20, 20), (100, 31), (427, 640), (900, 60)])
@pytest.mark.parametrize("size", [(20, 20), (33, 50), (448, 448)])
@pytest.mark.parametrize("kind", ["noise", "edges", "gradient"])
def test_squash_resize_is_within_1_of_torchvision_on_a_pillow_image(shape, size, kind):
    transforms = pytest.importorskip("torchvision.transforms")
    image = noise(*shape)
    if kind == "edges":
        image = (image // 128) * 255
    elif kind == "gradient":
        image = np.ascontiguousarray(np.broadcast_to(np.linspace(0, 255, shape[1])[:, None], image.shape)).astype(
            np.uint8
        )
    expected = np.asarray(transforms.Resize(size)(Image.fromarray(image)))
    difference = squash_resize(image, *size).astype(int) - expected
    assert np.abs(difference).max() <= 1
    assert abs(difference.mean()) < 0.3


def test_squash_resize_takes_views_and_read_only_arrays():
    image = noise(30, 40)
    image.setflags(write=False)
    turned = squash_resize(image[:, ::-1], 16, 16)
    assert np.array_equal(turned, squash_resize(np.ascontiguousarray(image[:, ::-1]), 16, 16))


def test_images_may_be_decoded_smaller_if_squashing_is_the_first_step():
    squash, flip = {"type": "SquashResize", "size": [16, 24]}, {"type": "HorizontalFlip"}
    assert enough_pixels(build_pipeline([squash, flip])) == (16, 24)
    for other in ([], [flip, squash], [{**squash, "p": 0.5}], [{"type": "ResizeAndCrop", "size": 16}]):
        assert enough_pixels(build_pipeline(other)) is None


def test_squash_resize_takes_a_side_or_height_and_width():
    image = noise(30, 40)
    assert SquashResize(16)(image=image)["image"].shape == (16, 16, 3)
    assert SquashResize([16, 24])(image=image)["image"].shape == (16, 24, 3)


@pytest.mark.parametrize("factor", [0.2, 0.5, 0.51, 1.0])
def test_cutout_paints_the_rectangle_that_pillow_draws(factor):
    image = noise(21, 34)
    height, width = int(factor * 21 + 0.5) // 2, int(factor * 34 + 0.5) // 2
    for centre in ((0, 0), (20, 33), (10, 17), (3, 30), (20, 1)):
        picture = Image.fromarray(image)
        corners = [
            max(centre[1] - width, 0),
            max(centre[0] - height, 0),
            min(centre[1] + width, 34),
            min(centre[0] + height, 21),
        ]
        ImageDraw.Draw(picture).rectangle(corners, fill=(1, 2, 3))
        assert np.array_equal(cut_out(image, factor, centre, (1, 2, 3)), np.asarray(picture))


def test_cutout_draws_centres_and_colours_over_their_whole_range():
    image = np.zeros((4, 6, 3), np.uint8)
    transform = Cutout(factor=0.1)  # one pixel
    set_draws(transform, 0)
    centres, colours = set(), []
    for _ in range(2000):
        painted = transform(image=image)["image"]
        rows, columns = painted.any(axis=2).nonzero()
        centres.update(zip(rows.tolist(), columns.tolist(), strict=True))
        colours.extend(painted[rows, columns].reshape(-1).tolist())
    assert len(centres) == 24
    assert set(colours) == set(range(256))
    assert abs(np.mean(colours) - 127.5) < 5


def test_rand_augment_keeps_shape_and_type_and_is_decided_by_its_generator():
    image = noise(24, 31)
    transform = RandAugment()
    first = []
    for seed in range(60):
        set_draws(transform, seed)
        first.append(transform(image=image)["image"])
    assert {(result.shape, result.dtype.name) for result in first} == {((24, 31, 3), "uint8")}
    assert len({result.tobytes() for result in first}) > 30
    for seed in reversed(range(60)):
        set_draws(transform, seed)
        assert np.array_equal(transform(image=image)["image"], first[seed])


def test_published_pipeline_gives_a_square_uint8_image():
    pipeline = build_pipeline([{"type": "SquashResize", "size": 32}, {"type": "Cutout"}, {"type": "RandAugment"}])
    result = pipeline(image=noise(40, 50))["image"]
    assert (result.shape, result.dtype) == ((32, 32, 3), np.uint8)


def test_pipeline_finds_albumentations_by_name():
    image = noise(8, 9)
    entries = [ConfigDict(type="HorizontalFlip", p=1.0), {"type": "RandomRotate90", "p": 0.0}]
    assert np.array_equal(build_pipeline(entries)(image=image)["image"], image[:, ::-1])
    assert "type" in entries[0]


def test_pipeline_builds_choices_of_transforms():
    entry = {
        "type": "OneOf",
        "p": 1.0,
        "transforms": [{"type": "HorizontalFlip", "p": 1}, {"type": "VerticalFlip", "p": 1}],
    }
    pipeline = build_pipeline([entry])
    image = noise(8, 9)
    seen = set()
    for seed in range(20):
        set_draws(pipeline, seed)
        seen.add(pipeline(image=image)["image"].tobytes())
    assert seen == {image[:, ::-1].tobytes(), image[::-1].tobytes()}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"type": "Sqaush"}, ["'Sqaush'", "SquashResize", "Albumentations"]),
        ({"type": "Mapping"}, ["'Mapping'"]),
        ({"size": 3}, ["type='NAME'"]),
        ("SquashResize", ["type='NAME'"]),
        ({"type": "SquashResize"}, ["SquashResize", "size"]),
        ({"type": "SquashResize", "size": 0}, ["SquashResize", "size is 0"]),
        ({"type": "SquashResize", "size": [3, 4, 5]}, ["SquashResize", "[3, 4, 5]"]),
        ({"type": "Cutout", "factor": 1.5}, ["Cutout", "1.5"]),
        ({"type": "RandAugment", "magnitude": 9}, ["RandAugment", "magnitude"]),
        ({"type": "HorizontalFlip", "probability": 0.5}, ["HorizontalFlip", "probability"]),
        ({"type": "HorizontalFlip", "p": 2}, ["HorizontalFlip", "p"]),
        ({"type": "RandomRotate90", "angle": 0.5}, ["RandomRotate90", "angle"]),
        ({"type": "Resize", "height": "tall", "width": 3}, ["Resize", "height"]),
        ({"type": "OneOf"}, ["OneOf"]),
        ({"type": "OneOf", "transforms": [{"type": "Flop"}]}, ["'Flop'"]),
    ],
)
def test_wrong_entry_of_a_pipeline_is_a_user_error_of_one_line(entry, words):
    with pytest.raises(UserError) as caught:
        build_pipeline([entry])
    message = str(caught.value)
    assert "\n" not in message
    assert "pipeline" in message
    for word in words:
        assert word in message


def test_pipelines_do_not_reach_into_the_transforms_of_other_packages():
    from mmengine.registry import TRANSFORMS

    TRANSFORMS.register_module("ForeignResize", module=type("ForeignResize", (), {}))
    try:
        with pytest.raises(UserError, match="ForeignResize"):
            build_pipeline([{"type": "ForeignResize"}])
    finally:
        del TRANSFORMS.module_dict["ForeignResize"]


def test_import_asks_the_network_for_nothing():
    code = (
        "import os, urllib.request\n"
        "os.environ.pop('NO_ALBUMENTATIONS_UPDATE', None)\n"
        "class Refused(BaseException): pass\n"
        "def refuse(*args, **kwargs): raise Refused\n"
        "urllib.request.OpenerDirector.open = refuse\n"
        "import tresnet_downstream.classification.transforms\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
