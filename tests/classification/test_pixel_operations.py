import numpy as np
import pytest
from PIL import Image, ImageOps

from tresnet_downstream.classification import pixel_operations
from tresnet_downstream.classification.rand_augment import OPERATIONS


@pytest.mark.parametrize("magnitude", range(10))
@pytest.mark.parametrize("sign", [1, -1])
def test_images_blend_as_pillows_for_every_pair_of_values(magnitude, sign):
    factor = 1 + OPERATIONS["Color"].strengths[magnitude] * sign
    low, high = (np.repeat(values[..., None], 3, 2) for values in np.mgrid[:256, :256].astype(np.uint8))
    expected = np.asarray(Image.blend(Image.fromarray(low), Image.fromarray(high), factor))
    assert np.array_equal(pixel_operations._blend_images(low, high, factor), expected)


def test_the_weighted_sum_is_taken_only_where_it_gives_the_same():
    factors = [1 + strength * sign for strength in OPERATIONS["Color"].strengths for sign in (1, -1)]
    alike = [pixel_operations._has_equal_weighted_sums(factor) for factor in factors]
    assert any(alike)
    assert not all(alike)  # 1.2 is such a factor: pairs of values whose blend is a hair below a whole number


@pytest.mark.parametrize("scale", [1, 0.5, 0])
def test_contrast_is_stretched_as_pillow_does_whatever_the_range(scale):
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    image[0, 0], image[0, 1] = 0, 255
    image[..., 1] = 9 + scale * image[..., 1] * 0.9
    expected = np.asarray(ImageOps.autocontrast(Image.fromarray(image)))
    stretched = pixel_operations.auto_contrast(image)
    assert np.array_equal(stretched, expected)
    again = pixel_operations.auto_contrast(np.repeat(image[..., :1], 3, 2))
    assert np.array_equal(again, np.repeat(image[..., :1], 3, 2))
    assert not np.shares_memory(pixel_operations.auto_contrast(expected), expected)


@pytest.mark.parametrize("shape", [(448, 448), (37, 51), (1, 1), (33, 2), (2, 1001)])
def test_luma_is_rounded_half_up_as_pillow_does(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    image[0, 0] = 255
    expected = np.asarray(Image.fromarray(image).convert("L"))
    assert np.array_equal(pixel_operations.luma(image), expected)
    red, green, blue = np.moveaxis(image.astype(np.int64), 2, 0)
    assert np.array_equal(expected, (19595 * red + 38470 * green + 7471 * blue + (1 << 15)) >> 16)


def test_luma_of_values_that_lie_halfway_is_rounded_up():
    colours = np.stack(np.meshgrid(*[np.arange(256)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    halfway = colours[(colours @ [19595, 38470, 7471]) % 65536 == 32768].astype(np.uint8)
    assert len(halfway) > 100
    expected = np.asarray(Image.fromarray(halfway[None]).convert("L"))
    assert np.array_equal(pixel_operations.luma(halfway[None]), expected)
