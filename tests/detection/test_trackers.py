"""A detector's training is one run at the tracker, with all scores, even if it was killed and resumed."""

import json

import pytest
from detection.small_boxes import CONFIG, flags, train
from running.fake_trackers import Killed, fake_mlflow, fake_wandb
from running.small_data import call

OPTIONS = {"tracker": "wandb,mlflow", "train_cfg__max_epochs": 2, "default_hooks__logger__interval": 2}


@pytest.mark.slow
def test_killed_and_resumed_detector_is_one_run_at_the_tracker(boxes, tmp_path, monkeypatch):
    wandb, mlflow = fake_wandb(monkeypatch), fake_mlflow(monkeypatch)
    train(boxes, tmp_path / "undisturbed", **OPTIONS)
    ((_, undisturbed),) = wandb.runs.items()
    wandb.runs.clear()
    mlflow.runs.clear()
    wandb.alive()
    wandb.dies_at, wandb.error = len(undisturbed["rows"]), Killed()  # the login and all records but the last two
    work_dir = tmp_path / "run"
    with pytest.raises(Killed):
        call("train_detection", [CONFIG, "--work-dir", work_dir, *flags(boxes, **OPTIONS)])
    wandb.alive()
    train(boxes, work_dir, "--resume", **OPTIONS)
    ((run_id, run),) = wandb.runs.items()
    assert run_id == (work_dir / "run_id").read_text().strip()
    rows, expected = ([(row["step"], row["epoch"]) for row in each["rows"].values()] for each in (run, undisturbed))
    assert rows == expected
    scores = [row["val/coco/bbox_mAP"] for row in run["rows"].values() if "val/coco/bbox_mAP" in row]
    assert len(scores) == 2
    assert run["summary"]["best/coco/bbox_mAP"] == max(scores)
    assert run["summary"]["checkpoint"].startswith("best_coco_bbox_mAP_epoch_")
    (stored,) = mlflow.runs.values()
    assert stored.tags["checkpoint_sha256"] == run["summary"]["checkpoint_sha256"]
    records = [json.loads(line) for line in (work_dir / "tracked.jsonl").read_text().splitlines()[1:]]
    assert len({(each["kind"], each["step"]) for each in records}) == len(records)


def test_detector_writes_for_tensorboard(trained_detector):
    assert list(trained_detector[0].glob("*/vis_data/events.*"))
