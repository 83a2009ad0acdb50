"""Run folders of detectors: not overwritten, renamed on request, and resumed by the rules of all trainings."""

import shutil

import pytest
import torch

pytest.importorskip("mmdet", reason="needs the detection set-up")

from detection.small_boxes import CONFIG, call, flags, train
from detection.test_training import refused
from mmengine.config import Config

from tresnet_downstream.detection.runner import DetectionRunner
from tresnet_downstream.errors import UserError
from tresnet_downstream.running.config import load_config
from tresnet_downstream.running.folder_lock import locked


@pytest.fixture
def work_dir(trained_detector, tmp_path):
    return shutil.copytree(trained_detector[0], tmp_path / "run")


def read(path):
    return torch.load(path, weights_only=True)


def checkpoints(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.pth")}


def runner_config(boxes, work_dir, **changes):
    """As MMDetection's train.py builds it: the config, and no tool of ours."""
    config = load_config(CONFIG, flags(boxes)[1:])
    config.merge_from_dict({"work_dir": str(work_dir), "train_cfg.max_epochs": 1, **changes})
    return config


def test_second_training_is_refused_and_overwrite_moves_the_first_aside(boxes, work_dir):
    before = checkpoints(work_dir)
    refused([CONFIG, "--work-dir", work_dir, *flags(boxes)], str(work_dir), "--resume", "--overwrite", "--work-dir")
    assert checkpoints(work_dir) == before
    out = train(boxes, work_dir, "--overwrite", train_cfg__max_epochs=1)
    aside = work_dir.with_name("run_1")
    assert f"was renamed to {aside}" in out
    assert checkpoints(aside) == before
    run_id = (work_dir / "run_id").read_text().strip()
    assert {read(path)["meta"]["run_id"] for path in work_dir.glob("*.pth")} == {run_id}
    assert run_id != (aside / "run_id").read_text().strip()


@pytest.mark.slow
def test_mmdetections_own_tools_overwrite_nothing_either(boxes, work_dir):
    before = checkpoints(work_dir)
    with pytest.raises(UserError, match="holds a run already"):
        DetectionRunner.from_cfg(runner_config(boxes, work_dir)).train()
    assert checkpoints(work_dir) == before
    DetectionRunner.from_cfg(runner_config(boxes, work_dir, overwrite=True)).train()
    assert checkpoints(work_dir.with_name("run_1")) == before
    assert (work_dir / "epoch_1.pth").exists()
    saved = Config.fromfile(work_dir / "digits_retinanet_tresnet.py")
    assert saved.overwrite is False  # or else training from it would move runs aside unasked


@pytest.mark.slow
def test_moved_run_is_resumed_where_it_is_and_leaves_the_new_one_alone(boxes, work_dir):
    train(boxes, work_dir, "--overwrite", train_cfg__max_epochs=1)
    aside, before = work_dir.with_name("run_1"), checkpoints(work_dir)
    DetectionRunner.from_cfg(
        runner_config(boxes, aside, resume=True, **{"train_cfg.max_epochs": 3, "param_scheduler.1.end": 3})
    ).train()
    assert (aside / "epoch_3.pth").exists()
    assert checkpoints(work_dir) == before


@pytest.mark.slow
def test_changes_on_resume_are_reported_and_take_effect_or_refused(boxes, work_dir):
    resume = [CONFIG, "--work-dir", work_dir, "--resume"]
    refused([*resume, *flags(boxes, randomness__seed=1)], "seed was 0 and is now 1")
    scale = {"train_dataloader__dataset__pipeline__2__scale": "(64,64)"}
    refused([*resume, *flags(boxes, **scale)], "image_size")
    refused([*resume, *flags(boxes, model__bbox_head__loss_cls__gamma=1.0)], "model.bbox_head.loss_cls.gamma")
    changes = {"optim_wrapper__optimizer__lr": 1e-3, "optim_wrapper__optimizer__weight_decay": 0.05}
    out = train(boxes, work_dir, "--resume", train_cfg__max_epochs=3, **changes)
    told = [line for line in out.splitlines() if line.startswith("resumed with a change: ")]
    assert [line.split(": ")[1].split(" was")[0] for line in told] == [
        "optim_wrapper.optimizer.lr",
        "weight_decay",
        "max_epochs",
    ]
    (group,) = read(work_dir / "epoch_3.pth")["optimizer"]["param_groups"]
    assert group["weight_decay"] == 0.05
    assert group["initial_lr"] == 1e-3


def test_scoring_leaves_the_config_of_the_training(boxes, work_dir):
    saved = work_dir / "digits_retinanet_tresnet.py"
    before = saved.read_text()
    arguments = [CONFIG, work_dir / "epoch_2.pth", "--work-dir", work_dir, *flags(boxes, val_dataloader__batch_size=1)]
    assert call("test_detection", arguments)[0] == 0
    assert saved.read_text() == before


def test_saved_config_trains_again_and_takes_options(boxes, work_dir, tmp_path):
    config = work_dir / "digits_retinanet_tresnet.py"
    arguments = ["--work-dir", tmp_path / "again", "--cfg-options", "train_cfg.max_epochs=1"]
    status, out, err = call("train_detection", [config, *arguments])
    assert status == 0, err
    assert [line.split(":")[0] for line in out.splitlines() if line.startswith("epoch")] == ["epoch 1/1"]


def test_resume_without_a_checkpoint_and_a_file_as_folder_are_reported(boxes, tmp_path):
    out = train(boxes, tmp_path / "run", "--resume", train_cfg__max_epochs=1)
    assert "has no checkpoint, so the training starts from the beginning" in out
    (tmp_path / "file").write_text("mine")
    refused([CONFIG, "--work-dir", tmp_path / "file", *flags(boxes)], "--work-dir", "not a folder")


@pytest.mark.parametrize("changes", [{}, {"overwrite": True}, {"resume": True}])
def test_folder_of_a_running_training_is_refused_by_our_tool_and_by_mmdetections(boxes, work_dir, changes):
    before = checkpoints(work_dir)
    with locked(work_dir):
        given = [f"--{name}" for name in changes]
        refused([CONFIG, "--work-dir", work_dir, *given, *flags(boxes)], str(work_dir), "another training runs")
        with pytest.raises(UserError, match="another training runs"):
            DetectionRunner.from_cfg(runner_config(boxes, work_dir, **changes)).train()
    assert checkpoints(work_dir) == before
    assert not work_dir.with_name("run_1").exists()
