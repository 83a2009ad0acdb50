"""Mistakes of users of detectors: one line before the training begins, or the correct result."""

import json

import pytest
from running.small_data import refused

pytest.importorskip("mmdet", reason="needs the detection set-up")

from detection.small_boxes import (
    CONFIG,
    as_corners,
    call,
    changed_boxes,
    flags,
    mask_rcnn_flags,
    train,
    write_mask_rcnn,
)

# Notes that are no part of the message.
NO_NOTE = {"param_scheduler__1__end": 2}


def everywhere(**values):
    """A change of all annotations."""

    def change(content):
        for annotation in content["annotations"]:
            annotation.update(values)

    return change


def as_fractions(content):
    for one in content["annotations"]:
        one["bbox"] = [side / 64 for side in one["bbox"]]


def without_masks(content):
    for one in content["annotations"][:5]:
        del one["segmentation"]


def empty(content):
    content["images"].clear()
    content["annotations"].clear()


DATA = {
    "corners": (as_corners, "train", ("fit as left, top, right, bottom", "trust_boxes=True", "tools/check_data.py")),
    "corners in validation": (as_corners, "val", ("val.json", "of 11 boxes reach beyond their image")),
    "fractions": (as_fractions, "train", ("between 0 and 1", "fractions")),
    "boxes of text": (everywhere(bbox=["1", "2", "9", "9"]), "train", ("annotation 1", "not four numbers")),
    "boxes without area": (everywhere(bbox=[5, 5, 0, 9]), "train", ("no boxes",)),
    "crowds alone": (everywhere(iscrowd=1), "train", ("all 17 boxes are crowds",)),
    "no validation image": (empty, "val", ("val.json: lists no image",)),
    "unlisted image": (lambda content: content["images"].pop(), "train", ("there is no image 12",)),
}


@pytest.mark.parametrize("mistake", DATA)
def test_a_mistake_in_the_data_is_reported_before_the_training_begins(boxes, tmp_path, mistake):
    change, split, words = DATA[mistake]
    data = changed_boxes(boxes, tmp_path / "data", change, split)
    refused("train_detection", [CONFIG, "--work-dir", tmp_path / "work", *flags(data, **NO_NOTE)], *words)


OPTIONS = {
    "neck": (
        {"model__neck__in_channels": "[256,512,1024,2048]"},
        ("model.neck.in_channels=[256, 512, 1024, 2048]", "the backbone returns [8, 16, 128, 256]"),
    ),
    "stages": (
        {"model__backbone__out_indices": "(1,2,3)"},
        ("lists 4 feature maps", "the backbone returns 3", "out_indices"),
    ),
    "head": ({"model__bbox_head__in_channels": 64}, ("model.bbox_head.in_channels=64", "the neck returns 16")),
    "maps": (
        {"model__neck__num_outs": 4},
        ("model.bbox_head.anchor_generator", "strides for 3 feature maps", "receives 4"),
    ),
    "folder": ({"train_dataloader__dataset__data_prefix__img": "nowhere/"}, ("none of the 12 images is in", "nowhere")),
    "classes": ({"train_dataloader__dataset__metainfo": "{'classes':'disc'}"}, ("metainfo.classes='disc'",)),
    "type": ({"model__bbox_head__type": "RetinaHed"}, ("type='RetinaHed'", "no model of that name")),
}


@pytest.mark.parametrize("mistake", OPTIONS)
def test_a_mistake_in_the_config_is_reported_before_the_training_begins(boxes, tmp_path, mistake):
    changes, words = OPTIONS[mistake]
    refused("train_detection", [CONFIG, "--work-dir", tmp_path / "work", *flags(boxes, **NO_NOTE, **changes)], *words)


def test_scoring_tells_of_parts_that_do_not_fit_too(boxes, trained_detector, tmp_path):
    arguments = [CONFIG, trained_detector[0] / "epoch_2.pth", "--work-dir", tmp_path]
    options = flags(boxes, model__neck__in_channels="[8,16,128,512]", **NO_NOTE)
    refused(
        "test_detection", [*arguments, *options], "model.neck.in_channels", "the backbone returns [8, 16, 128, 256]"
    )


def test_masks_that_the_file_lacks_are_counted(boxes, tmp_path):
    data = changed_boxes(boxes, tmp_path / "data", without_masks)
    arguments = [write_mask_rcnn(tmp_path), "--work-dir", tmp_path / "work"]
    words = ("train.json: 5 of 17 annotations have no `segmentation`, the first is annotation 1", "without masks")
    refused("train_detection", [*arguments, *mask_rcnn_flags(data, **NO_NOTE)], *words)


def test_masks_that_the_pipeline_does_not_load_are_reported(boxes, tmp_path):
    arguments = [write_mask_rcnn(tmp_path), "--work-dir", tmp_path / "work"]
    options = mask_rcnn_flags(boxes, train_dataloader__dataset__pipeline__1__with_mask=False, **NO_NOTE)
    refused("train_detection", [*arguments, *options], "train_dataloader.dataset.pipeline", "with_mask=True")


@pytest.mark.slow
def test_a_small_mask_rcnn_trains_and_scores_masks(boxes, tmp_path):
    arguments = [write_mask_rcnn(tmp_path), "--work-dir", tmp_path / "work", *mask_rcnn_flags(boxes)]
    status, out, err = call("train_detection", arguments)
    assert status == 0, err
    assert "AP of masks" in out


def test_boxes_beyond_the_edge_are_counted_and_trained_on(boxes, tmp_path):
    def change(content):
        content["annotations"][0]["bbox"] = [30, 30, 60, 60]
        content["annotations"][1]["bbox"] = [-9, 30, 20, 20]

    data = changed_boxes(boxes, tmp_path / "data", change)
    out = train(data, tmp_path / "work", train_cfg__max_epochs=1)
    told = "train.json: 2 of 17 boxes reach beyond the edge of their image, by up to 26 pixels; 1 of them would fit"
    assert told in out


def test_boxes_are_taken_as_they_are_if_they_are_trusted(boxes, tmp_path):
    data = changed_boxes(boxes, tmp_path / "data", as_corners)
    out = train(data, tmp_path / "work", train_cfg__max_epochs=1, trust_boxes=True)
    assert "13 of them would fit as left, top, right, bottom" in out


@pytest.mark.slow
def test_a_picture_of_another_size_than_the_file_says_is_refused_unless_boxes_are_trusted(boxes, tmp_path):
    data = changed_boxes(boxes, tmp_path / "data", lambda content: content["images"][2].update(width=80, height=70))
    arguments = [CONFIG, "--work-dir", tmp_path / "work", *flags(data, **NO_NOTE)]
    words = ("train_03.png: is 64 x 64, upright, but 80 x 70 in the annotation file", "trust_boxes=True")
    refused("train_detection", arguments, *words)
    train(data, tmp_path / "trusted", train_cfg__max_epochs=1, trust_boxes=True)


def test_validation_without_boxes_of_single_objects_is_reported(boxes, tmp_path):
    data = changed_boxes(boxes, tmp_path / "data", everywhere(iscrowd=1), "val")
    out = train(data, tmp_path / "work", train_cfg__max_epochs=1)
    assert "val.json: has no box of a single object (`iscrowd` 0), so nothing can be scored" in out
    assert "no val AP: nothing was scored" in out


def test_category_ids_from_0_and_with_gaps_give_the_same_labels(boxes, tmp_path):
    from tresnet_downstream.detection.datasets import CocoBoxes

    def from_0(content):
        new = {7: 0, 40: 1}
        for one in content["annotations"]:
            one["category_id"] = new[one["category_id"]]
        for one in content["categories"]:
            one["id"] = new[one["id"]]

    data = changed_boxes(boxes, tmp_path / "data", from_0)
    one, other = (
        CocoBoxes(ann_file=str(folder / "train.json"), data_prefix={"img": str(folder / "pictures")}, pipeline=[])
        for folder in (boxes, data)
    )
    assert one.metainfo == other.metainfo
    labels = [[[box["bbox_label"] for box in each[i]["instances"]] for i in range(len(each))] for each in (one, other)]
    assert labels[0] == labels[1]


def test_a_number_of_classes_that_has_no_effect_is_reported(boxes, tmp_path):
    out = train(boxes, tmp_path / "work", train_cfg__max_epochs=1, model__bbox_head__num_classes=80)
    assert "model.bbox_head.num_classes=80 has no effect: every head predicts the 2 classes" in out


def test_unused_images_may_be_missing(boxes, tmp_path):
    data = changed_boxes(
        boxes,
        tmp_path / "data",
        lambda content: content["images"].append({**content["images"][0], "id": 99, "file_name": "x.png"}),
    )
    assert "1 of 13 images left out" in train(data, tmp_path / "work", train_cfg__max_epochs=1)
    assert len(json.loads((data / "train.json").read_text())["images"]) == 13
