"""Progress of a training: a progress bar and lines on the terminal, and scalars in the logs."""

import sys
import time
from collections.abc import Mapping, Sequence, Sized
from datetime import timedelta
from numbers import Real
from typing import NamedTuple, TypedDict

import torch
from mmengine.dist import all_reduce, broadcast_object_list, get_world_size, is_main_process
from mmengine.hooks import Hook, LoggerHook
from mmengine.runner import BaseLoop, Runner
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor

from tresnet_downstream.registry import HOOKS
from tresnet_downstream.running.hooks import StopHook
from tresnet_downstream.running.loops import TrainLoop, training_loop

# With several processes, the bar's loss is a mean over processes, which is computed only every so many batches.
BATCHES_BETWEEN_LOSSES = 10
HISTORY = 10_000  # values kept of each scalar


def limit_history(runner: Runner) -> None:
    """Limits the history of each logged scalar to the longest window of the logs, but at least ``HISTORY`` values.

    MMEngine keeps a million values and copies them in each step, which takes 160 MB and 8 ms for ten scalars.
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
    """Statistics of the training since an account was opened, over all processes."""

    images: int
    mean_loss: float  # over images
    skipped: int  # images that could not be read
    images_per_second: float  # while training, without validation


class Batch(TypedDict, total=False):
    """A batch of a training; only the keys that are counted.

    Attributes:
        inputs: the images.
        skipped: number of unreadable images that the data set replaced, for each image.
    """

    inputs: Sized
    skipped: Tensor


class Account:
    """Sums of loss, images and seconds of training since the account was opened.

    Args:
        loss_key: key of the loss in a step's outputs.
    """

    def __init__(self, loss_key: str) -> None:
        self.loss_key = loss_key
        self.open()

    def open(self) -> None:
        """Resets all sums to zero."""
        self.opened = time.perf_counter()
        self.paused: float | None = None
        self.images = self.skipped = self.images_before = 0
        self.loss = 0.0  # summed over images

    def restore(self, sums: Sequence[float]) -> None:
        """Adds the result of :meth:`sums` from before the run was resumed."""
        loss, images, skipped = sums
        self.loss += loss
        self.images += int(images)
        self.skipped += int(skipped)
        self.images_before += int(images)

    def pause(self) -> None:
        """Stops the clock until the account is opened again."""
        if self.paused is None:
            self.paused = time.perf_counter()

    def add(self, data_batch: Batch, outputs: Mapping[str, Tensor | float]) -> None:
        """Adds the batch of a step."""
        count = len(data_batch["inputs"])
        self.loss += torch.as_tensor(outputs[self.loss_key]).item() * count
        self.images += count
        if "skipped" in data_batch:
            self.skipped += int(data_batch["skipped"].sum())

    def sums(self) -> list[float]:
        """Sums of loss, images and skipped images over all processes. Every process must call this."""
        return self._over_processes([self.loss, self.images, self.skipped])

    def numbers(self) -> Numbers:
        """The statistics over all processes. Every process must call this."""
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
    """Estimates the remaining time from the batches trained so far, including validations.

    Args:
        batches: number of batches trained before a resumed run continues.
    """

    def __init__(self, batches: int) -> None:
        self.began, self.before = time.perf_counter(), batches

    def seconds_left(self, done: int, total: int) -> float | None:
        """Seconds until ``total`` batches are trained; None before the first batch."""
        if done <= self.before:
            return None
        return (time.perf_counter() - self.began) / (done - self.before) * max(total - done, 0)


def last_epoch(runner: Runner) -> int:
    """The last epoch of the training: that of the schedule, or an earlier one set by :class:`StopHook`."""
    stop = next((hook.epoch for hook in runner.hooks if isinstance(hook, StopHook)), None)
    return int(min(runner.max_epochs, stop or runner.max_epochs))


def total_batches(runner: Runner) -> int:
    """Number of batches of the whole training."""
    if isinstance(training_loop(runner), TrainLoop):
        return last_epoch(runner) * len(runner.train_dataloader)
    return int(runner.max_iters)


def position(runner: Runner) -> str:
    """The position of a training between two batches, such as ``epoch 3/40``; with ``val_steps``, also the step."""
    loop = runner.train_loop
    if not isinstance(loop, TrainLoop):
        return f"iteration {loop.iter}/{loop.max_iters}"
    epoch = f"epoch {loop.current_epoch}/{last_epoch(runner)}"
    if loop.val_steps is None:
        return epoch
    return f"step {loop.step}/{loop.steps_after(total_batches(runner))} ({epoch})"


@HOOKS.register_module()
class ProgressHook(Hook):
    """A progress bar with the remaining time, and a line for each epoch or, with ``val_steps``, each validation.

    Attributes:
        loss_key: key of the displayed loss in a step's outputs.
        loss_name: name of the displayed loss.
    """

    priority = "LOWEST"
    loss_key, loss_name = "loss_per_image", "loss per image"

    def __init__(self) -> None:
        self.console = Console(file=sys.stdout, quiet=not is_main_process(), soft_wrap=True, highlight=False)
        self.bar: Progress | None = None
        self.task: TaskID | None = None

    def before_train(self, runner: Runner) -> None:
        """Shows the bar."""
        self.account, self.clock = Account(self.loss_key), Clock(runner.iter)
        _restore(self.account, runner, self)
        shows_bar = [self.console.is_terminal]
        broadcast_object_list(shows_bar)  # only the first process has a bar, but all compute its loss
        self.shows_bar, self.bar_loss = shows_bar[0], ""
        self._open(runner.iter, total_batches(runner))

    def before_train_epoch(self, runner: Runner) -> None:
        """Opens an account at the first batch of the epoch. With ``val_steps``, accounts do not end with epochs."""
        if _has_line_for_each_epoch(runner) and runner.train_loop.batches_of_epoch == 0:
            self.account.open()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Batch | None = None,
        outputs: Mapping[str, Tensor | float] | None = None,
    ) -> None:
        """Advances the bar."""
        assert data_batch is not None
        assert outputs is not None
        self.account.add(data_batch, outputs)
        if self.shows_bar and (get_world_size() == 1 or batch_idx % BATCHES_BETWEEN_LOSSES == 0):
            loss, images, _ = self.account.sums()
            self.bar_loss = f"  {self.loss_name} {loss / images:.4g}"
        self._move(f"epoch {runner.epoch + 1}/{last_epoch(runner)}{self.bar_loss}")

    def before_val_epoch(self, runner: Runner) -> None:
        """Shows a bar for a scoring outside of a training."""
        if training_loop(runner) is not None:
            self.account.pause()
        elif self.bar is None:
            self._open(0, len(runner.val_dataloader))

    def after_val_iter(self, runner: Runner, *_: object, **__: object) -> None:
        """Advances the bar of a scoring."""
        if training_loop(runner) is None:
            self._move("scoring")

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Prints the line of a validation."""
        if training_loop(runner) is not None and metrics:
            self._print(runner, self.scores_text(metrics))

    def scores_text(self, metrics: Mapping[str, float]) -> str:
        """The scores as text for the line of a validation."""
        # For each score, the values of raw and averaged weights; a user's metric may have a single value.
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

    def after_test_iter(self, runner: Runner, *_: object, **__: object) -> None:
        """Advances the bar of a test."""
        self._move("scoring")

    def after_train(self, runner: Runner) -> None:
        """Prints the line of the last epoch, unless its validation has printed it."""
        if _has_line_for_each_epoch(runner) and self.account.images:
            self._print(runner, "")

    def after_train_epoch(self, runner: Runner) -> None:
        """Prints the line of an epoch without a validation, except the last epoch, see :meth:`after_train`."""
        loop, epoch = runner.train_loop, runner.epoch + 1
        if _has_line_for_each_epoch(runner) and not loop.validates_after_epoch(epoch) and epoch != last_epoch(runner):
            self._print(runner, "")

    def _print(self, runner: Runner, scores: str) -> None:
        seconds = time.perf_counter() - self.account.opened
        numbers = self.account.numbers()
        parts = []
        # No images if a resumed run validates first and its checkpoint does not hold the earlier losses.
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
        """Removes the bar."""
        self.close()

    def close(self) -> None:
        """Removes the bar, also after an error."""
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
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, advance=1, description=description)


@HOOKS.register_module()
class StepLoggerHook(LoggerHook):
    """MMEngine's logger with optimiser steps as the x axis, for trainings with ``val_steps``.

    With the scores of a validation it logs ``epoch``; ``mean_loss`` over images and ``images_per_second``, both since
    the previous validation; and ``seconds_left`` of the whole training.
    """

    def before_train(self, runner: Runner) -> None:
        """Opens the account."""
        self.account, self.clock = Account("loss"), Clock(runner.iter)
        _restore(self.account, runner, self)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Batch | None = None,
        outputs: Mapping[str, Tensor | float] | None = None,
    ) -> None:
        """Adds the step to the account, and logs every ``interval`` batches."""
        assert data_batch is not None
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
        """Logs the scores with the step."""
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
    """Adds the sums in the checkpoint of a run that is resumed within an epoch or before its validation."""
    resumed_sums = getattr(runner, "resumed_sums", None)
    if resumed_sums is not None and (sums := resumed_sums(hook)) is not None:
        account.restore(sums)


def _has_line_for_each_epoch(runner: Runner) -> bool:
    loop: BaseLoop = runner.train_loop
    return isinstance(loop, TrainLoop) and loop.val_steps is None
