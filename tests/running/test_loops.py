"""Validation after a number of optimiser steps."""

import sys

import pytest
import torch
from running.small_data import DIGITS, ROOT, options, refuses_to_train, start, train
from running.test_resume import assert_bit_for_bit_equal

from tresnet_downstream.running.optimisation import RecipeOptimWrapper, optimizer_steps

# 3 batches of an epoch in 2 steps, the weights averaged over all of them.
STEPS = {"max_epochs": 4, "accumulation": 2, "average_decay": 0.5, "keep_checkpoints": 4}


def validations(printed):
    """Step, epoch and scores of each line."""
    lines = [line for line in printed.splitlines() if line.startswith("step") and "val mAP" in line]
    places = [line.partition(":")[0] for line in lines]
    return places, [line.partition("val ")[2].split(", ")[:2] for line in lines]


def read(path):
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("steps")
    return folder, validations(train(data, folder, **STEPS, val_steps=3))


def test_validation_is_every_n_steps_counted_over_epochs_and_at_the_end(undisturbed):
    folder, (places, _) = undisturbed
    assert places == ["step 3/8 (epoch 2/4)", "step 6/8 (epoch 3/4)", "step 8/8 (epoch 4/4)"]
    assert sorted(path.name for path in folder.glob("epoch_*")) == [f"epoch_{epoch}.pth" for epoch in range(1, 5)]


def test_best_checkpoint_is_of_the_best_step(undisturbed):
    folder, (places, scores) = undisturbed
    best = read(folder / "best.pth")
    mean_ap = [max(float(score.split()[-1]) for score in pair) for pair in scores]
    place = mean_ap.index(max(mean_ap))
    assert round(best["score"]["mAP"], 2) == mean_ap[place]
    assert places[place].startswith(f"step {best['score']['step']}/8 (epoch {best['score']['epoch']}/")
    assert best["averaged_steps"] == best["meta"]["step"] == best["score"]["step"]


def test_validation_by_steps_changes_no_weight(data, undisturbed, tmp_path):
    train(data, tmp_path, **STEPS)
    assert_bit_for_bit_equal(tmp_path / "epoch_4.pth", undisturbed[0] / "epoch_4.pth")


@pytest.mark.parametrize("batch", [6, 8])
@pytest.mark.slow
def test_run_killed_between_two_validations_resumes_to_the_same_scores_and_best(data, undisturbed, tmp_path, batch):
    """In epoch 3 (after step 3, before step 6), before its first batch or its last."""
    hook = tmp_path / "killed_between.py"
    hook.write_text(
        "import os\n"
        "from mmengine.hooks import Hook\n"
        "from tresnet_downstream.registry import HOOKS\n\n\n"
        "@HOOKS.register_module(force=True)\n"
        "class KilledBetween(Hook):\n"
        "    def before_train_iter(self, runner, *_, **__):\n"
        f"        if runner.iter == {batch}:\n"
        "            os.kill(os.getpid(), 9)\n"
    )
    config = tmp_path / "mine.py"
    config.write_text(f"_base_ = ['{DIGITS}']\ncustom_hooks = [*_base_.custom_hooks, dict(type='KilledBetween')]\n")
    work_dir = tmp_path / "run"
    tool = [ROOT / "tools/train_multilabel.py", config, "--import", hook, "--work-dir", work_dir]
    process = start([*tool, *options(data, **STEPS, val_steps=3)])
    _, err = process.communicate(timeout=120)
    assert process.returncode == -9, err
    assert (work_dir / "last_checkpoint").read_text() == "epoch_2.pth"
    folder, (places, scores) = undisturbed
    assert validations(train(data, work_dir, "--resume", **STEPS, val_steps=3)) == (places[1:], scores[1:])
    for name in ("best.pth", "epoch_4.pth"):
        assert_bit_for_bit_equal(work_dir / name, folder / name)


def test_interrupted_last_validation_is_repeated(data, undisturbed, tmp_path):
    """Step 8 ends the training and is no multiple of 3."""
    train(data, tmp_path, **STEPS, val_steps=3)
    (tmp_path / "last_validation.json").write_text('{"iter": 9, "epoch": 3}')
    printed = train(data, tmp_path, "--resume", **STEPS, val_steps=3)
    assert "step 8/8 (epoch 4/4) has not been validated; validating it now" in printed
    assert validations(printed) == tuple(part[2:] for part in undisturbed[1])
    assert validations(train(data, tmp_path, "--resume", **STEPS, val_steps=3)) == ([], [])


def test_longer_interval_than_the_training_validates_once_at_the_end(data, tmp_path):
    printed = train(data, tmp_path, **STEPS, val_steps=1000)
    assert validations(printed)[0] == ["step 8/8 (epoch 4/4)"]
    assert read(tmp_path / "best.pth")["score"]["step"] == 8


def test_stop_epoch_ends_with_a_validation(data, tmp_path):
    printed = train(data, tmp_path, **STEPS, val_steps=3, stop_epoch=2)
    assert validations(printed)[0] == ["step 3/4 (epoch 2/2)", "step 4/4 (epoch 2/2)"]


def test_early_stopping_counts_validations_and_ends_at_once(data, tmp_path):
    config = tmp_path / "mine.py"
    early = "dict(type='EarlyStoppingHook', monitor='mAP', rule='greater', patience=1, min_delta=1000)"
    config.write_text(f"_base_ = ['{DIGITS}']\ncustom_hooks = [*_base_.custom_hooks, {early}]\n")
    printed = train(data, tmp_path / "run", config=config, max_epochs=4, val_steps=2)
    # The first validation sets the score, the second does not better it.
    assert validations(printed)[0] == ["step 2/12 (epoch 1/4)", "step 4/12 (epoch 2/4)"]
    assert printed.splitlines().count("a hook stopped the training after the validation at step 4") == 1
    names = sorted(path.name for path in (tmp_path / "run").glob("*.pth"))
    assert names == ["best.pth", "epoch_1.pth", "epoch_2_step_4.pth"]


def test_first_epoch_of_validation_takes_effect_and_other_intervals_are_reported_as_unused(data, tmp_path):
    loop = "dict(by_epoch=True,max_epochs=4,val_begin=3,val_interval=2)"
    printed = train(data, tmp_path, max_epochs=4, val_steps=4, train_cfg=loop)
    assert validations(printed)[0] == ["step 8/12 (epoch 3/4)", "step 12/12 (epoch 4/4)"]
    assert "val_steps=4 replaces the intervals between validations in train_cfg" in printed


@pytest.mark.parametrize("steps", [0, -3, 2.5, "True", "often"])
def test_invalid_number_of_steps_is_refused_before_a_folder_is_renamed(data, tmp_path, steps):
    (tmp_path / "epoch_1.pth").write_bytes(b"")
    flags = ["--overwrite"]
    refuses_to_train(data, tmp_path, "val_steps=", "whole number", "at least 1", flags=flags, val_steps=steps)
    assert (tmp_path / "epoch_1.pth").exists()


def test_loop_over_iterations_is_refused(data, tmp_path):
    loop = "dict(type='IterBasedTrainLoop',max_iters=4)"
    refuses_to_train(data, tmp_path, "val_steps", "train_cfg.val_interval", val_steps=2, train_cfg=loop)


@pytest.mark.parametrize("epoch_length", [5, sys.maxsize])
@pytest.mark.parametrize("accumulated", [1, 2, 3])
def test_steps_of_the_recipe_are_those_that_the_wrapper_makes(epoch_length, accumulated):
    weight = torch.nn.Parameter(torch.zeros(1))
    wrapper = RecipeOptimWrapper(
        torch.optim.SGD([weight], lr=1.0), epoch_length=epoch_length, accumulative_counts=accumulated
    )
    made = 0
    for batches in range(1, 16):
        wrapper._inner_count += 1
        made += wrapper.should_update()
        assert optimizer_steps(wrapper, batches, 15) == made
