"""Unreadable images end a training with an error, or are skipped, counted and named."""

import csv
import json

import pytest
from running.small_data import refused

pytest.importorskip("mmdet", reason="needs the detection set-up")

from detection.small_boxes import CONFIG, call, changed_boxes, flags, train
from mmdet.utils import register_all_modules

from tresnet_downstream.detection.datasets import CocoBoxes
from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation import read_run

LOADING = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations", "with_bbox": True}, {"type": "PackDetInputs"}]
NO_NOTE = {"param_scheduler__1__end": 2}


@pytest.fixture
def spoilt(boxes, tmp_path):
    """The data with a truncated and a missing picture for training, and an empty one for validation."""
    data = changed_boxes(boxes, tmp_path / "data", lambda content: None)
    pictures = data / "pictures"
    (pictures / "train_03.png").write_bytes((pictures / "train_03.png").read_bytes()[:-300])
    (pictures / "train_04.png").unlink()
    (pictures / "val_02.png").write_bytes(b"")
    return data


def names_in(path):
    with path.open(newline="") as file:
        return {row["image"] for row in csv.DictReader(file)}


def dataset(data, split="train", **options):
    register_all_modules()
    given = {"data_prefix": {"img": str(data / "pictures")}, "pipeline": LOADING, **options}
    return CocoBoxes(ann_file=str(data / f"{split}.json"), test_mode=split != "train", **given)


def test_training_replaces_an_unreadable_image_by_the_next_readable_one(spoilt):
    data = dataset(spoilt, on_bad_image="skip")
    sample = data[2]["data_samples"]
    assert sample.img_path.endswith("train_05.png")
    assert list(json.loads(sample.metainfo["passed_over"])) == ["train_03.png", "train_04.png"]
    assert "passed_over" not in data[4]["data_samples"].metainfo


def test_a_picture_to_score_is_black_and_marked(spoilt):
    sample = dataset(spoilt, "val", on_bad_image="leave_out")[1]
    assert not sample["inputs"].any()
    assert sample["inputs"].shape == (3, 64, 64)
    assert "val_02.png: unreadable image" in json.loads(sample["data_samples"].metainfo["unreadable"])["val_02.png"]


def test_without_the_option_a_picture_is_an_error_that_names_the_option(spoilt):
    with pytest.raises(UserError, match=r"1 of 12 images are not in .*'train_04\.png'; set on_bad_image=skip"):
        len(dataset(spoilt))
    (spoilt / "pictures/train_04.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"train_04\.png: unreadable image: .*set on_bad_image=skip to skip"):
        dataset(spoilt)[3]


def test_a_picture_of_a_wrong_size_is_skipped_too(boxes, tmp_path):
    data = changed_boxes(boxes, tmp_path / "data", lambda content: content["images"][2].update(width=80))
    assert dataset(data, on_bad_image="skip")[2]["data_samples"].img_path.endswith("train_04.png")


def test_skipped_images_are_counted_if_images_are_mixed(spoilt, capsys):
    from mmdet.datasets import MultiImageMixDataset

    mixed = MultiImageMixDataset(dataset(spoilt, on_bad_image="skip", pipeline=LOADING[:2]), [LOADING[2]])
    mixed[2]
    told = "".join(capsys.readouterr())
    assert "train_03.png: unreadable image" in told
    assert told.count("unreadable image") == 2


def test_a_training_counts_and_names_skipped_images_and_scores_the_others(spoilt, tmp_path):
    out = train(spoilt, tmp_path / "work", train_cfg__max_epochs=1, on_bad_image="skip")
    assert "warning: 1 of 6 images cannot be read and are not scored" in out
    assert "train: 2 images cannot be read" in out
    assert names_in(tmp_path / "work/left_out_train.csv") == {"train_03.png", "train_04.png"}
    assert names_in(tmp_path / "work/left_out_val.csv") == {"val_02.png"}


@pytest.mark.slow
def test_scores_are_those_of_the_pictures_that_can_be_read(boxes, spoilt, trained_detector, tmp_path):
    checkpoint = trained_detector[0] / "epoch_2.pth"

    def scored(data, name, **options):
        folder = tmp_path / name
        arguments = [CONFIG, checkpoint, "--work-dir", folder, *flags(data, **options)]
        status, out, err = call("test_detection", arguments)
        assert status == 0, err
        return json.loads((folder / "scores.json").read_text())["bbox"]["headline"], out

    def without(content):
        number = next(image["id"] for image in content["images"] if image["file_name"] == "val_02.png")
        content["images"] = [image for image in content["images"] if image["id"] != number]
        content["annotations"] = [one for one in content["annotations"] if one["image_id"] != number]

    expected, _ = scored(changed_boxes(boxes, tmp_path / "few", without, "val"), "expected")
    scores, out = scored(spoilt, "skipped", on_bad_image="skip")
    assert scores == expected
    assert "1 of 6 images cannot be read and are not scored" in out
    assert f"wrote {tmp_path / 'skipped' / 'left_out.csv'}" in out
    assert names_in(tmp_path / "skipped/left_out.csv") == {"val_02.png"}
    run = read_run(tmp_path / "skipped")
    assert run.about["images"] == {"listed": 6, "scored": 5, "unreadable, left out": 1}
    assert len(run.image_ids) == 5


def test_a_data_set_without_readable_images_is_an_error(boxes, tmp_path):
    for split, words in (("train", "none of the 12 images can be read"), ("val", "none of the 6 images to score")):
        data = changed_boxes(boxes, tmp_path / split, lambda content: None)
        for path in (data / "pictures").glob(f"{split}*"):
            path.write_bytes(b"no image")
        options = flags(data, train_cfg__max_epochs=1, on_bad_image="skip", **NO_NOTE)
        status, _, err = call("train_detection", [CONFIG, "--work-dir", tmp_path / f"work_{split}", *options])
        assert status == 2
        assert err.startswith("error: ")
        assert words in err


def test_an_unknown_value_is_refused(boxes, tmp_path):
    options = flags(boxes, on_bad_image="ignore", **NO_NOTE)
    refused("train_detection", [CONFIG, "--work-dir", tmp_path, *options], "on_bad_image='ignore': choose")
