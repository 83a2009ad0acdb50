"""Validation of detectors after a number of optimiser steps, with our tool and with MMDetection's runner."""

import json

import pytest
import torch

pytest.importorskip("mmdet", reason="needs the detection set-up")

from detection.small_boxes import CONFIG, call, flags
from detection.test_training import refused
from running.test_resume import leaves

# 3 batches of 4 pictures in an epoch; mosaics aside, a flip is what MMDetection draws at random.
STEPS = {"val_steps": 4, "train_cfg__max_epochs": 3, "default_hooks__checkpoint__max_keep_ckpts": 3}


def lines(out):
    return [line for line in out.splitlines() if line.startswith("step") and "val AP" in line]


def scores(line):
    return line.partition("val ")[2].split(", ")[:2]


def config_with(tmp_path, *hooks):
    """The small detector with flips, and further hooks."""
    text = (
        f"_base_ = [{str(CONFIG)!r}]\n"
        "train_pipeline = _base_.train_pipeline\n"
        "train_pipeline.insert(3, dict(type='RandomFlip', prob=0.5))\n"
        "train_dataloader = dict(dataset=dict(pipeline=train_pipeline))\n"
        f"custom_hooks = [{', '.join(hooks)}]\n"
    )
    path = tmp_path / "flipped.py"
    path.write_text(text)
    return path


def run(config, boxes, work_dir, *more, **changes):
    arguments = [config, "--work-dir", work_dir, *more, *flags(boxes, **{**STEPS, **changes})]
    status, out, err = call("train_detection", arguments)
    assert status == 0, err
    return out


@pytest.fixture(scope="module")
def undisturbed(boxes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("steps")
    return folder / "run", run(config_with(folder), boxes, folder / "run")


def test_lines_and_logs_name_steps_and_the_best_checkpoint_is_named_by_its_step(undisturbed):
    work_dir, out = undisturbed
    places = [line.partition(":")[0] for line in lines(out)]
    assert places == ["step 4/9 (epoch 2/3)", "step 8/9 (epoch 3/3)", "step 9/9 (epoch 3/3)"]
    (file,) = work_dir.rglob("scalars.json")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows = {row["step"]: row for row in rows if "coco/bbox_mAP" in row}
    assert {step: row["epoch"] for step, row in rows.items()} == {4: 2, 8: 3, 9: 3}
    best = max(rows, key=lambda step: (rows[step]["coco/bbox_mAP"], -step))
    assert [path.name for path in work_dir.glob("best_*")] == [f"best_coco_bbox_mAP_step_{best}.pth"]
    content = torch.load(next(work_dir.glob("best_*")), weights_only=True)
    assert content["meta"]["step"] == best
    for line, row in zip(lines(out), rows.values(), strict=True):
        assert f"loss {row['mean_loss']:.4g}, " in line
        assert f"AP {100 * row['coco/bbox_mAP']:.2f}" in line


def test_validation_by_steps_leaves_the_checkpoints_of_epochs_alone(undisturbed, boxes, tmp_path):
    """MMEngine's hook would write the weights of the best step over the checkpoint of the epoch before."""
    run(config_with(tmp_path), boxes, tmp_path / "run", val_steps="None")
    for epoch in (1, 2, 3):
        ours, theirs = (
            torch.load(folder / f"epoch_{epoch}.pth", weights_only=True)["state_dict"]
            for folder in (undisturbed[0], tmp_path / "run")
        )
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@pytest.mark.parametrize("batch", [3, 5, 8])
@pytest.mark.slow
def test_interrupted_run_resumes_to_the_same_scores_and_best_checkpoint(undisturbed, boxes, tmp_path, batch):
    from mmengine.hooks import Hook
    from mmengine.registry import HOOKS

    @HOOKS.register_module(force=True)
    class InterruptedAt(Hook):
        def __init__(self, batch):
            self.batch = batch

        def before_train_iter(self, runner, *_, **__):
            if runner.iter == self.batch:
                raise KeyboardInterrupt

    config = config_with(tmp_path, f"dict(type='mmengine.InterruptedAt', batch={batch})")
    work_dir = tmp_path / "run"
    assert call("train_detection", [config, "--work-dir", work_dir, *flags(boxes, **STEPS)])[0] == 130
    out = run(config_with(tmp_path), boxes, work_dir, "--resume")
    expected = [line for line in lines(undisturbed[1]) if int(line.split()[1].split("/")[0]) > batch // 3 * 3]
    assert list(map(scores, lines(out))) == list(map(scores, expected))
    (best,), (other,) = (list(folder.glob("best_*")) for folder in (work_dir, undisturbed[0]))
    assert best.name == other.name
    contents = [torch.load(path, weights_only=True)["state_dict"] for path in (best, other)]
    assert all(torch.equal(tensor, contents[1][name]) for name, tensor in contents[0].items())


@pytest.mark.slow
def test_accumulated_batches_are_one_step_and_resume_to_the_same_scores_and_average(boxes, tmp_path):
    """3 batches in 2 steps; the resumed run starts after an epoch that is not a multiple of 2 batches."""
    changes = {"val_steps": 3, "optim_wrapper__accumulative_counts": 2}
    config = config_with(tmp_path, "dict(type='EMAHook', momentum=0.1)")
    expected = lines(run(config, boxes, tmp_path / "whole", **changes))
    places = [line.partition(":")[0] for line in expected]
    assert places == ["step 3/6 (epoch 2/3)", "step 6/6 (epoch 3/3)"]
    run(config, boxes, tmp_path / "parts", **changes)
    (tmp_path / "parts/last_checkpoint").write_text("epoch_1.pth")
    assert list(map(scores, lines(run(config, boxes, tmp_path / "parts", "--resume", **changes)))) == list(
        map(scores, expected)
    )
    for part in ("state_dict", "ema_state_dict", "optimizer"):
        one, other = (
            leaves(torch.load(tmp_path / name / "epoch_3.pth", weights_only=True)[part]) for name in ("whole", "parts")
        )
        assert one.keys() == other.keys()
        assert all(
            torch.equal(torch.as_tensor(one[key]), torch.as_tensor(other[key])) for key in one if one[key] is not None
        )


def test_early_stopping_ends_at_a_step(boxes, tmp_path):
    early = "dict(type='EarlyStoppingHook', monitor='coco/bbox_mAP', patience=1, min_delta=10)"
    out = run(config_with(tmp_path, early), boxes, tmp_path / "run", val_steps=2)
    assert len(lines(out)) == 2
    assert "a hook stopped the training after the validation at step 4" in out
    assert (tmp_path / "run/last_checkpoint").read_text() == "epoch_2_step_4.pth"


def test_settings_that_cannot_be_followed_are_refused(boxes, tmp_path):
    work = [CONFIG, "--work-dir", tmp_path]
    refused([*work, *flags(boxes, val_steps=0)], "val_steps=0", "at least 1")
    nothing = {"val_dataloader": "None", "val_evaluator": "None", "val_cfg": "None", "test_cfg": "None"}
    options = [option for option in flags(boxes, val_steps=2) if not option.startswith("val_dataloader")]
    refused([*work, *options, *(f"{key}={value}" for key, value in nothing.items())], "val_steps=2", "val_dataloader")


ITERATIONS = "dict(_delete_=True,type='IterBasedTrainLoop',max_iters=6,val_interval=3)"
BY_ITERATION = {
    "default_hooks__checkpoint__by_epoch": "False",
    "default_hooks__checkpoint__interval": 3,
    "train_dataloader__sampler": "dict(type='InfiniteSampler')",
}


def iterations(boxes):
    options = [option for option in flags(boxes, **BY_ITERATION) if not option.startswith("train_cfg")]
    return [*options, f"train_cfg={ITERATIONS}"]


@pytest.mark.slow
def test_loop_over_iterations_repeats_an_interrupted_validation(boxes, tmp_path):
    status, out, err = call("train_detection", [CONFIG, "--work-dir", tmp_path, *iterations(boxes)])
    assert status == 0, err
    assert [line.partition(":")[0] for line in out.splitlines()][:2] == ["iteration 3/6", "iteration 6/6"]
    note = tmp_path / "last_validation.json"
    assert json.loads(note.read_text())["iter"] == 6
    note.write_text(json.dumps({"iter": 3}))
    status, out, err = call("train_detection", [CONFIG, "--work-dir", tmp_path, "--resume", *iterations(boxes)])
    assert status == 0, err
    assert "iteration 6/6 has not been validated; validating it now" in out
    assert json.loads(note.read_text())["iter"] == 6
    refused([CONFIG, "--work-dir", tmp_path, "--resume", *iterations(boxes), "val_steps=2"], "train_cfg.val_interval")
    for key in ("checkpoint_steps=2", "checkpoint_minutes=5"):
        refused([CONFIG, "--work-dir", tmp_path, "--resume", *iterations(boxes), key], "checkpoint.interval")
    changed = [*iterations(boxes), "optim_wrapper.optimizer.lr=0.5"]
    refused([CONFIG, "--work-dir", tmp_path, "--resume", *changed], "with a loop over iterations no setting may change")
