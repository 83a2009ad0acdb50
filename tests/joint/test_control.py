"""Learning rates by part, frozen parts and the test split of joint models."""

import json

import pytest

pytest.importorskip("mmdet", reason="needs the detection set-up")

from detection.small_boxes import flags
from joint.small_joint import CONFIG, train
from running.recorded import STEPS, two_lines
from running.test_resume import read

from tresnet_downstream.joint.training import score_joint
from tresnet_downstream.running.config import load_config


@pytest.mark.slow
def test_parts_of_the_detector_within_and_of_the_head_of_labels_have_rates_and_spans_of_their_own(boxes, tmp_path):
    line = "lr_factors = dict(backbone=0.1, label_head=2.0); freeze = {'detector.backbone': 1}"
    STEPS.clear()
    out = train(boxes, tmp_path / "run", config=two_lines(tmp_path, line, CONFIG, True))
    assert "frozen: detector.backbone (epoch 1)" in out
    assert "trained from epoch 2: detector.backbone" in out
    for step in STEPS:
        rates = {name.split(".")[0] + "." + name.split(".")[1]: rate for name, rate in step["rates"].items()}
        neck = rates["detector.neck"]
        assert rates["detector.backbone"] == 0.1 * neck
        assert {rate for name, rate in step["rates"].items() if name.startswith("label_head.")} == {2.0 * neck}
    first, last = STEPS[0], STEPS[-1]
    assert not [name for name in first["trained"] if name.startswith("detector.backbone.")]
    assert [name for name in last["trained"] if name.startswith("detector.backbone.")]


def test_training_ends_early_by_the_score_of_labels_too(boxes, tmp_path):
    line = "patience = 1; min_delta = 200; default_hooks = dict(checkpoint=dict(save_best='mAP'))"
    out = train(boxes, tmp_path / "run", config=two_lines(tmp_path, line, CONFIG), train_cfg__max_epochs=4)
    (stop,) = [line for line in out.splitlines() if line.startswith("stopped at")]
    assert stop.startswith("stopped at epoch 2: no better mAP by more than 200 for 1 validation")


@pytest.mark.slow
def test_both_runs_say_which_split_was_scored(boxes, tmp_path):
    train(boxes, tmp_path / "run", train_cfg__max_epochs=1)
    content = json.loads((boxes / "val.json").read_text())
    kept = {image["id"] for image in content["images"][:4]}
    content["images"] = content["images"][:4]
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] in kept]
    (tmp_path / "test.json").write_text(json.dumps(content))
    own = [f"test_dataloader.dataset.ann_file={tmp_path / 'test.json'}"]
    own += ["test_dataloader.dataset.data_prefix.img=pictures/", "test_dataloader.dataset.metainfo=None"]
    own += ["test_dataloader.num_workers=0", "test_dataloader.persistent_workers=False"]
    for split, count in (("val", 6), ("test", 4)):
        config = load_config(CONFIG, [*flags(boxes)[1:], *own])
        config.work_dir = str(tmp_path / "scored")
        (_, of_labels), (_, of_boxes) = score_joint(config, tmp_path / "run/epoch_1.pth", split=split)
        assert (of_labels.about["split"], of_boxes.about["split"]) == (split, split)
        assert len(of_boxes.image_ids) == count
        assert len(of_labels.images) == count
    assert read(tmp_path / "run/epoch_1.pth")["meta"]["validated"]["validations"] == []
