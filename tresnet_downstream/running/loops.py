"""The training loop of every task, which validates after epochs or every ``val_steps`` optimiser steps."""

import bisect
from collections.abc import Mapping

from mmengine.config import Config
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from tresnet_downstream.errors import UserError
from tresnet_downstream.notices import tell
from tresnet_downstream.registry import LOOPS
from tresnet_downstream.running.freezing import freeze_settings, freezing_of
from tresnet_downstream.running.mid_epoch import leave_out, mid_epoch_checkpoints, sums_of_accounts
from tresnet_downstream.running.optimisation import optimizer_steps

# Names of MMEngine's loop over epochs and of `TrainLoop`, which replaces it.
EPOCH_LOOPS = ("EpochBasedTrainLoop", "mmengine.EpochBasedTrainLoop", "TrainLoop", "tresnet_downstream.TrainLoop")


@LOOPS.register_module()
class TrainLoop(EpochBasedTrainLoop):
    """MMEngine's loop over epochs, which can also validate every ``val_steps`` optimiser steps.

    The schedule of validations depends only on the number of batches trained, so a resumed run validates at the same
    steps. Differences from MMEngine: a training that ends between two validations is validated at its end; with
    ``val_steps``, a training that a validation stops ends at once, with a checkpoint within the epoch.

    Args:
        runner: the runner.
        dataloader: the data loader, or its config.
        max_epochs: number of epochs.
        val_steps: optimiser steps between validations, counted over epochs; None validates after epochs.
        **kwargs: see MMEngine: ``val_begin``, the first epoch with a validation; ``val_interval`` and
            ``dynamic_intervals``, which have no effect with ``val_steps``.

    Attributes:
        within_epoch: whether an epoch has begun and is not complete.
        stop_is_reported: whether the hook that stopped the training has printed a line about it.
        validated_iter: number of batches trained before the last validation; -1 before the first one.
        accounts: sums of the hooks' accounts at the end of the epoch, for its checkpoint.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader[object] | dict[str, object],
        max_epochs: int,
        val_steps: int | None = None,
        **kwargs: object,
    ) -> None:
        super().__init__(runner, dataloader, max_epochs, **kwargs)
        self.val_steps = val_steps
        self.within_epoch = False
        self.validated_iter = -1
        self.stop_is_reported = False
        self.accounts: dict[str, list[float]] = {}
        self.checkpoints = mid_epoch_checkpoints(runner.cfg)
        self.freezing = freezing_of(runner)
        if val_steps is not None and (self.val_interval != 1 or kwargs.get("dynamic_intervals")):
            tell(f"val_steps={val_steps} replaces the intervals between validations in train_cfg")

    @property
    def step(self) -> int:
        """Number of optimiser steps done."""
        return self.steps_after(self._iter)

    @property
    def current_epoch(self) -> int:
        """Number of the epoch of the last batch, from 1; 0 before the first batch."""
        return int(self._epoch) + int(self.within_epoch)

    @property
    def batches_of_epoch(self) -> int:
        """Number of batches trained in the current, incomplete epoch."""
        return max(int(self._iter) - int(self._epoch) * len(self.dataloader), 0)

    def steps_after(self, batches: int) -> int:
        """Number of optimiser steps in the first ``batches`` batches of the training."""
        return optimizer_steps(self.runner.optim_wrapper, batches, self.max_iters)

    def run(self) -> nn.Module:
        """Trains from the current position to the end."""
        self.within_epoch = self.batches_of_epoch > 0
        self.runner.call_hook("before_train")
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._decide_current_val_interval()
            if self.validates_after_epoch(self._epoch):
                self.validate()
        if self._iter > 0 and self.validated_iter != self._iter and self._may_validate():
            self.validate()
        self.runner.call_hook("after_train")
        model: nn.Module = self.runner.model
        return model

    def run_epoch(self) -> None:
        """Trains an epoch, or up to the validation that stops the training."""
        done, self.accounts = self.batches_of_epoch, {}
        self.freezing.begin_epoch(self.runner, self._epoch)
        self.runner.call_hook("before_train_epoch")
        self.within_epoch = True
        self.freezing.train(self.runner)
        if done:
            leave_out(self.dataloader, done)
        for number, batch in enumerate(self.dataloader, start=done + 1):
            self.run_iter(number - 1, batch)
            self.between_batches()
            if self._stopped_by_validation() and number < len(self.dataloader):
                return
        if self.runner.val_loop is not None:
            self.accounts = sums_of_accounts(self.runner)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1
        self.within_epoch = False

    def between_batches(self) -> None:
        """After a batch that completes an optimiser step: validates and writes a checkpoint if they are due."""
        if self.steps_after(self._iter) > self.steps_after(self._iter - 1):
            if self.validates_after_batch(self._iter):
                self.checkpoints.before_validation(self)
                self.validate()
                self.freezing.train(self.runner)
            self.checkpoints.after_step(self)
        self.runner.call_hook("before_next_batch")

    def validate(self) -> None:
        """Validates the model; if the validation stops the training, writes a checkpoint."""
        goes_on = not self.stop_training
        self.runner.val_loop.run()
        self.validated_iter = self._iter
        if goes_on and self.stop_training:
            self.checkpoints.write(self)
            if not self.stop_is_reported and self._iter < self.max_iters:  # MMEngine's hooks write to the log file only
                place = f"epoch {self.current_epoch}" if self.val_steps is None else f"step {self.step}"
                tell(f"a hook stopped the training after the validation at {place}")

    def validates_after_epoch(self, epoch: int) -> bool:
        """Whether a validation follows this epoch, counted from 1; always False with ``val_steps``."""
        if self.val_steps is not None or self.runner.val_loop is None or epoch < self.val_begin:
            return False
        interval = self.dynamic_intervals[bisect.bisect(self.dynamic_milestones, epoch + 1) - 1]
        return bool(epoch % interval == 0 or epoch == self._max_epochs)

    def validates_after_batch(self, batches: int) -> bool:
        """Whether the last of the first ``batches`` batches completes a step that a validation follows."""
        if self.val_steps is None or not self._may_validate():
            return False
        steps = self.steps_after(batches)
        return steps > self.steps_after(batches - 1) and steps % self.val_steps == 0

    def validation_is_due(self) -> bool:
        """Whether an uninterrupted training would have validated at the current position.

        A validation at a step comes before the checkpoint of its epoch, except the one at the end of the training.
        """
        if self.within_epoch:
            return self.validates_after_batch(self._iter)
        if self.val_steps is None:
            return self.validates_after_epoch(self._epoch)
        return self._epoch >= self._max_epochs and self._may_validate()

    def _may_validate(self) -> bool:
        return self.runner.val_loop is not None and self.current_epoch >= self.val_begin

    def _stopped_by_validation(self) -> bool:
        return self.val_steps is not None and self.stop_training and self.validated_iter == self._iter


def loop_config(train_cfg: Mapping[str, object], val_steps: int | None) -> dict[str, object]:
    """The config of a training loop, with :class:`TrainLoop` instead of MMEngine's loop over epochs.

    Examples:
        >>> loop_config({"by_epoch": True, "max_epochs": 2}, val_steps=100)
        {'max_epochs': 2, 'type': 'tresnet_downstream.TrainLoop', 'val_steps': 100}
    """
    config = dict(train_cfg)
    if config.get("type") in EPOCH_LOOPS or ("type" not in config and config.get("by_epoch")):
        config.pop("by_epoch", None)
        config.update(type="tresnet_downstream.TrainLoop", val_steps=val_steps)
    return config


def check_step_settings(config: Config) -> None:
    """Checks ``val_steps``, ``checkpoint_steps``, ``checkpoint_minutes`` and ``freeze`` before a training.

    Raises:
        UserError: if a value is invalid, or the config's loop or data do not support it.
    """
    steps, train_cfg = config.get("val_steps"), config.get("train_cfg") or {}
    mid_epoch_checkpoints(config)  # checks its two settings
    if "val_steps" not in loop_config(train_cfg, None):
        if freeze_settings(config):
            raise UserError(
                "freeze: counts epochs, but the config trains by iterations; use the model's own arguments, such as "
                "frozen_stages"
            )
        for key in ("checkpoint_steps", "checkpoint_minutes"):
            if config.get(key) is not None:
                kind = train_cfg.get("type", "IterBasedTrainLoop")
                raise UserError(f"{key}: needs a loop over epochs; with {kind}, set default_hooks.checkpoint.interval")
    if steps is None:
        return
    if type(steps) is not int or steps < 1:
        raise UserError(
            f"val_steps={steps!r}: give a whole number of optimiser steps, at least 1, or None to validate after epochs"
        )
    if "val_steps" not in loop_config(train_cfg, steps):
        kind = train_cfg.get("type", "IterBasedTrainLoop")
        raise UserError(f"val_steps: needs a loop over epochs; with {kind}, set train_cfg.val_interval instead")
    if lacking := [key for key in ("val_dataloader", "val_evaluator", "val_cfg") if not config.get(key)]:
        raise UserError(
            f"val_steps={steps}: the config does not validate, because it has no {', '.join(lacking)}; add it"
        )


def training_loop(runner: Runner) -> BaseLoop | None:
    """The training loop of a runner; None if the runner only validates or tests."""
    loop = runner._train_loop
    return loop if isinstance(loop, BaseLoop) else None


def validation_is_due(loop: BaseLoop) -> bool:
    """Whether an uninterrupted training would have validated at the loop's position before the next batch."""
    if isinstance(loop, TrainLoop):
        return loop.validation_is_due()
    if not isinstance(loop, IterBasedTrainLoop) or loop.runner.val_loop is None:
        return False
    interval = loop.dynamic_intervals[bisect.bisect(loop.dynamic_milestones, loop.iter + 1) - 1]
    return bool(loop.iter >= loop.val_begin and (loop.iter % interval == 0 or loop.iter == loop.max_iters))
