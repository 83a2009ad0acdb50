"""Checkpoints within epochs: a run that is resumed from one equals an uninterrupted run, bit for bit."""

import json
import os
import signal
import time

import pytest
from running.small_data import CUSTOM, RANDOM_NETWORK, ROOT, call, options, refuses_to_train, start, train
from running.test_resume import assert_bit_for_bit_equal, left_over, read

from tresnet_downstream.running import folders
from tresnet_downstream.running.signals import TrainingStopped
from tresnet_downstream.running.validation import LastValidationHook

# All that is random or has a memory, in epochs of 6 batches and 3 steps.
RANDOM = {
    **RANDOM_NETWORK,
    "batch_size": 4,
    "accumulation": 2,
    "max_epochs": 3,
}
INTERRUPTING = """
import os
import signal
import time
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module(force=True)
class Interrupting(Hook):
    account = "of the user, who may call a thing so"

    def __init__(self, number, batch, place):
        self.number, self.batch, self.place = number, batch, place

    def _send(self, runner, place):
        if place == self.place and runner.iter == self.batch:
            os.kill(os.getpid(), self.number)

    def before_train_iter(self, runner, *_, **__):
        self._send(runner, "step")

    def before_save_checkpoint(self, runner, checkpoint):
        self._send(runner, "save")

    def after_val_iter(self, runner, *_, **__):
        self._send(runner, "validation")

@HOOKS.register_module(force=True)
class Waiting(Interrupting):
    def _send(self, runner, place):
        if place == self.place and runner.iter == self.batch:
            open(os.path.join(runner.work_dir, "waits"), "w").close()
            time.sleep(1)
"""


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp("undisturbed")
    return work_dir, train(data, work_dir, config=CUSTOM, **RANDOM)


def config_with(folder, number, batch, place, kind="Interrupting"):
    """The config of the training with a hook that sends this process a signal."""
    exec(compile(INTERRUPTING, "interrupting", "exec"), {"__name__": "interrupting"})
    path = folder / "config.py"
    hook = f"dict(type='mmengine.{kind}', number={int(number)}, batch={batch}, place='{place}')"
    path.write_text(f"_base_ = [{CUSTOM!r}]\ncustom_hooks = [*_base_.custom_hooks, {hook}]\n")
    return path


def line_of(printed, epoch):
    (line,) = [line for line in printed.splitlines() if line.startswith(f"epoch {epoch}/3: ")]
    return line.split(", ")[0]


@pytest.mark.parametrize(
    ("number", "batch", "place", "newest"),
    [
        (signal.SIGTERM, 2, "step", "epoch_1_step_2.pth"),
        (signal.SIGUSR1, 9, "step", "epoch_2_step_5.pth"),
        (signal.SIGTERM, 11, "step", "epoch_2_step_6.pth"),
        (signal.SIGINT, 12, "validation", "epoch_2.pth"),
        (signal.SIGTERM, 6, "save", "epoch_1.pth"),
    ],
)
@pytest.mark.slow
def test_signal_ends_the_step_and_the_resumed_run_equals_the_uninterrupted_one(
    data, undisturbed, tmp_path, number, batch, place, newest
):
    config = config_with(tmp_path, number, batch, place)
    with pytest.raises(TrainingStopped) as stopped:
        train(data, tmp_path / "run", config=config, **RANDOM)
    assert stopped.value.code == 128 + number
    assert folders.last_checkpoint(tmp_path / "run").name == newest
    printed = train(data, tmp_path / "run", "--resume", config=CUSTOM, **RANDOM)
    assert_bit_for_bit_equal(tmp_path / "run/epoch_3.pth", undisturbed[0] / "epoch_3.pth")
    assert read(tmp_path / "run/best.pth")["score"] == read(undisturbed[0] / "best.pth")["score"]
    for epoch in (2, 3):
        assert line_of(printed, epoch) == line_of(undisturbed[1], epoch)
    assert not list((tmp_path / "run").glob("epoch_*_step_*"))


def test_a_run_that_is_resumed_within_an_epoch_by_worker_processes_leaves_the_same_batches_out(
    data, undisturbed, tmp_path
):
    """Torch's loader makes two iterators of the batches at its first epoch."""
    with pytest.raises(TrainingStopped):
        train(data, tmp_path / "run", config=config_with(tmp_path, signal.SIGTERM, 9, "step"), **RANDOM)
    train(data, tmp_path / "run", "--resume", config=CUSTOM, **{**RANDOM, "num_workers": 1})
    assert_bit_for_bit_equal(tmp_path / "run/epoch_3.pth", undisturbed[0] / "epoch_3.pth")


def test_losses_of_an_epoch_whose_validation_a_signal_ended_stay_with_that_epoch(data, undisturbed, tmp_path):
    changes = {**RANDOM, "default_hooks__checkpoint__interval": 2}  # the first epoch has no checkpoint but the signal's
    with pytest.raises(TrainingStopped):
        train(data, tmp_path / "run", config=config_with(tmp_path, signal.SIGTERM, 6, "validation"), **changes)
    printed = train(data, tmp_path / "run", "--resume", config=CUSTOM, **changes)
    for epoch in (1, 2, 3):
        assert line_of(printed, epoch) == line_of(undisturbed[1], epoch)


def mean_losses(work_dir):
    """By step, the mean losses that a training with ``val_steps`` logged with its validations."""
    texts = [path.read_text() for path in sorted(work_dir.rglob("scalars.json"))]
    rows = [json.loads(line) for text in texts for line in text.splitlines()]
    return {row["step"]: row["mean_loss"] for row in rows if "mean_loss" in row}


def test_logged_losses_before_a_validation_that_a_signal_ended_stay_with_that_validation(data, tmp_path):
    changes = {**RANDOM, "val_steps": 2, "max_epochs": 2}
    train(data, tmp_path / "undisturbed", config=CUSTOM, **changes)
    with pytest.raises(TrainingStopped):
        train(data, tmp_path / "run", config=config_with(tmp_path, signal.SIGTERM, 4, "validation"), **changes)
    train(data, tmp_path / "run", "--resume", config=CUSTOM, **changes)
    assert list(mean_losses(tmp_path / "run")) == [2, 4, 6]
    assert mean_losses(tmp_path / "run") == mean_losses(tmp_path / "undisturbed")


def test_logged_losses_of_a_run_resumed_between_epochs_go_back_to_the_validation_before(data, tmp_path):
    changes = {**RANDOM, "val_steps": 2, "max_epochs": 2}
    train(data, tmp_path / "undisturbed", config=CUSTOM, **changes)
    with pytest.raises(TrainingStopped):
        train(data, tmp_path / "run", config=config_with(tmp_path, signal.SIGTERM, 7, "step"), **changes)
    (tmp_path / "run/epoch_2_step_4.pth").unlink()
    folders.point_to(tmp_path / "run", "epoch_1.pth")
    for log in (tmp_path / "run").rglob("scalars.json"):
        log.unlink()
    train(data, tmp_path / "run", "--resume", config=CUSTOM, **changes)
    undisturbed = mean_losses(tmp_path / "undisturbed")
    assert mean_losses(tmp_path / "run") == {step: undisturbed[step] for step in (4, 6)}


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint_steps", [2, None])
def test_run_killed_in_its_first_epoch_after_a_validation_is_resumed(data, tmp_path, monkeypatch, checkpoint_steps):
    changes = {**RANDOM, "val_steps": 2, "max_epochs": 2, "checkpoint_steps": checkpoint_steps}
    train(data, tmp_path / "undisturbed", config=CUSTOM, **changes)

    def killed(hook, runner):
        if (tmp_path / "run/best.pth").exists():
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LastValidationHook, "after_val", killed, raising=False)
        command = [CUSTOM, "--work-dir", tmp_path / "run", *options(data, **changes)]
        assert call("train_multilabel", command)[0] == 130
    assert "epoch 2" in train(data, tmp_path / "run", "--resume", config=CUSTOM, **changes)
    assert_bit_for_bit_equal(tmp_path / "run/epoch_2.pth", tmp_path / "undisturbed/epoch_2.pth")
    assert mean_losses(tmp_path / "run") == mean_losses(tmp_path / "undisturbed")
    assert not list((tmp_path / "run").glob("epoch_*_step_*"))


def test_checkpoints_every_n_steps_change_nothing_and_are_removed_with_their_epoch(
    data, undisturbed, tmp_path, monkeypatch
):
    names = []
    point_to = folders.point_to
    monkeypatch.setattr(folders, "point_to", lambda folder, name: (names.append(name), point_to(folder, name)))
    train(data, tmp_path, config=CUSTOM, **RANDOM, checkpoint_steps=2)
    assert names == [
        *("epoch_1_step_2.pth", "epoch_1.pth"),
        *("epoch_2_step_4.pth", "epoch_2_step_6.pth", "epoch_2.pth"),
        *("epoch_3_step_8.pth", "epoch_3.pth"),
    ]
    assert sorted(path.name for path in tmp_path.glob("epoch_*")) == ["epoch_2.pth", "epoch_3.pth"]
    assert_bit_for_bit_equal(tmp_path / "epoch_3.pth", undisturbed[0] / "epoch_3.pth")


def test_checkpoints_every_n_minutes(data, tmp_path, monkeypatch):
    names = []
    point_to = folders.point_to
    monkeypatch.setattr(folders, "point_to", lambda folder, name: (names.append(name), point_to(folder, name)))
    train(data, tmp_path, max_epochs=1, checkpoint_minutes=1e-9)
    assert names == ["epoch_1_step_1.pth", "epoch_1_step_2.pth", "epoch_1_step_3.pth", "epoch_1.pth"]


@pytest.mark.parametrize("value", ["0", "1.5", "'often'"])
def test_wrong_number_of_steps_or_minutes_is_named(data, tmp_path, value):
    refuses_to_train(data, tmp_path, "checkpoint_steps", value.strip("'"), checkpoint_steps=value)
    if value != "1.5":
        refuses_to_train(data, tmp_path, "checkpoint_minutes", value.strip("'"), checkpoint_minutes=value)


def test_change_that_would_cut_the_epoch_otherwise_is_refused(data, tmp_path):
    with pytest.raises(TrainingStopped):
        train(data, tmp_path / "run", config=config_with(tmp_path, signal.SIGTERM, 2, "step"), **RANDOM)
    changes = {**RANDOM, "batch_size": 3}
    refuses_to_train(
        data, tmp_path / "run", "batch_size was 4", "within an epoch", flags=["--resume"], config=CUSTOM, **changes
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signal_to_all_processes_of_a_training_with_workers_ends_it_in_order(data, undisturbed, tmp_path, number):
    changes = {**RANDOM, "num_workers": 2}
    command = [ROOT / "tools/train_multilabel.py", CUSTOM, "--work-dir", tmp_path, *options(data, **changes)]
    process = start(command, start_new_session=True)
    while not (tmp_path / "epoch_1.pth").exists() and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number, err
    assert err == ""
    assert sum(line.startswith("stopped by") for line in out.splitlines()) == 1
    assert not left_over(tmp_path)
    train(data, tmp_path, "--resume", config=CUSTOM, **changes)
    assert_bit_for_bit_equal(tmp_path / "epoch_3.pth", undisturbed[0] / "epoch_3.pth")


@pytest.mark.slow
def test_signal_to_all_processes_of_a_validation_with_workers_ends_it_in_order(data, undisturbed, tmp_path):
    (tmp_path / "interrupting.py").write_text(INTERRUPTING)
    config = config_with(tmp_path, signal.SIGTERM, 6, "validation", kind="Waiting")
    changes = {**RANDOM, "num_workers": 2}
    command = [ROOT / "tools/train_multilabel.py", config, "--work-dir", tmp_path / "run", *options(data, **changes)]
    process = start([*command, "--import", tmp_path / "interrupting.py"], start_new_session=True)
    while not (tmp_path / "run/waits").exists() and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (128 + signal.SIGTERM, "")
    assert "stopped by SIGTERM after step 3; --resume continues from epoch_1.pth" in out
    train(data, tmp_path / "run", "--resume", config=CUSTOM, **changes)
    assert_bit_for_bit_equal(tmp_path / "run/epoch_3.pth", undisturbed[0] / "epoch_3.pth")


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "place"), [(8, "step"), (8, "save"), (12, "save"), (12, "validation")])
def test_killed_run_resumes_from_its_last_checkpoint_bit_for_bit(data, undisturbed, tmp_path, batch, place):
    (tmp_path / "interrupting.py").write_text(INTERRUPTING)
    config = config_with(tmp_path, signal.SIGKILL, batch, place)
    process = start(
        [
            *(ROOT / "tools/train_multilabel.py", config, "--work-dir", tmp_path / "run"),
            *("--import", tmp_path / "interrupting.py", *options(data, **RANDOM, checkpoint_steps=2)),
        ]
    )
    _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, err
    train(data, tmp_path / "run", "--resume", config=CUSTOM, **RANDOM, checkpoint_steps=2)
    assert_bit_for_bit_equal(tmp_path / "run/epoch_3.pth", undisturbed[0] / "epoch_3.pth")
    assert read(tmp_path / "run/best.pth")["score"] == read(undisturbed[0] / "best.pth")["score"]
    assert not left_over(tmp_path / "run")


@pytest.mark.slow
def test_second_signal_ends_a_training_at_once_and_leaves_whole_files(data, tmp_path):
    command = [ROOT / "tools/train_multilabel.py", CUSTOM, "--work-dir", tmp_path, *options(data, **RANDOM)]
    process = start(command)
    while not (tmp_path / "epoch_1.pth").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=10)
    assert process.returncode in (-signal.SIGUSR1, -signal.SIGTERM, 128 + signal.SIGTERM, 128 + signal.SIGUSR1)
    for path in tmp_path.glob("*.pth"):
        assert read(path)["state_dict"]
