"""Images for exported detectors have the pixels of MMDetection's pipelines."""

import numpy as np
import pytest

pytest.importorskip("mmdet", reason="needs the detection set-up")

from deployment.small_detectors import pictures
from mmdet.datasets import transforms  # noqa: F401 - registers MMDetection's components
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope

from tresnet_downstream.errors import UserError
from tresnet_downstream.exported.letterbox import Letterbox

LANDSCAPE = {"type": "Resize", "scale": (128, 96), "keep_ratio": True}
SQUARE = {"type": "Resize", "scale": (96, 96), "keep_ratio": True}
GREY = {"type": "Pad", "size": (96, 96), "pad_val": {"img": (114, 113, 112)}}
PACKED = {"type": "PackDetInputs", "meta_keys": ("img_shape", "scale_factor")}


@pytest.mark.parametrize(
    "steps",
    [
        [SQUARE],
        [{**SQUARE, "keep_ratio": False}],
        [{"type": "mmdet.Resize", "scale": (128, 64)}],
        [SQUARE, GREY],
        [{**SQUARE, "scale": (90, 90)}, {"type": "Pad", "size_divisor": 16, "pad_val": 7}],
    ],
)
def test_pixels_sizes_and_factors_are_those_of_mmdetection(steps):
    init_default_scope("mmdet")
    prepare = Compose([{"type": "mmdet.LoadImageFromNDArray"}, *steps, PACKED])
    letterbox = Letterbox.of_pipeline([{"type": "LoadImageFromFile"}, *steps, PACKED], 32)
    assert Letterbox.of_description(letterbox.description()) == letterbox
    for picture in pictures(5):
        wanted = prepare({"img": np.ascontiguousarray(picture[:, :, ::-1])})
        found = letterbox(picture)
        image = wanted["inputs"].numpy()[::-1].transpose(1, 2, 0)
        height, width = image.shape[:2]
        assert found["images"].shape[:2] == (letterbox.height, letterbox.width)
        assert letterbox.height % 32 == letterbox.width % 32 == 0
        assert np.array_equal(found["images"][:height, :width], image)
        assert not found["images"][height:].any()
        assert not found["images"][:, width:].any()
        assert tuple(found["sizes"]) == wanted["data_samples"].img_shape == (height, width)
        assert found["scale_factors"] == pytest.approx(wanted["data_samples"].scale_factor, rel=1e-6)


def test_landscape_images_are_resized_as_mmdetection_does_and_portraits_fit():
    letterbox = Letterbox.of_pipeline([LANDSCAPE], 32)
    assert (letterbox.height, letterbox.width) == (96, 128)
    assert tuple(letterbox(np.zeros((60, 128, 3), np.uint8))["sizes"]) == (60, 128)
    assert tuple(letterbox(np.zeros((128, 96, 3), np.uint8))["sizes"]) == (96, 72)


def test_a_size_makes_the_image_square():
    letterbox = Letterbox.of_pipeline([LANDSCAPE, {"type": "Pad", "size": (128, 96)}], 32, 64)
    assert (letterbox.height, letterbox.width, letterbox.fit_height, letterbox.fit_width) == (64, 64, 64, 64)


@pytest.mark.parametrize(
    ("steps", "size", "words"),
    [
        ([SQUARE], 100, "`input_size` 100: the detector takes multiples of 32; give 96 or 128"),
        ([SQUARE], 20, "give 32"),
        ([SQUARE], 0, "give 32"),
        ([], None, "has no step: an exported file supports Resize, or Resize and Pad"),
        ([{"type": "Normalize"}], None, "has Normalize"),
        ([SQUARE, {"type": "RandomFlip"}], None, "has Resize, RandomFlip"),
        ([{**SQUARE, "interpolation": "bicubic"}], None, "has Resize with interpolation='bicubic'"),
        ([{**SQUARE, "scale": None, "scale_factor": 2.0}], None, "has Resize with scale_factor=2.0"),
        ([SQUARE, {**GREY, "pad_to_square": True}], None, "has Pad with pad_to_square=True"),
        ([SQUARE, {**GREY, "size": (128, 96)}], None, "resizes to 96 x 96 and pads to 128 x 96"),
        ([{"type": "Resize", "scale": (0, 0)}], None, "give a width and a height"),
    ],
)
def test_what_an_exported_file_cannot_do_is_refused(steps, size, words):
    with pytest.raises(UserError) as error:
        Letterbox.of_pipeline(steps, 32, size)
    assert words in str(error.value)
