"""What a training tells of its progress: a bar and lines on the terminal, numbers in the logs."""

import sys
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from numbers import Real
from typing import Any, NamedTuple

import torch
from mmengine.dist import all_reduce, broadcast_object_list, get_world_size, is_main_process
from mmengine.hooks import Hook, LoggerHook
from mmengine.runner import BaseLoop, Runner
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tresnet_downstream.registry import HOOKS
from tresnet_downstream.running.hooks import StopHook
from tresnet_downstream.running.loops import TrainLoop, training_loop

# Of several processes, whose losses the bar shows the mean of: adding them up takes time.
BATCHES_BETWEEN_LOSSES = 10
HISTORY = 10_000  # values of each scalar


def limit_history(runner: Runner) -> None:
    """Keeps as many values of each logged scalar as the logs take means over, and at least ``HISTORY``.

    MMEngine keeps the last million, and copies all of them in each step: 160 MB and 8 ms in the end, for ten scalars.
    """
    processor = runner.log_processor
    windows = [processor.window_size, *(entry.get("window_size") for entry in processor.custom_cfg)]
    if "global" in windows:
        return
    lengths = [window for window in windows if isinstance(window, int)]
    for loop in (runner._train_loop, runner._val_loop):
        dataloader = getattr(loop, "dataloader", None)
        if hasattr(getattr(dataloader, "dataset", None), "__len__"):
            lengths.append(len(dataloader))  # type: ignore[arg-type]
    for history in runner.message_hub.log_scalars.values():
        history.max_length = max(HISTORY, *lengths)


class Numbers(NamedTuple):
    """What was trained since an account was opened, over all processes."""

    images: int
    mean_loss: float  # over images
    skipped: int  # images that could not be read
    images_per_second: float  # while training, without validation


class Account:
    """Loss, images and seconds of training since it was opened.

    Args:
        loss_key: what of a step's outputs is the loss.
    """

    def __init__(self, loss_key: str) -> None:
        self.loss_key = loss_key
        self.open()

    def open(self) -> None:
        """Starts at zero."""
        self.opened = time.perf_counter()
        self.paused: float | None = None
        self.images = self.skipped = self.images_before = 0
        self.loss = 0.0  # summed over images

    def restore(self, sums: Sequence[float]) -> None:
        """Adds what :meth:`sums` gave of the part that was trained before a run was resumed."""
        loss, images, skipped = sums
        self.loss += loss
        self.images += int(images)
        self.skipped += int(skipped)
        self.images_before += int(images)

    def pause(self) -> None:
        """Stops the clock of the training, for the rest of this account."""
        if self.paused is None:
            self.paused = time.perf_counter()

    def add(self, data_batch: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        """Adds a step."""
        count = len(data_batch["inputs"])
        self.loss += torch.as_tensor(outputs[self.loss_key]).item() * count
        self.images += count
        if "skipped" in data_batch:
            self.skipped += int(data_batch["skipped"].sum())

    def sums(self) -> list[float]:
        """Loss, images and skipped images over all processes, each of which must call this."""
        return self._over_processes([self.loss, self.images, self.skipped])

    def numbers(self) -> Numbers:
        """What was trained, over all processes, each of which must call this."""
        seconds = (time.perf_counter() if self.paused is None else self.paused) - self.opened
        values = [self.loss, self.images, self.skipped, self.images - self.images_before]
        loss, images, skipped, trained_here = self._over_processes(values)
        mean_loss = loss / images if images else float("nan")
        return Numbers(int(images), mean_loss, int(skipped), trained_here / seconds if seconds else 0.0)

    @staticmethod
    def _over_processes(values: list[float]) -> list[float]:
        all_reduce(sums := torch.tensor(values, dtype=torch.float64))
        added: list[float] = sums.tolist()
        return added


class Clock:
    """Estimates the time left from the batches of this process, validations included.

    Args:
        batches: number of batches trained before.
    """

    def __init__(self, batches: int) -> None:
        self.began, self.before = time.perf_counter(), batches

    def seconds_left(self, done: int, total: int) -> float | None:
        """Seconds until the last of ``total`` batches; None before the first batch of this process."""
        if done <= self.before:
            return None
        return (time.perf_counter() - self.began) / (done - self.before) * max(total - done, 0)


def last_epoch(runner: Runner) -> int:
    """The epoch that ends the training: the schedule's last, or the one of :class:`StopHook`."""
    stop = next((hook.epoch for hook in runner.hooks if isinstance(hook, StopHook)), None)
    return min(runner.max_epochs, stop or runner.max_epochs)


def total_batches(runner: Runner) -> int:
    """Number of batches of the whole training."""
    if isinstance(training_loop(runner), TrainLoop):
        return last_epoch(runner) * len(runner.train_dataloader)
    return int(runner.max_iters)


def position(runner: Runner) -> str:
    """Where a training stands between two batches: ``epoch 3/40`` or, validated by steps, also the step."""
    loop = runner.train_loop
    if not isinstance(loop, TrainLoop):
        return f"iteration {loop.iter}/{loop.max_iters}"
    epoch = f"epoch {loop.current_epoch}/{last_epoch(runner)}"
    if loop.val_steps is None:
        return epoch
    return f"step {loop.step}/{loop.steps_after(total_batches(runner))} ({epoch})"


@HOOKS.register_module()
class ProgressHook(Hook):
    """A bar with the time left on a terminal, and one line for each epoch or, with ``val_steps``, each validation.

    Attributes:
        loss_key: what of a step's outputs is shown.
        loss_name: how it is called.
    """

    priority = "LOWEST"
    loss_key, loss_name = "loss_per_image", "loss per image"

    def __init__(self) -> None:
        self.console = Console(file=sys.stdout, quiet=not is_main_process(), soft_wrap=True, highlight=False)
        self.bar: Progress | None = None
        self.task: Any = None

    def before_train(self, runner: Runner) -> None:
        """Shows the bar."""
        self.account, self.clock = Account(self.loss_key), Clock(runner.iter)
        _restore(self.account, runner, self)
        shows_bar = [self.console.is_terminal]
        broadcast_object_list(shows_bar)  # the first process alone has a bar, and all compute its loss
        self.shows_bar, self.bar_loss = shows_bar[0], ""
        self._open(runner.iter, total_batches(runner))

    def before_train_epoch(self, runner: Runner) -> None:
        """Opens the epoch's account at its first batch; with ``val_steps``, an account goes over epochs."""
        if _has_line_for_each_epoch(runner) and runner.train_loop.batches_of_epoch == 0:
            self.account.open()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict[str, Any] | None = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Moves the bar."""
        assert data_batch is not None
        assert outputs is not None
        self.account.add(data_batch, outputs)
        if self.shows_bar and (get_world_size() == 1 or batch_idx % BATCHES_BETWEEN_LOSSES == 0):
            loss, images, _ = self.account.sums()
            self.bar_loss = f"  {self.loss_name} {loss / images:.4g}"
        self._move(f"epoch {runner.epoch + 1}/{last_epoch(runner)}{self.bar_loss}")

    def before_val_epoch(self, runner: Runner) -> None:
        """Shows a bar for an evaluation that stands by itself."""
        if training_loop(runner) is not None:
            self.account.pause()
        elif self.bar is None:
            self._open(0, len(runner.val_dataloader))

    def after_val_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Moves that bar."""
        if training_loop(runner) is None:
            self._move("scoring")

    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        """Prints the line of a validation."""
        if training_loop(runner) is not None and metrics:
            self._print(runner, self.scores_text(metrics))

    def scores_text(self, metrics: Mapping[str, Any]) -> str:
        """What the line says of the scores."""
        # By the score's name, what each set of weights has; a metric of the user's may have one for all.
        scores: dict[str, list[str]] = {}
        of_weights = {name.rpartition("/")[2] for name in metrics if "/" in name}
        for name, value in metrics.items():
            weights, _, score = name.rpartition("/")
            if isinstance(value, Real) and (weights or name not in of_weights):
                scores.setdefault(score, []).append(f"{weights} {float(value):.2f}".strip())
        return "val " + ", ".join(f"{name}: {', '.join(values)}" for name, values in scores.items())

    def before_test_epoch(self, runner: Runner) -> None:
        """Shows a bar for a test."""
        self._open(0, len(runner.test_dataloader))

    def after_test_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Moves that bar."""
        self._move("scoring")

    def after_train(self, runner: Runner) -> None:
        """Prints the line of the last epoch, if no validation did."""
        if _has_line_for_each_epoch(runner) and self.account.images:
            self._print(runner, "")

    def after_train_epoch(self, runner: Runner) -> None:
        """Prints the line of an epoch that no validation follows; whether one follows the last is known later."""
        loop, epoch = runner.train_loop, runner.epoch + 1
        if _has_line_for_each_epoch(runner) and not loop.validates_after_epoch(epoch) and epoch != last_epoch(runner):
            self._print(runner, "")

    def _print(self, runner: Runner, scores: str) -> None:
        seconds = time.perf_counter() - self.account.opened
        numbers = self.account.numbers()
        parts = []
        # None where a resumed run first validates, and the checkpoint does not have the losses of the run before.
        if numbers.images:
            parts.append(f"{self.loss_name} {numbers.mean_loss:.4g}")
        parts += [scores] if scores else []
        if numbers.images_per_second:
            parts += [f"{seconds:.0f} s", f"{numbers.images_per_second:.4g} images/s"]
        if left := self.clock.seconds_left(runner.iter, total_batches(runner)):
            parts.append(f"{timedelta(seconds=round(left))} left")
        if numbers.skipped:
            parts.append(f"{numbers.skipped} bad images skipped")
        self.console.print(f"{position(runner)}: {', '.join(parts)}")
        self.account.open()

    def after_run(self, runner: Runner) -> None:
        """Takes the bar away."""
        self.close()

    def close(self) -> None:
        """Takes the bar away, also after an error."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def _open(self, done: int, total: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self.bar = Progress(
            *columns,
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self.task = self.bar.add_task("", completed=done, total=total)
        self.bar.start()

    def _move(self, description: str) -> None:
        if self.bar is not None:
            self.bar.update(self.task, advance=1, description=description)


@HOOKS.register_module()
class StepLoggerHook(LoggerHook):
    """MMEngine's logger with optimiser steps as the x axis, for trainings with ``val_steps``.

    With the scores of a validation it writes ``epoch``, and of the training since the validation before:
    ``mean_loss`` over images, ``images_per_second``, and ``seconds_left`` of the whole training.
    """

    def before_train(self, runner: Runner) -> None:
        """Opens the account."""
        self.account, self.clock = Account("loss"), Clock(runner.iter)
        _restore(self.account, runner, self)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Adds to the account, and writes every ``interval`` batches."""
        assert outputs is not None
        self.account.loss_key = "loss_per_image" if "loss_per_image" in outputs else "loss"
        self.account.add(data_batch, outputs)
        loader = runner.train_dataloader
        short = not self.ignore_last or len(loader) <= self.interval
        if self.every_n_inner_iters(batch_idx, self.interval) or (short and self.end_of_epoch(loader, batch_idx)):
            tag, text = runner.log_processor.get_log_after_iter(runner, batch_idx, "train")
            runner.logger.info(text)
            step = runner.train_loop.steps_after(runner.iter + 1)
            runner.visualizer.add_scalars(tag, step=step, file_path=self.json_log_path)

    def before_val_epoch(self, runner: Runner) -> None:
        """Stops the clock of the training."""
        if training_loop(runner) is not None:
            self.account.pause()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Writes the scores at the step."""
        loop = training_loop(runner)
        if not isinstance(loop, TrainLoop):
            super().after_val_epoch(runner, metrics)
            return
        tag, text = runner.log_processor.get_log_after_epoch(runner, len(runner.val_dataloader), "val")
        tag = {**tag, "epoch": loop.current_epoch}
        numbers = self.account.numbers()
        if numbers.images:
            left = self.clock.seconds_left(loop.iter, total_batches(runner))
            trained = {
                "mean_loss": numbers.mean_loss,
                "images_per_second": numbers.images_per_second,
                "seconds_left": left or 0.0,
            }
            tag |= trained
            text += "  " + "  ".join(f"{name}: {value:.4f}" for name, value in trained.items())
        self.account.open()
        runner.logger.info(f"{position(runner)}  {text}")
        runner.visualizer.add_scalars(tag, step=loop.step, file_path=self.json_log_path)


def _restore(account: Account, runner: Runner, hook: Hook) -> None:
    """Goes on with the sums of a run that is resumed within an epoch, or before the validation of one."""
    resumed_sums = getattr(runner, "resumed_sums", None)
    if resumed_sums is not None and (sums := resumed_sums(hook)) is not None:
        account.restore(sums)


def _has_line_for_each_epoch(runner: Runner) -> bool:
    loop: BaseLoop = runner.train_loop
    return isinstance(loop, TrainLoop) and loop.val_steps is None
