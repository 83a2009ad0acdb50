"""What happens around the training steps: weight average, seeds, early end, progress."""

import copy
import random
import sys
import time
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_reduce, get_rank, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor, nn

from tresnet_downstream.backbones import TResNet
from tresnet_downstream.errors import UserError
from tresnet_downstream.notices import tell
from tresnet_downstream.registry import HOOKS
from tresnet_downstream.running.checkpoints import bare
from tresnet_downstream.weights.reading import unwrap


@HOOKS.register_module()
class WeightAverageHook(Hook):
    """A moving average of the weights, buffers too, updated after each optimiser step, as published.

    Both the raw and the averaged weights are validated and stored.

    Args:
        decay: share of the old average that stays at each step.
        warmup: starts with a smaller share, ``(1 + step) / (10 + step)``, for runs of few steps.
    """

    priority = "ABOVE_NORMAL"

    def __init__(self, decay: float = 0.9997, warmup: bool = False) -> None:
        if not 0 <= decay < 1:
            raise UserError(f"WeightAverageHook: decay={decay!r} is not from 0 to below 1")
        self.decay, self.warmup = decay, warmup
        self.model: nn.Module | None = None
        self.steps = 0
        self._resumed: dict[str, Any] | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keeps the average of the run that is resumed."""
        unwrap(checkpoint, "averaged", runner._load_from)  # says so if there are none
        self._resumed = checkpoint

    def before_train(self, runner: Runner) -> None:
        """Starts the average at the weights as they are, or takes it up again."""
        model = bare(runner.model)
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        if self._resumed is not None:
            self.model.load_state_dict(self._resumed["averaged_state_dict"])
            self.steps = self._resumed["averaged_steps"]
            self._resumed = None
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
        # state_dict gives the tensors themselves, so the two lists stay good for the whole run.
        self._averaged: list[Tensor] = [a for a, _ in pairs if a.is_floating_point()]
        self._current: list[Tensor] = [c for _, c in pairs if c.is_floating_point()]
        self._counts = [(a, c) for a, c in pairs if not a.is_floating_point()]

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Moves the average if the optimiser made a step."""
        if not runner.optim_wrapper.should_update():
            return
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps)) if self.warmup else self.decay
        torch._foreach_lerp_(self._averaged, self._current, 1 - decay)
        for averaged, current in self._counts:
            averaged.copy_(current)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Adds the average."""
        if self.model is not None:
            checkpoint["averaged_state_dict"] = self.model.state_dict()
            checkpoint["averaged_steps"] = self.steps


def weight_average(runner: Runner) -> nn.Module | None:
    """The averaged model of a training that keeps one."""
    return next((hook.model for hook in runner.hooks if isinstance(hook, WeightAverageHook)), None)


@HOOKS.register_module()
class SeedHook(Hook):
    """Seeds every step from the run's seed, the step and the process: a resumed run draws the same numbers.

    By step, not by epoch: starting a data loader's workers draws too, which a resumed run does at another epoch.
    """

    def before_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Seeds torch (dropout, stochastic depth), numpy and Python."""
        seed = int(np.random.SeedSequence([runner.seed, runner.iter, get_rank()]).generate_state(1)[0])
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - for components that draw from the global generator
        random.seed(seed)


@HOOKS.register_module()
class PlainBlocksHook(Hook):
    """Tells once, before the first step, which blocks of a TResNet train without the steps that keep little memory."""

    def __init__(self) -> None:
        self.told = False

    def before_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Tells of each reason with the blocks that it holds for; of nothing if there are none."""
        if self.told:
            return
        self.told = True
        for name, network in bare(runner.model).named_modules():
            if not isinstance(network, TResNet):
                continue
            blocks = network.plain_blocks()
            for reason in dict.fromkeys(blocks.values()):
                ours = [block for block, other in blocks.items() if other == reason]
                others = f" and {len(ours) - 1} more" if len(ours) > 1 else ""
                tell(f"{name}.{ours[0]}{others}: same results with more memory than needed, since {reason}")


@HOOKS.register_module()
class StopHook(Hook):
    """Ends training before the schedule does, as the ASL release: 41 epochs of a schedule of 80.

    Args:
        epoch: the last epoch to train; None for the whole schedule.
    """

    priority = "HIGH"

    def __init__(self, epoch: int | None = None) -> None:
        self.epoch = epoch
        self.stopped: int | None = None

    def before_train(self, runner: Runner) -> None:
        """Trains nothing if the run that is resumed had come that far."""
        runner.train_loop.stop_training = self.epoch is not None and runner.epoch >= self.epoch
        if runner.train_loop.stop_training and runner.epoch < runner.max_epochs:
            tell(f"nothing is left to train: stop_epoch={self.epoch}, and the run has come to epoch {runner.epoch}")

    def after_train_epoch(self, runner: Runner) -> None:
        """Tells the loop that this epoch was the last."""
        if self.epoch is not None and runner.epoch + 1 >= self.epoch:
            runner.train_loop.stop_training = True
            self.stopped = self.epoch

    def after_train(self, runner: Runner) -> None:
        """Says that the training ended early."""
        if self.stopped is not None and self.stopped < runner.max_epochs:
            tell(f"stopped after epoch {self.stopped} of {runner.max_epochs}, as stop_epoch says")


@HOOKS.register_module()
class ProgressHook(Hook):
    """A bar with the time left on a terminal, and one line for each epoch.

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
        self.started: float | None = None

    def before_train(self, runner: Runner) -> None:
        """Shows the bar."""
        self.epochs = self._last_epoch(runner)
        self._open(runner.iter, self.epochs * len(runner.train_dataloader))

    def before_train_epoch(self, runner: Runner) -> None:
        """Starts the epoch's account."""
        self.started, self.losses, self.images, self.skipped = time.perf_counter(), 0.0, 0, 0

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
        count = len(data_batch["inputs"])
        self.losses += torch.as_tensor(outputs[self.loss_key]).item() * count
        self.images += count
        self.skipped += int(data_batch["skipped"].sum()) if "skipped" in data_batch else 0
        self._move(f"epoch {runner.epoch + 1}/{self.epochs}  {self.loss_name} {self.losses / self.images:.4g}")

    def before_val_epoch(self, runner: Runner) -> None:
        """Shows a bar for an evaluation that stands by itself."""
        if self.bar is None:
            self._open(0, len(runner.val_dataloader))

    def after_val_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Moves that bar."""
        if runner._train_loop is None or isinstance(runner._train_loop, dict):
            self._move("scoring")

    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        """Prints the epoch's line."""
        if runner._train_loop is None or isinstance(runner._train_loop, dict) or not metrics:
            return
        if self.started is None:  # resumed where the validation was cut
            self.console.print(f"epoch {runner.epoch}/{self._last_epoch(runner)}: {self.scores_text(metrics)}")
        else:
            self._print(runner.epoch, f", {self.scores_text(metrics)}")

    def scores_text(self, metrics: Mapping[str, Any]) -> str:
        """What the epoch's line says of its scores."""
        # By the score's name, what each set of weights has; a metric of the user's may have one for all.
        scores: dict[str, list[str]] = {"mAP": []}
        for name, value in metrics.items():
            weights, _, score = name.rpartition("/")
            if isinstance(value, Real) and (weights or name != "mAP"):
                scores.setdefault(score, []).append(f"{weights} {float(value):.2f}".strip())
        return "val " + ", ".join(f"{name}: {', '.join(values)}" for name, values in scores.items())

    def before_test_epoch(self, runner: Runner) -> None:
        """Shows a bar for a test."""
        self._open(0, len(runner.test_dataloader))

    def after_test_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Moves that bar."""
        self._move("scoring")

    def after_train_epoch(self, runner: Runner) -> None:
        """Prints the line of an epoch that no validation follows."""
        epoch = runner.epoch + 1
        if epoch % runner.val_interval and epoch != self.epochs:
            self._print(epoch, "")

    def _last_epoch(self, runner: Runner) -> int:
        stop = next((hook.epoch for hook in runner.hooks if isinstance(hook, StopHook)), None)
        return min(runner.max_epochs, stop or runner.max_epochs)

    def _print(self, epoch: int, scores: str) -> None:
        assert self.started is not None
        seconds = time.perf_counter() - self.started
        all_reduce(total := torch.tensor(self.skipped))
        skipped = f", {total.item()} bad images skipped" if total else ""
        # None where a resumed run first validates the epoch that the run before had trained.
        loss = f"{self.loss_name} {self.losses / self.images:.4g}" if self.images else "validated"
        self.console.print(f"epoch {epoch}/{self.epochs}: {loss}{scores}, {seconds:.0f} s{skipped}")

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
