"""A detector's training deletes an old checkpoint only after the new one is complete."""

import json
import shutil

import pytest
import torch

pytest.importorskip("mmdet", reason="needs the detection set-up")

from detection.small_boxes import CONFIG, call, flags, train
from detection.test_training import refused

from tresnet_downstream.running import folders

SETTINGS = {"train_cfg__max_epochs": 2, "default_hooks__checkpoint__max_keep_ckpts": 1}


def arguments(boxes, work_dir, *more, **changes):
    return [CONFIG, "--work-dir", work_dir, *more, *flags(boxes, **{**SETTINGS, **changes})]


@pytest.fixture(scope="module")
def finished(boxes, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp("finished")
    status, _, err = call("train_detection", arguments(boxes, work_dir))
    assert status == 0, err
    return work_dir


@pytest.fixture
def work_dir(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def names(folder, pattern):
    return sorted(path.name for path in folder.glob(pattern))


def test_one_checkpoint_and_one_best_are_kept(finished):
    assert names(finished, "epoch_*") == ["epoch_2.pth"]
    assert len(names(finished, "best_*")) == 1
    assert folders.last_checkpoint(finished) == finished / "epoch_2.pth"


def test_failed_write_leaves_the_checkpoint_before(boxes, tmp_path, monkeypatch):
    save = torch.save

    def fail_in_epoch_2(content, file, *args, **kwargs):
        if isinstance(content, dict) and content.get("meta", {}).get("epoch") == 2:
            raise OSError(28, "No space left on device")
        save(content, file, *args, **kwargs)

    monkeypatch.setattr(torch, "save", fail_in_epoch_2)
    status, _, err = call("train_detection", arguments(boxes, tmp_path))
    assert (status, err.count("\n")) == (2, 1), err
    assert names(tmp_path, "epoch_*") == ["epoch_1.pth"]
    assert folders.last_checkpoint(tmp_path) == tmp_path / "epoch_1.pth"
    assert len(names(tmp_path, "best_*")) == 1


@pytest.mark.parametrize("max_epochs", [2, 3])
@pytest.mark.slow
def test_resumed_run_removes_the_checkpoints_that_a_killed_one_had_not_yet_removed(
    boxes, tmp_path, monkeypatch, max_epochs
):
    changes = {"train_cfg__max_epochs": max_epochs, "checkpoint_steps": 2}

    def killed(folder, name, keep=0):
        if name == "epoch_2.pth":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(folders, "remove_within_epochs", killed)
        assert call("train_detection", arguments(boxes, tmp_path, **changes))[0] == 130
    assert names(tmp_path, "epoch_*") == [
        *("epoch_1.pth", "epoch_1_step_2.pth"),
        *("epoch_2.pth", "epoch_2_step_4.pth", "epoch_2_step_6.pth"),
    ]
    status, _, err = call("train_detection", arguments(boxes, tmp_path, "--resume", **changes))
    assert status == 0, err
    assert names(tmp_path, "epoch_*") == [f"epoch_{max_epochs}.pth"]


@pytest.mark.slow
def test_damaged_best_checkpoint_is_set_aside_and_an_earlier_one_of_the_run_is_removed(boxes, work_dir):
    (best,) = work_dir.glob("best_*")
    earlier = work_dir / "best_coco_bbox_mAP_epoch_0.pth"
    shutil.copy(best, earlier)
    status, _, err = call("train_detection", arguments(boxes, work_dir, "--resume"))
    assert status == 0, err
    assert names(work_dir, "best_*") == [best.name]
    best.write_bytes(best.read_bytes()[:1000])
    status, out, err = call("train_detection", arguments(boxes, work_dir, "--resume"))
    assert status == 0, err
    assert f"{best.name}.damaged" in out
    assert len(names(work_dir, "best_*.pth")) == 1
    torch.load(next(work_dir.glob("best_*.pth")), weights_only=True)


def test_damaged_checkpoints_are_named_and_none_is_renamed_where_none_is_whole(boxes, work_dir):
    (work_dir / "epoch_2.pth").write_bytes(b"")
    refused(arguments(boxes, work_dir, "--resume"), "epoch_2.pth", "no whole checkpoint")
    assert (work_dir / "epoch_2.pth").is_file()


def test_best_checkpoint_that_a_note_names_is_one_that_a_training_writes(boxes, trained_detector, tmp_path):
    work_dir = shutil.copytree(trained_detector[0], tmp_path / "run")
    (work_dir / "mine.pth").write_bytes(b"of the user")
    note = json.loads((work_dir / "last_validation.json").read_text())
    (work_dir / "last_validation.json").write_text(json.dumps({**note, "best_ckpt": "/elsewhere/mine.pth"}))
    train(boxes, work_dir, "--resume", train_cfg__max_epochs=3)
    assert (work_dir / "mine.pth").read_bytes() == b"of the user"
    assert len(list(work_dir.glob("best_*.pth"))) >= 1
