"""The changes that the runner of detectors makes to a config of MMDetection."""

import pytest

pytest.importorskip("mmdet", reason="needs the detection set-up")

from detection.small_boxes import CONFIG, flags
from mmengine.config import Config

from tresnet_downstream.detection import adjusted_config
from tresnet_downstream.detection.adjusted_config import (
    follow_options,
    prepare_pixels,
    set_classes,
    tell_of_schedule,
    use_checked_components,
)
from tresnet_downstream.detection.runner import DetectionRunner
from tresnet_downstream.running.config import load_config


def test_wrapped_data_sets_follow_and_other_metrics_stay(boxes, tmp_path):
    config = load_config(CONFIG, flags(boxes)[1:])
    config.work_dir = str(tmp_path)
    config.train_dataloader.dataset = {"type": "RepeatDataset", "times": 3, "dataset": config.train_dataloader.dataset}
    follow_options(config)
    config.test_evaluator = {"type": "VOCMetric"}
    config.model.roi_head = {"semantic_head": {"num_classes": 183}}
    use_checked_components(config)
    set_classes(config)
    inner = config.train_dataloader.dataset.dataset
    assert (inner.type, inner.data_root) == ("tresnet_downstream.CocoBoxes", f"{boxes}/")
    assert inner.metainfo["classes"] == ("disc", "square")
    assert config.val_evaluator.type == "tresnet_downstream.DetectionMetric"
    assert config.test_evaluator == {"type": "VOCMetric"}
    assert config.model.roi_head.semantic_head.num_classes == 183
    assert config.model.bbox_head.num_classes == 2


def test_data_root_reaches_data_and_scores(boxes, tmp_path):
    config = load_config(CONFIG, flags(boxes)[1:])
    config.work_dir = str(tmp_path)
    runner = DetectionRunner.from_cfg(config)
    assert runner.train_dataloader.dataset.ann_file == f"{boxes}/train.json"
    assert runner.test_dataloader.dataset.ann_file == f"{boxes}/val.json"
    assert runner.cfg.test_evaluator.ann_file == f"{boxes}/val.json"
    assert runner.model.bbox_head.num_classes == 2


@pytest.mark.parametrize(
    ("epochs", "words"),
    [
        (8, "ends at epoch 4, the training at 8: the learning rate stays constant after it"),
        (2, "ends at epoch 4, the training at 2: the schedule is not completed"),
        (4, ""),
    ],
)
def test_schedule_that_does_not_end_with_the_training_is_reported(monkeypatch, epochs, words):
    lines = []
    monkeypatch.setattr(adjusted_config, "tell", lines.append)
    tell_of_schedule(load_config(CONFIG, [f"train_cfg.max_epochs={epochs}"]))
    assert len(lines) == (1 if words else 0)
    assert words in "".join(lines)


IMAGENET = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}


def with_pixels(backbone="TResNet", **preprocessor):
    return Config({"model": {"backbone": {"type": backbone}, "data_preprocessor": preprocessor}})


@pytest.mark.parametrize(
    ("preprocessor", "words"),
    [
        (
            {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "pad_size_divisor": 32},
            ["RGB in [0, 1]"],
        ),
        ({"mean": [103.53, 116.28, 123.675], "std": [1.0, 1.0, 1.0]}, ["RGB in [0, 1]", "multiples of 32"]),
        ({"pad_size_divisor": 32}, ["RGB in [0, 1]"]),
        ({"mean": [0, 0, 0], "std": [255, 255, 255], "bgr_to_rgb": True, "pad_size_divisor": 1}, ["multiples of 32"]),
    ],
)
def test_pixels_and_sides_of_other_networks_become_those_of_a_tresnet_with_a_line(monkeypatch, preprocessor, words):
    lines = []
    monkeypatch.setattr(adjusted_config, "tell", lines.append)
    config = with_pixels(**preprocessor)
    prepare_pixels(config)
    assert config.model.data_preprocessor == {**adjusted_config.PIXELS, "pad_size_divisor": 32}
    (line,) = lines
    assert all(word in line for word in words)
    prepare_pixels(config)
    assert len(lines) == 1


def test_pixels_that_a_user_chose_and_those_of_another_backbone_stay(monkeypatch):
    monkeypatch.setattr(adjusted_config, "tell", lambda line: pytest.fail(line))
    own = {"mean": [10.0, 10.0, 10.0], "std": [50.0, 50.0, 50.0], "pad_size_divisor": 4}
    for config in (with_pixels(**own), with_pixels("ResNet", **IMAGENET)):
        before = config.model.data_preprocessor.to_dict()
        prepare_pixels(config)
        assert config.model.data_preprocessor == before


def test_heads_of_masks_have_as_many_things_and_weights_as_the_data_has_classes(boxes, tmp_path):
    config = load_config(CONFIG, flags(boxes)[1:])
    config.work_dir = str(tmp_path)
    config.model.panoptic_head = {
        "num_things_classes": 80,
        "num_stuff_classes": 1,
        "loss_cls": {"class_weight": [1.0] * 80 + [0.5, 0.1]},
    }
    follow_options(config)
    use_checked_components(config)
    set_classes(config)
    head = config.model.panoptic_head
    assert (head.num_things_classes, head.num_stuff_classes) == (2, 1)
    assert head.loss_cls.class_weight == [1.0, 1.0, 0.5, 0.1]
