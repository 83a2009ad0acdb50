"""Detectors see images of rare classes more often: MMDetection's repeated data set with our data set and runner."""

import json
import math
import signal
from collections import Counter

import pytest
import torch

pytest.importorskip("mmdet", reason="needs the detection set-up")

from detection.small_boxes import CONFIG, call, changed_boxes, flags, make_boxes, train
from detection.test_steps import config_with, run
from running.test_mid_epoch import INTERRUPTING
from running.test_resume import leaves

from tresnet_downstream.detection.runner import DetectionRunner
from tresnet_downstream.errors import UserError
from tresnet_downstream.running.config import load_config
from tresnet_downstream.running.signals import TrainingStopped

THRESHOLD = 0.5


@pytest.fixture(scope="module")
def rare(tmp_path_factory):
    """Data of 12 images of which two show a disc."""
    folder = tmp_path_factory.mktemp("rare")

    def few_discs(content):
        discs = [one for one in content["annotations"] if one["category_id"] == 7]
        keep = {one["image_id"] for one in discs[:2]}
        for one in content["annotations"]:
            if one["category_id"] == 7 and one["image_id"] not in keep:
                one["category_id"] = 40

    return changed_boxes(make_boxes(folder / "made"), folder / "data", few_discs)


def images_of_discs(data):
    content = json.loads((data / "train.json").read_text())
    return {one["image_id"] for one in content["annotations"] if one["category_id"] == 7}


def runner_of(data, folder, **changes):
    config = load_config(CONFIG, flags(data, sampling="repeat_factor", **changes)[1:])
    config.work_dir = str(folder)
    return DetectionRunner.from_cfg(config)


def test_images_of_rare_classes_are_repeated_by_lvis_factor_rounded_up(rare, tmp_path):
    dataset = runner_of(rare, tmp_path, repeat_threshold=THRESHOLD).train_dataloader.dataset
    discs = images_of_discs(rare)
    assert len(discs) == 2
    seen = Counter(dataset.get_data_info(place)["img_id"] for place in range(len(dataset)))
    factor = math.sqrt(THRESHOLD / (2 / 12))
    assert {seen[image] for image in discs} == {math.ceil(factor)} == {2}
    assert {count for image, count in seen.items() if image not in discs} == {1}
    assert type(dataset.dataset).__name__ == "CocoBoxes"


@pytest.mark.slow
def test_a_detector_with_repeated_images_that_is_stopped_within_an_epoch_continues_bit_for_bit(rare, tmp_path):
    keys = {"sampling": "repeat_factor", "repeat_threshold": THRESHOLD}
    exec(compile(INTERRUPTING, "interrupting", "exec"), {"__name__": "interrupting"})
    hook = f"dict(type='mmengine.Interrupting', number={int(signal.SIGTERM)}, batch=5, place='step')"
    changes = {"val_steps": "None", "train_cfg__max_epochs": 2, **keys}
    printed = run(config_with(tmp_path), rare, tmp_path / "whole", **changes)
    told = "sampling: repeat_factor with repeat_threshold 0.5: 14 draws of 12 images in an epoch, each image up to 2"
    assert told in printed
    with pytest.raises(TrainingStopped):
        run(config_with(tmp_path, hook), rare, tmp_path / "run", **changes)
    assert [path.name for path in (tmp_path / "run").glob("epoch_*_step_*")] == ["epoch_2_step_6.pth"]
    run(config_with(tmp_path), rare, tmp_path / "run", "--resume", **changes)
    for part in ("state_dict", "optimizer", "param_schedulers"):
        one, other = (
            leaves(torch.load(tmp_path / name / "epoch_2.pth", weights_only=True)[part]) for name in ("whole", "run")
        )
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name], name


@pytest.mark.slow
def test_the_config_that_a_training_leaves_repeats_once(rare, tmp_path):
    train(rare, tmp_path / "run", sampling="repeat_factor", repeat_threshold=THRESHOLD, train_cfg__max_epochs=1)
    saved = tmp_path / "run" / "digits_retinanet_tresnet.py"
    status, out, err = call("train_detection", [saved, "--work-dir", tmp_path / "again"])
    assert status == 0, err
    assert "14 draws of 12 images" in out
    one, other = (torch.load(tmp_path / name / "epoch_1.pth", weights_only=True) for name in ("run", "again"))
    assert all(torch.equal(value, other["state_dict"][name]) for name, value in one["state_dict"].items())


def test_data_that_mixes_images_repeats_those_within(rare, tmp_path):
    config = load_config(CONFIG, flags(rare, sampling="repeat_factor", repeat_threshold=THRESHOLD)[1:])
    config.work_dir = str(tmp_path)
    inner = config.train_dataloader.dataset
    steps = [step for step in inner.pipeline if step["type"] not in ("LoadImageFromFile", "LoadAnnotations")]
    inner.pipeline = [step for step in inner.pipeline if step not in steps]
    config.train_dataloader.dataset = {"type": "MultiImageMixDataset", "dataset": inner, "pipeline": steps}
    runner = DetectionRunner.from_cfg(config)
    mixing = runner.train_dataloader.dataset
    assert type(mixing).__name__ == "MultiImageMixDataset"
    assert len(mixing) == len(mixing.dataset) == 14


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampling": "class_balanced"}, "sampling='class_balanced': detectors take 'repeat_factor' or None"),
        ({"sampling": "repeat_factor", "repeat_threshold": 0}, "repeat_threshold=0: give a share"),
        ({"sampling": "repeat_factor", "repeat_threshold": None}, "repeat_threshold=None: give a share"),
    ],
)
def test_wrong_values_are_refused(rare, tmp_path, changes, message):
    config = load_config(CONFIG, flags(rare, **changes)[1:])
    config.work_dir = str(tmp_path)
    with pytest.raises(UserError, match=message):
        DetectionRunner.from_cfg(config)
