"""The transforms of single-label recipes: random crops, timm's automatic augmentation, bicubic scaling."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import center_crop, resize

from tresnet_downstream.classification.datasets import augment
from tresnet_downstream.classification.timm_transforms import posterize
from tresnet_downstream.classification.transforms import build_pipeline
from tresnet_downstream.errors import UserError
from tresnet_downstream.prediction.resizing import resize_and_crop


@pytest.fixture(scope="module")
def picture():
    draw = np.random.default_rng(0)
    small = Image.fromarray(draw.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    return np.asarray(small.resize((160, 120), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_scaling_and_the_centre_are_torchvisions_on_pillows_images_to_one_level(picture, name):
    expected = center_crop(resize(Image.fromarray(picture), 73, InterpolationMode(name)), 64)
    ours = resize_and_crop(picture, 64, 0.875, name)
    assert abs(ours.astype(int) - np.asarray(expected).astype(int)).max() <= 1


def test_random_crops_have_the_areas_and_proportions_asked_for(picture):
    pipeline = build_pipeline([{"type": "RandomCropAndResize", "size": 32, "scale": (0.2, 0.5)}])
    (crop,) = pipeline.transforms
    areas, ratios = [], []
    for number in range(300):
        crop.set_random_state(np.random.default_rng(number), random.Random(number))
        top, left, height, width = crop.get_params_dependent_on_data({"shape": picture.shape}, {})["part"]
        assert 0 <= top <= 120 - height
        assert 0 <= left <= 160 - width
        areas.append(height * width / (120 * 160))
        ratios.append(width / height)
    assert min(areas) > 0.19
    assert max(areas) < 0.51
    assert np.mean(areas) == pytest.approx(0.35, abs=0.02)
    assert min(ratios) > 0.7
    assert max(ratios) < 1.4
    assert augment(pipeline, picture, 0, 0, 0).shape == (32, 32, 3)


def test_a_crop_that_fits_nowhere_is_the_centre_in_the_nearest_proportions():
    thin = np.zeros((10, 400, 3), np.uint8)
    (crop,) = build_pipeline([{"type": "RandomCropAndResize", "size": 8, "scale": (1.0, 1.0)}]).transforms
    crop.set_random_state(np.random.default_rng(0), random.Random(0))
    assert crop.get_params_dependent_on_data({"shape": thin.shape}, {})["part"] == (0, 193, 10, 13)


@pytest.mark.parametrize("config", ["rand-m9-mstd0.5-inc1", "augmix-m3-w2", "original-mstd0.5"])
def test_timms_augmentation_draws_by_sample_and_leaves_the_global_generators_alone(picture, config):
    timm_augment = pytest.importorskip("timm.data.auto_augment", reason="needs the extra timm")
    pipeline = build_pipeline([{"type": "TimmAutoAugment", "config": config, "size": 120}])
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    pictures = [augment(pipeline, picture, 0, epoch, index) for epoch in range(2) for index in range(3)]
    assert before == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    assert len({each.tobytes() for each in pictures}) > 3
    assert np.array_equal(augment(pipeline, picture, 0, 1, 1), pictures[4])

    # The same picture as timm's own transform gives with that seed.
    (ours,) = pipeline.transforms
    kinds = {"rand": "rand_augment_transform", "augmix": "augment_and_mix_transform"}
    make = getattr(timm_augment, kinds.get(config.split("-")[0], "auto_augment_transform"))
    theirs = make(config, {"translate_const": 54, "img_mean": (0, 0, 0)})
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    expected = np.asarray(theirs(Image.fromarray(picture)))
    assert np.array_equal(ours.apply(picture, 5), expected)


@pytest.mark.parametrize("config", ["rand-m9-mstd0.5-inc1", "rand-m10-inc1", "augmix-m10-w2", "original-mstd0.5"])
def test_timms_augmentation_gives_an_image_for_every_draw(picture, config):
    pytest.importorskip("timm.data.auto_augment", reason="needs the extra timm")
    (ours,) = build_pipeline([{"type": "TimmAutoAugment", "config": config}]).transforms
    small = picture[:8, :8]
    # "rand-m9-mstd0.5-inc1" draws a posterisation to 0 bits once in some 660 pictures.
    assert {ours.apply(small, seed).shape for seed in range(1500)} == {small.shape}


@pytest.mark.parametrize("bits", range(9))
def test_posterising_keeps_the_highest_bits_and_none_is_black(picture, bits):
    expected = picture & (256 - 2 ** (8 - bits))
    assert np.array_equal(np.asarray(posterize(Image.fromarray(picture), bits, fillcolor=(0, 0, 0))), expected)


@pytest.mark.parametrize(
    "entry",
    [
        {"type": "TimmAutoAugment", "config": "random-m9"},
        {"type": "TimmAutoAugment", "config": "rand-z9"},
        {"type": "RandomCropAndResize", "size": 0},
        {"type": "RandomCropAndResize", "size": 8, "scale": (0.5, 0.2)},
        {"type": "RandomCropAndResize", "size": 8, "ratio": (0, 1)},
        {"type": "ResizeAndCrop", "size": 8, "interpolation": "nearest"},
    ],
)
def test_wrong_arguments_are_reported(entry):
    with pytest.raises(UserError, match=entry["type"]):
        build_pipeline([entry])


def test_images_stay_tensors_that_can_be_written(picture):
    pipeline = build_pipeline([{"type": "TimmAutoAugment", "config": "rand-m9", "p": 1.0}])
    assert torch.from_numpy(augment(pipeline, picture, 0, 0, 0)).dtype == torch.uint8
