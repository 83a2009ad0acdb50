"""Changed settings of a resumed training are reported and take effect, or are refused by name."""

import json
import shutil

import pytest
import torch
from running.small_data import DIGITS, ROOT, options, refuses_to_train, start, train
from running.test_resume import assert_bit_for_bit_equal, read


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp("changes") / "run"
    train(data, work_dir, max_epochs=3, stop_epoch=1)
    return work_dir


@pytest.fixture
def work_dir(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def told(printed):
    return [line for line in printed.splitlines() if line.startswith("resumed with a change: ")]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1}, "seed was 0 and is now 1"),
        ({"image_size": 48}, "image_size was 32 and is now 48"),
        ({"model__loss__gamma_neg": 4}, "loss.gamma_neg was 2 and is now 4"),
        ({"average_decay": 0.9}, "weight_average.0.decay was 0.99 and is now 0.9"),
        ({"model__backbone__drop_path_rate": 0.1}, "model.backbone.drop_path_rate was None and is now 0.1"),
        ({"default_hooks__checkpoint__save_best": "CF1"}, "save_best was None and is now 'CF1'"),
    ],
)
def test_settings_that_define_a_run_cannot_change(data, work_dir, changes, words):
    refuses_to_train(data, work_dir, words, flags=["--resume"], max_epochs=3, **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_lr": 2e-3}, ["max_lr was 0.001 and is now 0.002"]),
        ({"weight_decay": 0.1}, ["weight_decay was 0.0001 and is now 0.1"]),
        ({"max_epochs": 2}, ["max_epochs was 3 and is now 2"]),
        ({"batch_size": 6}, ["batch_size was 8 and is now 6"]),
        ({"accumulation": 3}, ["accumulation was 1 and is now 3"]),
        ({"val_steps": 4}, ["val_steps was None and is now 4"]),
        ({"max_lr": 2e-3, "batch_size": 12}, ["max_lr was 0.001 and is now 0.002", "batch_size was 8 and is now 12"]),
    ],
)
def test_allowed_changes_are_reported_in_a_line_each_and_take_effect(data, work_dir, changes, words):
    settings = {"max_epochs": 3, **changes}
    printed = train(data, work_dir, "--resume", **settings)
    assert told(printed) == [f"resumed with a change: {change}" for change in words]
    epochs, steps = settings["max_epochs"], -(-24 // settings.get("batch_size", 8))
    end = read(work_dir / f"epoch_{epochs}.pth")
    schedule = end["param_schedulers"][0]
    assert schedule["total_steps"] == schedule["last_epoch"] == epochs * steps
    groups = end["optimizer"]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.0, settings.get("weight_decay", 1e-4)]
    assert {group["max_lr"] for group in groups} == {settings.get("max_lr", 1e-3)}
    assert end["meta"]["iter"] == epochs * steps
    assert end["meta"]["run"]["free"]["max_lr"] == settings.get("max_lr", 1e-3)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"batch_size": 4, "accumulation": 2}, "8 images over all processes, as before"),
        (
            {"batch_size": 8, "accumulation": 2},
            "16 images over all processes, and used 8 before; batch_size=4 keeps 8",
        ),
        ({"batch_size": 3, "accumulation": 3}, "9 images over all processes, and used 8 before"),
    ],
)
def test_images_of_a_step_are_reported_where_they_may_have_changed(data, work_dir, changes, line):
    printed = train(data, work_dir, "--resume", max_epochs=3, stop_epoch=1, **changes)
    assert f"an optimiser step uses {line}\n" in printed


def test_learning_rate_after_a_change_is_that_of_the_new_schedule(data, work_dir):
    train(data, work_dir, "--resume", max_epochs=3, stop_epoch=2, max_lr=2e-3)
    parameters = [torch.nn.Parameter(torch.zeros(1))]
    optimizer = torch.optim.Adam(parameters, lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=9, pct_start=0.2)
    for _ in range(6):
        optimizer.step()
        schedule.step()
    (group,) = optimizer.param_groups
    for ours in read(work_dir / "epoch_2.pth")["optimizer"]["param_groups"]:
        assert ours["lr"] == pytest.approx(group["lr"], rel=1e-12)
        assert ours["betas"] == pytest.approx(group["betas"], rel=1e-12)


def test_schedule_follows_the_number_of_pictures(data, work_dir, tmp_path):
    fewer = shutil.copytree(data, tmp_path / "data")
    content = json.loads((fewer / "train.json").read_text())
    content["images"] = [image for image in content["images"] if image["id"] <= 16]
    content["annotations"] = [item for item in content["annotations"] if item["image_id"] <= 16]
    (fewer / "train.json").write_text(json.dumps(content))
    printed = train(fewer, work_dir, "--resume", max_epochs=3)
    assert told(printed) == ["resumed with a change: training images was 24 and is now 16"]
    schedule = read(work_dir / "epoch_3.pth")["param_schedulers"][0]
    assert schedule["total_steps"] == schedule["last_epoch"] == 6


def test_other_validation_data_is_reported(data, work_dir, tmp_path):
    fewer = shutil.copytree(data, tmp_path / "fewer")
    content = json.loads((fewer / "val.json").read_text())
    removed = content["images"].pop()["id"]
    content["annotations"] = [item for item in content["annotations"] if item["image_id"] != removed]
    (fewer / "val.json").write_text(json.dumps(content))
    before = len(content["images"]) + 1
    printed = train(fewer, work_dir, "--resume", max_epochs=3)
    assert told(printed) == [f"resumed with a change: validation images was {before} and is now {before - 1}"]


def test_without_changes_nothing_is_printed(data, work_dir):
    assert told(train(data, work_dir, "--resume", max_epochs=3)) == []


def test_fewer_epochs_than_the_run_has_are_refused(data, tmp_path):
    train(data, tmp_path / "run", max_epochs=2)
    refuses_to_train(data, tmp_path / "run", "max_epochs=1", "epoch 2", flags=["--resume"], max_epochs=1)


def test_checkpoint_that_does_not_say_its_settings_takes_the_configs(data, trained, work_dir):
    checkpoint = read(work_dir / "epoch_1.pth")
    del checkpoint["meta"]["run"], checkpoint["meta"]["run_id"]
    torch.save(checkpoint, work_dir / "epoch_1.pth")
    other = shutil.copytree(trained, work_dir.with_name("other"))
    assert "has no settings of its training" in train(data, work_dir, "--resume", max_epochs=3)
    train(data, other, "--resume", max_epochs=3)
    assert_bit_for_bit_equal(work_dir / "epoch_3.pth", other / "epoch_3.pth")


def test_memory_saving_may_change_without_a_message(data, work_dir):
    assert told(train(data, work_dir, "--resume", max_epochs=3, model__backbone__with_cp=True)) == []


def test_early_stop_says_so(data, tmp_path):
    assert "stopped after epoch 1 of 3, because of stop_epoch" in train(data, tmp_path, max_epochs=3, stop_epoch=1)
    printed = train(data, tmp_path, "--resume", max_epochs=3, stop_epoch=1)
    assert "nothing is left to train: stop_epoch=1" in printed
    assert "best val mAP" in printed


def test_finished_run_says_that_nothing_is_left(data, tmp_path):
    train(data, tmp_path, max_epochs=1)
    assert "nothing is left to train" in train(data, tmp_path, "--resume", max_epochs=1)


def test_run_that_stops_between_two_validations_is_validated(data, tmp_path):
    printed = train(data, tmp_path, max_epochs=4, stop_epoch=1, train_cfg__val_interval=3)
    assert "best val mAP" in printed
    assert read(tmp_path / "best.pth")["score"]["epoch"] == 1


CUTS = {"Ctrl-C": ("raise KeyboardInterrupt", 130), "kill": ("os.kill(os.getpid(), 9)", -9)}


@pytest.mark.parametrize("max_epochs", [1, 2])
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.slow
def test_epoch_whose_validation_was_interrupted_is_validated_on_resume(data, tmp_path, max_epochs, cut):
    """At the first batch of the validation, by a hook of the config."""
    end, status = CUTS[cut]
    hook = tmp_path / "cut_validation.py"
    hook.write_text(
        "import os\n"
        "from mmengine.hooks import Hook\n"
        "from tresnet_downstream.registry import HOOKS\n\n\n"
        "@HOOKS.register_module(force=True)\n"
        "class CutValidation(Hook):\n"
        "    def before_val_iter(self, runner, *_, **__):\n"
        f"        {end}\n"
    )
    config = tmp_path / "mine.py"
    config.write_text(
        f"_base_ = ['{DIGITS}']\n"
        "custom_imports = dict(imports=['cut_validation'])\n"
        "custom_hooks = [*_base_.custom_hooks, dict(type='CutValidation')]\n"
    )
    work_dir = tmp_path / "run"
    command = ["-c", RUN.format(tools=ROOT / "tools", folder=tmp_path), config, "--work-dir", work_dir]
    process = start([*command, *options(data, max_epochs=max_epochs)])
    _, err = process.communicate(timeout=120)
    assert process.returncode == status, err
    assert (work_dir / "epoch_1.pth").exists()
    assert not (work_dir / "best.pth").exists()

    uncut = tmp_path / "uncut"
    train(data, uncut, max_epochs=max_epochs)
    printed = train(data, work_dir, "--resume", max_epochs=max_epochs)
    assert f"epoch 1/{max_epochs} has not been validated; validating it now" in printed
    assert "best val mAP" in printed
    assert read(work_dir / "best.pth")["score"] == read(uncut / "best.pth")["score"]
    assert_bit_for_bit_equal(work_dir / f"epoch_{max_epochs}.pth", uncut / f"epoch_{max_epochs}.pth")


RUN = (
    "import sys; sys.path[:0] = ['{tools}', '{folder}']; from train_multilabel import main, run;"
    "sys.exit(run(main, resumable=True))"
)
