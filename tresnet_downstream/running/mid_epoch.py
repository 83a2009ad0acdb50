"""Checkpoints within epochs: every N steps or minutes, and when a signal ends the training.

``epoch_3_step_70.pth`` was written within epoch 3, after 70 optimiser steps of the training. A run that is resumed from
it continues with the next batch of that epoch, and its result equals that of an uninterrupted run.
"""

import signal
import time
from collections.abc import Iterator, Mapping, Sequence, Sized
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from mmengine.config import Config
from mmengine.dist import all_reduce, barrier, broadcast_object_list, get_world_size, is_main_process
from mmengine.hooks import EMAHook
from mmengine.runner import Runner
from torch.utils.data import BatchSampler, DataLoader

from tresnet_downstream.errors import UserError
from tresnet_downstream.notices import tell
from tresnet_downstream.running import folders, signals
from tresnet_downstream.running.resumed_state import CheckpointMeta

# Number of steps between agreements of the processes; on a GPU, each agreement waits for the device.
AGREEMENT_INTERVAL = 5
# Settings that determine the images of a batch, and the batches of a step.
_CUT_EPOCHS = (
    *("batch_size", "processes", "training images", "accumulation"),
    *("sampling", "repeat_threshold", "training labels"),
)


class HasSums(Protocol):
    """An account of a training, such as :class:`~tresnet_downstream.running.progress.Account`."""

    def open(self) -> None:
        """Resets all sums to zero."""

    def sums(self) -> list[float]:
        """The sums over all processes. Every process must call this."""


class Batches(Protocol):
    """A batch sampler: the numbers of the images of each batch."""

    def __iter__(self) -> Iterator[Sequence[int]]: ...

    def __len__(self) -> int: ...


class StepLoop(Protocol):
    """The position of a training loop, as :class:`~tresnet_downstream.running.loops.TrainLoop` provides it.

    Attributes:
        runner: the runner of the loop.
        dataloader: the data loader of the training.
    """

    runner: Runner
    dataloader: Sized

    @property
    def step(self) -> int:
        """Number of optimiser steps done."""

    @property
    def iter(self) -> int:
        """Number of batches trained."""

    @property
    def epoch(self) -> int:
        """Number of complete epochs."""

    @property
    def current_epoch(self) -> int:
        """Number of the epoch of the last batch, from 1."""

    @property
    def within_epoch(self) -> bool:
        """Whether an epoch has begun and is not complete."""


class MidEpochCheckpoints:
    """Decides after each step whether to write a checkpoint and whether to end the training.

    Args:
        steps: optimiser steps between checkpoints; None for none.
        minutes: minutes between checkpoints; None for none.
    """

    def __init__(self, steps: int | None = None, minutes: float | None = None) -> None:
        self.steps, self.minutes = steps, minutes
        self.written = time.monotonic()

    def after_step(self, loop: StepLoop) -> None:
        """Writes a checkpoint if one is due. Every process must call this after each optimiser step.

        Raises:
            TrainingStopped: if a signal arrived, after the checkpoint was written.
        """
        number, time_is_up = self._agreed(loop.step)
        if number or time_is_up or (self.steps is not None and loop.step % self.steps == 0):
            self.write(loop)
        if number:
            self.stop(loop, number)

    def before_validation(self, loop: StepLoop) -> None:
        """Writes a checkpoint if there is none yet, so a run with a best checkpoint can always be resumed."""
        is_missing = [folders.last_checkpoint(loop.runner.work_dir) is None]
        broadcast_object_list(is_missing)  # the other processes may see another disk
        if is_missing[0]:
            self.write(loop)

    def in_validation(self, loop: StepLoop) -> None:
        """Ends a validation if a signal arrived; a resumed run validates again.

        With several processes the validation is completed first, because they may have different numbers of batches.

        Raises:
            TrainingStopped: if a signal arrived, after the checkpoint was written.
        """
        if get_world_size() > 1 or not (number := signals.received()):
            return
        for hook in loop.runner.hooks:
            if isinstance(hook, EMAHook):
                hook.after_val_epoch(loop.runner)  # swaps the raw weights back in: a validation uses averaged ones
        self.write(loop)
        self.stop(loop, number)

    def write(self, loop: StepLoop) -> None:
        """Writes a checkpoint of the loop's position, unless it exists."""
        self.written = time.monotonic()
        folder = Path(loop.runner.work_dir)
        step = f"_step_{loop.step}" if loop.within_epoch else ""
        name = f"epoch_{loop.current_epoch}{step}.pth"
        accounts = sums_of_accounts(loop.runner)
        if not is_main_process() or (folders.last_checkpoint(folder) == folder / name and (folder / name).is_file()):
            return
        meta = {"epoch": loop.epoch, "iter": loop.iter, "epoch_length": len(loop.dataloader), "accounts": accounts}
        loop.runner.save_checkpoint(str(folder), name, meta=meta, by_epoch=False)
        folders.point_to(folder, name)
        folders.remove_within_epochs(folder, name)

    def stop(self, loop: StepLoop, number: int) -> None:
        """Prints where the training ends, and raises TrainingStopped in all processes once the checkpoint exists."""
        barrier()  # torchrun ends the other processes as soon as one has ended
        newest = folders.last_checkpoint(loop.runner.work_dir)
        name = "" if newest is None else f"; `resume` continues from {newest.name}"
        tell(f"stopped by {signal.Signals(number).name} after step {loop.step}{name}")
        raise signals.TrainingStopped(number)

    def _agreed(self, step: int) -> tuple[int, bool]:
        """The signal that any process received, and whether a checkpoint is due by time; equal in all processes."""
        time_is_up = self.minutes is not None and time.monotonic() - self.written >= 60 * self.minutes
        number = signals.received()
        if get_world_size() == 1:
            return number, time_is_up
        if step % AGREEMENT_INTERVAL:
            return 0, False
        all_reduce(values := torch.tensor([number, int(time_is_up)]), "max")
        return int(values[0]), bool(values[1])


def accounts(runner: Runner) -> dict[str, HasSums]:
    """The attributes ``account`` of the runner's hooks, by the class name of the hook."""
    # A user's hook may use the name `account` for something else.
    hooks = [hook for hook in runner.hooks if hasattr(getattr(hook, "account", None), "sums")]
    return {type(hook).__name__: hook.account for hook in hooks}


def sums_of_accounts(runner: Runner) -> dict[str, list[float]]:
    """The sums of the accounts over all processes, for checkpoints. Every process must call this."""
    return {name: account.sums() for name, account in accounts(runner).items()}


def batches_stay(dataloader: DataLoader[object], before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether the global batches stay the same although the number of processes changes.

    Args:
        dataloader: the data loader of the training.
        before: the free settings of the checkpoint, from :func:`~tresnet_downstream.running.resuming.run_settings`.
        now: the free settings of the config.
    """
    deals_in_turn = getattr(dataloader.sampler, "deals_in_turn", False)
    sizes = [(each.get("batch_size") or 0) * (each.get("processes") or 0) for each in (before, now)]
    # Other batch samplers, such as one that groups images by shape, see the images of one process only.
    return deals_in_turn and type(dataloader.batch_sampler) is BatchSampler and sizes[0] == sizes[1] > 0


def batches_of_epoch(meta: CheckpointMeta, epoch_length: int, changes: Sequence[str], stay: bool = False) -> int:
    """The number of batches of its epoch that a checkpoint was written after; 0 for a checkpoint between epochs.

    Args:
        meta: the key ``meta`` of the checkpoint.
        epoch_length: current number of batches of an epoch.
        changes: descriptions of the config's changes since the checkpoint, each beginning with the setting's name.
        stay: result of :func:`batches_stay`.

    Raises:
        UserError: if a change would give the rest of the epoch other batches.
    """
    if "epoch_length" not in meta:
        return 0
    batches = int(meta["iter"]) - int(meta["epoch"]) * int(meta["epoch_length"])
    if batches == 0:
        return 0
    cut = [name for name in _CUT_EPOCHS if not (stay and name in ("batch_size", "processes"))]
    change = next((each for each in changes if each.startswith(tuple(cut))), None)
    if change is None and epoch_length != meta["epoch_length"]:
        change = f"the number of batches in an epoch was {meta['epoch_length']} and is now {epoch_length}"
    if change is not None:
        raise UserError(
            f"`resume`: {change}: the last checkpoint was written within an epoch, whose batches must not change; "
            "restore the earlier value until the epoch is complete (classifiers may change processes if batch_size "
            "times processes stays the same)"
        )
    return batches


class RemainingBatches:
    """A batch sampler that leaves out the first batches of one epoch, in which a run is resumed.

    Args:
        batch_sampler: the batch sampler of whole epochs.
        first: number of batches that the first epoch leaves out.

    Examples:
        >>> batches = RemainingBatches([[0, 1], [2, 3], [4, 5]], first=2)
        >>> list(batches), list(batches)
        ([[4, 5]], [[0, 1], [2, 3], [4, 5]])
    """

    def __init__(self, batch_sampler: Batches, first: int) -> None:
        self.batch_sampler, self.first = batch_sampler, first

    def __iter__(self) -> Iterator[Sequence[int]]:
        # A generator, so nothing happens before the first batch: with worker processes, torch's loader creates two
        # iterators in its first epoch and uses the second.
        first, self.first = self.first, 0
        yield from islice(iter(self.batch_sampler), first, None)

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __getattr__(self, name: str) -> object:
        if name == "batch_sampler":
            raise AttributeError(name)
        return getattr(self.batch_sampler, name)


def leave_out(dataloader: Any, batches: int) -> None:
    """Makes the next epoch of a data loader leave out its first batches, without loading them."""
    # torch forbids replacing the batch sampler of a loader; before its first epoch this is harmless.
    object.__setattr__(dataloader, "batch_sampler", RemainingBatches(dataloader.batch_sampler, batches))


def mid_epoch_checkpoints(config: Config) -> MidEpochCheckpoints:
    """Reads ``checkpoint_steps`` and ``checkpoint_minutes`` of a config.

    Raises:
        UserError: if ``checkpoint_steps`` is neither None nor a whole number of at least 1, or ``checkpoint_minutes``
            is neither None nor a number above 0.
    """
    steps, minutes = config.get("checkpoint_steps"), config.get("checkpoint_minutes")
    if steps is not None and (type(steps) is not int or steps < 1):
        raise UserError(f"checkpoint_steps={steps!r}: give a whole number of optimiser steps, at least 1, or None")
    if minutes is not None and not (type(minutes) in (int, float) and 0 < minutes < float("inf")):
        raise UserError(f"checkpoint_minutes={minutes!r}: give a number of minutes above 0, or None")
    return MidEpochCheckpoints(steps, minutes)
