"""Two processes log the mean of their losses, and score a detector as one process does."""

import json
import re
import signal
from pathlib import Path

import pytest

pytest.importorskip("mmdet", reason="needs the detection set-up")

import torch
from detection.small_boxes import CONFIG, call, flags, make_boxes
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from running.test_interrupted_processes import LOSING
from running.test_resume import leaves, read
from running.torchrun import headline, on_processes, train_on_processes, work_as_one_of_several

from tresnet_downstream.evaluation import read_run


class Recording(Hook):
    """Notes the losses of this process."""

    def __init__(self, folder):
        self.losses, self.folder = [], folder

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(float(outputs["loss"]))

    def after_train(self, runner):
        (Path(self.folder) / f"losses_{get_rank()}.json").write_text(json.dumps(self.losses))


def train_and_score(folder):
    """Trains one epoch of three batches in each process, and scores what it gives."""
    HOOKS.register_module(module=Recording, force=True)
    config = folder / f"config_{get_rank()}.py"
    config.write_text(
        f"_base_ = [{CONFIG!r}]\ncustom_hooks = [dict(type='mmengine.Recording', folder={str(folder)!r})]\n"
        "default_hooks = dict(logger=dict(interval=1))\nlog_processor = dict(window_size=1)\n"
    )
    launcher = ["--launcher", "pytorch"]
    changes = {"train_dataloader__batch_size": "2", "train_cfg__max_epochs": "1"}
    arguments = [config, "--work-dir", folder / "run", *launcher, *flags(folder / "data", **changes)]
    status, _, err = call("train_detection", arguments)
    assert status == 0, err
    score(folder, folder / "together", *launcher)


def score(folder, work_dir, *launcher):
    arguments = [CONFIG, folder / "run/epoch_1.pth", "--work-dir", work_dir, *launcher]
    status, _, err = call("test_detection", [*arguments, *flags(folder / "data")])
    assert status == 0, err


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    make_boxes(folder / "data", num_train=12, num_val=7)  # one of them is scored twice, as padding
    ended = on_processes(2, __file__, folder)
    assert ended.status == 0, ended.err
    score(folder, folder / "alone")
    return folder


@pytest.mark.slow
def test_losses_in_the_log_are_means_over_the_processes(folder):
    first, second = (json.loads((folder / f"losses_{rank}.json").read_text()) for rank in range(2))
    assert len(first) == 3
    assert first != second
    (file,) = (folder / "run").rglob("scalars.json")
    logged = [row["loss"] for row in map(json.loads, file.read_text().splitlines()) if "loss" in row]
    assert logged == pytest.approx([(one + other) / 2 for one, other in zip(first, second, strict=True)], rel=1e-6)


@pytest.mark.slow
def test_scores_and_predictions_are_those_of_one_process(folder):
    alone, together = (read_run(folder / name) for name in ("alone", "together"))
    assert together.image_ids == alone.image_ids == list(range(1, 8))
    ours, expected = together.predictions["bbox"], alone.predictions["bbox"]
    assert len(ours) == len(expected) > 0
    for one, other in zip(ours, expected, strict=True):
        assert (one["image_id"], one["category_id"]) == (other["image_id"], other["category_id"])
        assert [*one["bbox"], one["score"]] == pytest.approx([*other["bbox"], other["score"]], rel=1e-4, abs=1e-4)
    scores = {name: headline(folder / name, "bbox") for name in ("alone", "together")}
    assert scores["together"] == pytest.approx(scores["alone"], rel=1e-6, nan_ok=True)


@pytest.mark.slow
def test_killed_process_ends_the_other_with_one_line_and_the_resumed_run_equals_the_uninterrupted_one(boxes, tmp_path):
    (tmp_path / "losing.py").write_text(LOSING)
    config = tmp_path / "config.py"
    hook = f"dict(type='mmengine.LosingSecond', number={int(signal.SIGKILL)}, batch=4, place='step')"
    config.write_text(f"_base_ = [{CONFIG!r}]\ncustom_hooks = [{hook}]\n")
    changes = flags(boxes, train_dataloader__batch_size="2")  # epochs of three batches

    ended = train_on_processes(2, CONFIG, tmp_path / "undisturbed", *changes, tool="train_detection")
    assert ended.status == 0, ended.err
    imported = ["--import", tmp_path / "losing.py"]
    ended = train_on_processes(2, config, tmp_path / "run", *imported, *changes, tool="train_detection")
    assert ended.status != 0
    assert re.fullmatch("error: another process of this training ended .*--resume continues from .*\n", ended.err)
    assert (tmp_path / "run/epoch_1.pth").exists()
    ended = train_on_processes(2, CONFIG, tmp_path / "run", "--resume", *changes, tool="train_detection")
    assert ended.status == 0, ended.err
    one, other = (leaves(read(tmp_path / name / "epoch_2.pth")["state_dict"]) for name in ("undisturbed", "run"))
    assert all(torch.equal(one[name], other[name]) for name in one)


if __name__ == "__main__":
    work_as_one_of_several(train_and_score)
