"""The reported progress of a training, compared with independently computed values."""

import io
import json
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from running.small_data import DIGITS, call, options, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tresnet_downstream.registry import HOOKS
from tresnet_downstream.running import progress
from tresnet_downstream.running.hooks import StopHook
from tresnet_downstream.running.loops import TrainLoop
from tresnet_downstream.running.progress import ProgressHook


def test_terminal_shows_a_bar_with_the_time_left(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes the stream for a terminal
    hook = ProgressHook()
    runner = SimpleNamespace(hooks=[StopHook(2)], max_epochs=5, iter=0, epoch=0, train_dataloader=range(3))
    loop = object.__new__(TrainLoop)
    loop.val_steps, loop._iter, loop._epoch, loop.dataloader = None, 0, 0, range(3)
    runner.train_loop = runner._train_loop = loop
    hook.before_train(runner)
    hook.before_train_epoch(runner)
    batch = {"inputs": torch.zeros(8, 1), "skipped": torch.tensor([0, 1])}
    hook.after_train_iter(runner, 0, batch, {"loss_per_image": torch.tensor(1.5)})
    hook.bar.refresh()
    hook.close()
    for words in ("epoch 1/2", "loss per image 1.5", "1/6", "left"):
        assert words in screen.getvalue()


class Ticker(Hook):
    """Stands for the time of steps and validations, and writes down each batch."""

    clock, batches = 0.0, []

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        Ticker.clock += 2
        Ticker.batches.append((len(data_batch["inputs"]), float(outputs["loss_per_image"].detach())))

    def before_val_iter(self, runner, batch_idx, data_batch):
        Ticker.clock += 5


@pytest.fixture(scope="module")
def ticked(data, tmp_path_factory):
    """A training of 4 epochs of 10 + 10 + 4 images, two batches to a step: of 2, 1, 2, 1, ... batches."""
    folder = tmp_path_factory.mktemp("ticked")
    HOOKS.register_module(module=Ticker, force=True)
    config = folder / "ticked.py"
    config.write_text(f"_base_ = ['{DIGITS}']\ncustom_hooks = [*_base_.custom_hooks, dict(type='Ticker')]\n")
    Ticker.clock, Ticker.batches = 0.0, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "time", SimpleNamespace(perf_counter=lambda: Ticker.clock))
        changes = {"batch_size": 10, "max_epochs": 4, "accumulation": 2, "val_steps": 3}
        status, out, err = call("train_multilabel", [config, "--work-dir", folder / "run", *options(data, **changes)])
    assert status == 0, err
    return folder / "run", out


# Of each validation: step, epoch, first and last batch since the one before, validations of 2 batches so far.
VALIDATIONS = [(3, 2, 0, 5, 0), (6, 3, 5, 9, 1), (8, 4, 9, 12, 2)]


def expected_numbers(first, last, validations):
    """Mean loss over images, images per second of training, seconds left of 12 batches."""
    batches = Ticker.batches[first:last]
    images = sum(count for count, _ in batches)
    mean = sum(count * loss for count, loss in batches) / images
    # The line is printed after its own validation.
    elapsed = 2 * last + 10 * (validations + 1)
    return mean, images / (2 * len(batches)), elapsed / last * (12 - last)


def test_lines_of_validations_have_step_epoch_loss_speed_and_time_left(ticked):
    lines = [line for line in ticked[1].splitlines() if line.startswith("step")]
    assert len(lines) == 3
    for line, (step, epoch, first, last, validations) in zip(lines, VALIDATIONS, strict=True):
        mean, speed, left = expected_numbers(first, last, validations)
        assert line.startswith(f"step {step}/8 (epoch {epoch}/4): loss per image {mean:.4g}, val mAP: raw ")
        assert f", {2 * (last - first) + 10} s, {speed:.4g} images/s" in line
        assert line.endswith(f"{timedelta(seconds=round(left))} left" if left else "images/s")


def test_logs_have_steps_as_their_x_axis(ticked):
    (scalars,) = ticked[0].rglob("scalars.json")
    rows = [json.loads(line) for line in scalars.read_text().splitlines()]
    scores = [row for row in rows if "raw/mAP" in row]
    assert [(row["step"], row["epoch"]) for row in scores] == [validation[:2] for validation in VALIDATIONS]
    for row, (_, _, *span) in zip(scores, VALIDATIONS, strict=True):
        mean, speed, left = expected_numbers(*span)
        assert row["mean_loss"] == pytest.approx(mean, rel=1e-6)
        assert row["images_per_second"] == pytest.approx(speed)
        assert row["seconds_left"] == pytest.approx(left)
    assert [row["step"] for row in rows if "lr" in row] == [2, 4, 6, 8]  # at the ends of epochs
    (events,) = ticked[0].rglob("events.out.tfevents.*")
    recorded = EventAccumulator(str(events)).Reload().Scalars("raw/mAP")
    assert [(event.step, event.value) for event in recorded] == [
        (row["step"], pytest.approx(row["raw/mAP"])) for row in scores
    ]


def test_logs_keep_no_more_values_than_they_take_means_over(data, tmp_path, monkeypatch):
    hubs, limit = [], progress.limit_history

    def limited(runner):
        hubs.append(runner.message_hub)
        limit(runner)

    monkeypatch.setattr(progress, "HISTORY", 2)
    monkeypatch.setattr(progress, "limit_history", limited)
    train(data, tmp_path / "run", max_epochs=5)  # 15 steps; the logs take means over 10
    values, _ = hubs[-1].get_scalar("train/loss").data
    assert len(values) == 10
