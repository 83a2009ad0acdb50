"""What the runner of detectors changes in a config of MMDetection."""

import pytest

pytest.importorskip("mmdet", reason="needs the detection set-up")

from detection.small_boxes import CONFIG, flags

from tresnet_downstream.detection import adjusted_config
from tresnet_downstream.detection.adjusted_config import (
    follow_options,
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
        (8, "ends at epoch 4, the training at 8: the learning rate stays at its last value"),
        (2, "ends at epoch 4, the training at 2: the learning rate falls less"),
        (4, ""),
    ],
)
def test_schedule_that_does_not_end_with_the_training_is_told(monkeypatch, epochs, words):
    lines = []
    monkeypatch.setattr(adjusted_config, "tell", lines.append)
    tell_of_schedule(load_config(CONFIG, [f"train_cfg.max_epochs={epochs}"]))
    assert len(lines) == (1 if words else 0)
    assert words in "".join(lines)
