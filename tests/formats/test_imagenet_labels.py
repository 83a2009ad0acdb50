"""The ground truth of ImageNet's validation images in a flat folder."""

import pytest

from tresnet_downstream.errors import UserError
from tresnet_downstream.formats.imagenet_labels import read_imagenet_labels

IMAGES = ["ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000002.JPEG"]


@pytest.mark.parametrize(
    "content",
    [
        "n01443537\nn01440764\n",
        "ILSVRC2012_val_00000002.JPEG 0\nILSVRC2012_val_00000001.JPEG 1\n",
        "ILSVRC2012_val_00000002,n01440764\nILSVRC2012_val_00000001,n01443537\n",
        "ImageId,PredictionString\nILSVRC2012_val_00000002,n01440764 1 2 3 4\n"
        "ILSVRC2012_val_00000001,n01443537 85 1 499 272 n01443537 131 0 499 254\n",
    ],
)
def test_every_form_gives_numbers_in_the_order_of_the_wordnet_numbers(tmp_path, content):
    pytest.importorskip("timm", reason="needs the extra timm")
    (tmp_path / "truth.txt").write_text(content)
    assert read_imagenet_labels(tmp_path / "truth.txt", IMAGES) == [1, 0]


def test_a_thousand_wordnet_numbers_need_no_timm(tmp_path):
    numbers = [f"n{3 * number:08}" for number in range(1000)]
    (tmp_path / "truth.txt").write_text("\n".join(reversed(numbers)))
    names = [f"{number:04}.JPEG" for number in range(1000)]
    assert read_imagenet_labels(tmp_path / "truth.txt", names) == list(reversed(range(1000)))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("n01443537\n", "has 1 labels for 2 images"),
        ("490\n361\n", "has the numbers of ImageNet's development kit"),
        ("a 1\nb 2\n", "has no label of 2 images"),
        (
            "a 1\nILSVRC2012_val_00000001 1\nILSVRC2012_val_00000001.JPEG 2\n",
            "'ILSVRC2012_val_00000001' is there twice",
        ),
        (
            "ImageId,PredictionString\nILSVRC2012_val_00000001,\nILSVRC2012_val_00000002,n01440764 1 2 3 4\n",
            "has no label of 1 images",
        ),
        (f"ImageId,PredictionString\n{'a' * 200_000},n01440764\n", "field larger than field limit"),
        ("ILSVRC2012_val_00000001 1\nILSVRC2012_val_00000002 1000\n", "has the number 1000"),
        ("tench\ngoldfish\n", "'tench', which is not a WordNet number"),
        ("n00000000\nn00000001\n", "not among ImageNet's"),
        ("a b c\n", "is not a ground truth"),
        ("", "is not a ground truth"),
    ],
)
def test_other_files_are_refused(tmp_path, content, words):
    pytest.importorskip("timm", reason="needs the extra timm")
    (tmp_path / "truth.txt").write_text(content)
    with pytest.raises(UserError, match=words):
        read_imagenet_labels(tmp_path / "truth.txt", IMAGES)
