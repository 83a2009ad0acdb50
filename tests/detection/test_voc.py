"""PASCAL VOC's lists as training data of a detector, and scores by VOC's and COCO's rules."""

import json

import pytest

pytest.importorskip("mmdet", reason="needs the detection set-up")

from detection.small_boxes import CONFIG, NETWORK, call
from made_data import make_voc

from tresnet_downstream.detection.box_files import read_boxes
from tresnet_downstream.detection.metrics import DetectionMetric
from tresnet_downstream.errors import UserError


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    """A folder in VOC's layout; of its six objects, the last cat is marked as difficult."""
    root = tmp_path_factory.mktemp("voc")
    make_voc(root)
    path = root / "Annotations" / "000005.xml"
    path.write_text(path.read_text().replace("<bndbox>", "<difficult>1</difficult><bndbox>"))
    return root


def options(voc, **changes):
    merged = {
        **NETWORK,
        "model.bbox_head.num_classes": "2",
        "val_evaluator.ann_file": voc / "ImageSets/Main/val.txt",
        "voc_rules": "2007",
        "train_cfg.max_epochs": "1",
        **changes,
    }
    for split in ("train", "val"):
        place = f"{split}_dataloader.dataset"
        merged |= {
            f"{place}.data_root": f"{voc}/",
            f"{place}.ann_file": f"ImageSets/Main/{split}.txt",
            f"{place}.data_prefix.img": "JPEGImages/",
            f"{place}.metainfo.classes": "['dog','cat']",
        }
    return ["--cfg-options", *(f"{key}={value}" for key, value in merged.items())]


def test_difficult_objects_are_skipped_as_crowds_are(voc):
    file, dropped, _ = read_boxes(str(voc / "ImageSets/Main/train.txt"), classes=("dog",))
    assert file.classes == ("dog", "cat")
    assert [each["iscrowd"] for each in file.content["annotations"]] == [0, 0, 0, 0, 1, 0]
    assert not dropped


def test_detector_trains_on_vocs_lists_and_is_scored_by_both_rules(voc, tmp_path):
    status, out, err = call("train_detection", [CONFIG, "--work-dir", tmp_path, *options(voc)])
    assert status == 0, err
    assert "VOC 2007 metric: mAP " in out
    scalars = [json.loads(line) for path in tmp_path.rglob("scalars.json") for line in path.read_text().splitlines()]
    assert any("coco/voc_mAP" in each for each in scalars)


def test_class_of_which_the_list_has_no_object_is_known_to_the_metric(voc):
    metric = DetectionMetric(str(voc / "ImageSets/Main/val.txt"), voc_rules=2010)
    metric.dataset_meta = {"classes": ("emu", "dog", "cat")}
    metric._add_classes(metric.dataset_meta["classes"])
    assert metric._coco_api.get_cat_ids(cat_names=["emu", "cat"]) == [2, 0]
    assert metric.voc_rules == "2010"


def test_unknown_rules_are_refused(voc):
    with pytest.raises(UserError, match="voc_rules='2009': choose 2007 or 2010"):
        DetectionMetric(str(voc / "ImageSets/Main/val.txt"), voc_rules="2009")
