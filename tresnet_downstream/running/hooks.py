"""Hooks of every training: weight averaging, seeds, notices, early end."""

import copy
import random

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
from tresnet_downstream.running.resumed_state import Checkpoint
from tresnet_downstream.weights.reading import unwrap


@HOOKS.register_module()
class WeightAverageHook(Hook):
    """An exponential moving average of weights and buffers, updated after each optimiser step, as in the ASL release.

    Raw and averaged weights are both validated and stored.

    Args:
        decay: weight of the old average at each step, from 0 to below 1.
        warmup: if True, the decay is at most ``(1 + step) / (10 + step)``, for runs with few steps.
    """

    priority = "ABOVE_NORMAL"

    def __init__(self, decay: float = 0.9997, warmup: bool = False) -> None:
        if not 0 <= decay < 1:
            raise UserError(f"WeightAverageHook: decay={decay!r} is not from 0 to below 1")
        self.decay, self.warmup = decay, warmup
        self.model: nn.Module | None = None
        self.steps = 0
        self._resumed: Checkpoint | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: Checkpoint) -> None:
        """Keeps the averaged weights of a resumed run for :meth:`before_train`."""
        unwrap(checkpoint, "averaged", runner._load_from)  # raises UserError if there are none
        self._resumed = checkpoint

    def before_train(self, runner: Runner) -> None:
        """Starts the average at the current weights, or restores it from the resumed checkpoint."""
        model = bare(runner.model)
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        if self._resumed is not None:
            self.model.load_state_dict(self._resumed["averaged_state_dict"])
            self.steps = self._resumed["averaged_steps"]
            self._resumed = None
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
        # state_dict returns the tensors themselves, so the lists are valid for the whole run.
        self._averaged: list[Tensor] = [a for a, _ in pairs if a.is_floating_point()]
        self._current: list[Tensor] = [c for _, c in pairs if c.is_floating_point()]
        self._counts = [(a, c) for a, c in pairs if not a.is_floating_point()]

    def after_train_iter(self, runner: Runner, *_: object, **__: object) -> None:
        """Updates the average if the optimiser made a step."""
        if not runner.optim_wrapper.should_update():
            return
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps)) if self.warmup else self.decay
        torch._foreach_lerp_(self._averaged, self._current, 1 - decay)
        for averaged, current in self._counts:
            averaged.copy_(current)

    def before_save_checkpoint(self, runner: Runner, checkpoint: Checkpoint) -> None:
        """Adds the averaged weights to the checkpoint."""
        if self.model is not None:
            checkpoint["averaged_state_dict"] = self.model.state_dict()
            checkpoint["averaged_steps"] = self.steps


def weight_average(runner: Runner) -> nn.Module | None:
    """The model with averaged weights; None if the training does not average them."""
    return next((hook.model for hook in runner.hooks if isinstance(hook, WeightAverageHook)), None)


@HOOKS.register_module()
class SeedHook(Hook):
    """Seeds every step from the run's seed, the step and the rank, so a resumed run draws the same random numbers.

    Seeding once per epoch would not be enough: starting the workers of a data loader draws random numbers, and a
    resumed run starts them in another epoch.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        """Seeds for the epoch's first step, because a loader without workers prepares the first batch before it."""
        self.before_train_iter(runner)

    def before_next_batch(self, runner: Runner) -> None:
        """Seeds before the next batch is prepared, so a run that is resumed within the epoch prepares the same one."""
        self.before_train_iter(runner)

    def before_train_iter(self, runner: Runner, *_: object, **__: object) -> None:
        """Seeds torch (dropout, stochastic depth), numpy and Python."""
        seed = int(np.random.SeedSequence([runner.seed, runner.iter, get_rank()]).generate_state(1)[0])
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - for components that draw from the global generator
        random.seed(seed)


@HOOKS.register_module()
class PlainBlocksHook(Hook):
    """Prints once, before the first step, which blocks of a TResNet train without the memory-saving implementation."""

    def __init__(self) -> None:
        self.is_done = False

    def before_train_iter(self, runner: Runner, *_: object, **__: object) -> None:
        """Prints a line for each reason, with the blocks that it concerns."""
        if self.is_done:
            return
        self.is_done = True
        for name, network in bare(runner.model).named_modules():
            if not isinstance(network, TResNet):
                continue
            blocks = network.plain_blocks()
            for reason in dict.fromkeys(blocks.values()):
                affected = [block for block, other in blocks.items() if other == reason]
                others = f" and {len(affected) - 1} more" if len(affected) > 1 else ""
                tell(
                    f"note: {name}.{affected[0]}{others}: no memory-saving implementation (same results, more memory), "
                    f"because {reason}"
                )


@HOOKS.register_module()
class StopHook(Hook):
    """Ends the training before its schedule ends. The ASL release trains 41 epochs of an 80-epoch schedule.

    Args:
        epoch: the last epoch to train; None trains the whole schedule.
    """

    priority = "HIGH"

    def __init__(self, epoch: int | None = None) -> None:
        self.epoch = epoch
        self.stopped: int | None = None

    def before_train(self, runner: Runner) -> None:
        """Trains nothing if the resumed run has already reached that epoch."""
        runner.train_loop.stop_training = self.epoch is not None and runner.epoch >= self.epoch
        if runner.train_loop.stop_training and runner.epoch < runner.max_epochs:
            tell(f"nothing is left to train: stop_epoch={self.epoch}, and the run has reached epoch {runner.epoch}")

    def after_train_epoch(self, runner: Runner) -> None:
        """Stops the loop after the last epoch."""
        if self.epoch is not None and runner.epoch + 1 >= self.epoch:
            runner.train_loop.stop_training = True
            self.stopped = self.epoch

    def after_train(self, runner: Runner) -> None:
        """Prints that the training ended before its schedule."""
        if self.stopped is not None and self.stopped < runner.max_epochs:
            tell(f"stopped after epoch {self.stopped} of {runner.max_epochs}, because of stop_epoch")
