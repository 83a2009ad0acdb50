"""What happens around the training steps: weight average, seeds, early end."""

import copy
import random
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner
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

    def before_train_epoch(self, runner: Runner) -> None:
        """Seeds as of the epoch's first step: without workers, the first batch is prepared before that step."""
        self.before_train_iter(runner)

    def before_next_batch(self, runner: Runner) -> None:
        """Seeds before the next batch is prepared, so that a run resumed within an epoch prepares it equally."""
        self.before_train_iter(runner)

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
        self.is_done = False

    def before_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Tells of each reason with the blocks that it holds for; of nothing if there are none."""
        if self.is_done:
            return
        self.is_done = True
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
