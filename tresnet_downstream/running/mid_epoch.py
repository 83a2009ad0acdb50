"""Checkpoints within epochs: every so many steps or minutes, and where a signal ends the training.

Such a checkpoint is named ``epoch_3_step_70.pth``: written within epoch 3, after 70 optimiser steps of the training.
A run that is resumed from it goes on with the next batch of that epoch and equals one that was not interrupted.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import all_reduce, barrier, broadcast_object_list, get_world_size, is_main_process
from mmengine.hooks import EMAHook
from mmengine.runner import Runner
from torch.utils.data import BatchSampler

from tresnet_downstream.errors import UserError
from tresnet_downstream.notices import tell
from tresnet_downstream.running import folders, signals

# Processes agree every so many steps, since on a GPU each agreement waits for the device.
AGREEMENT_INTERVAL = 5
# Settings that decide which pictures are in a batch, and which batches in a step.
_CUT_EPOCHS = (
    *("batch_size", "processes", "training pictures", "accumulation"),
    *("sampling", "repeat_threshold", "training labels"),
)


class MidEpochCheckpoints:
    """Decides after each step whether to write a checkpoint, and whether to end the training.

    Args:
        steps: optimiser steps between checkpoints; None for none.
        minutes: minutes between checkpoints; None for none.
    """

    def __init__(self, steps: int | None = None, minutes: float | None = None) -> None:
        self.steps, self.minutes = steps, minutes
        self.written = time.monotonic()

    def after_step(self, loop: Any) -> None:
        """Writes a checkpoint if one is due. Every process must call this after each optimiser step.

        Raises:
            TrainingStopped: if a signal arrived, after the checkpoint was written.
        """
        number, time_is_up = self._agreed(loop.step)
        if number or time_is_up or (self.steps is not None and loop.step % self.steps == 0):
            self.write(loop)
        if number:
            self.stop(loop, number)

    def before_validation(self, loop: Any) -> None:
        """Writes a checkpoint if there is none yet: a run that has a best checkpoint has one to go on from."""
        lacking = [folders.last_checkpoint(loop.runner.work_dir) is None]
        broadcast_object_list(lacking)  # the other processes may see another disk
        if lacking[0]:
            self.write(loop)

    def in_validation(self, loop: Any) -> None:
        """Ends a validation if a signal arrived; the run validates again when it is resumed.

        Several processes end only after the validation, since they may have different numbers of batches there.

        Raises:
            TrainingStopped: after a checkpoint was written, unless the last one is of the same place.
        """
        if get_world_size() > 1 or not (number := signals.received()):
            return
        for hook in loop.runner.hooks:
            if isinstance(hook, EMAHook):
                hook.after_val_epoch(loop.runner)  # while it validates, the average stands in the place of the weights
        self.write(loop)
        self.stop(loop, number)

    def write(self, loop: Any) -> None:
        """Writes a checkpoint of where the loop stands, unless there is one."""
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

    def stop(self, loop: Any, number: int) -> None:
        """Tells where the training ends, and raises TrainingStopped, in all processes once the checkpoint is there."""
        barrier()  # torchrun ends the others as soon as one has left
        newest = folders.last_checkpoint(loop.runner.work_dir)
        name = "" if newest is None else f"; `resume` goes on from {newest.name}"
        tell(f"stopped by {signals.signal.Signals(number).name} after step {loop.step}{name}")
        raise signals.TrainingStopped(number)

    def _agreed(self, step: int) -> tuple[int, bool]:
        """The signal that a process received, and whether the time is up: the same in all processes."""
        time_is_up = self.minutes is not None and time.monotonic() - self.written >= 60 * self.minutes
        number = signals.received()
        if get_world_size() == 1:
            return number, time_is_up
        if step % AGREEMENT_INTERVAL:
            return 0, False
        all_reduce(values := torch.tensor([number, int(time_is_up)]), "max")
        return int(values[0]), bool(values[1])


def accounts(runner: Runner) -> dict[str, Any]:
    """The accounts of the training that hooks keep, by the name of the hook's class."""
    # A hook of the user's may have another thing of that name.
    hooks: list[Any] = [hook for hook in runner.hooks if hasattr(getattr(hook, "account", None), "sums")]
    return {type(hook).__name__: hook.account for hook in hooks}


def sums_of_accounts(runner: Runner) -> dict[str, list[float]]:
    """What checkpoints hold of the accounts: their sums over all processes, each of which must call this."""
    return {name: account.sums() for name, account in accounts(runner).items()}


def batches_stay(dataloader: Any, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether the batches of all processes together stay the same where the number of processes changes.

    Args:
        dataloader: of the training.
        before: the free settings of the checkpoint, from :func:`~tresnet_downstream.running.resuming.run_settings`.
        now: those of the config.
    """
    deals_in_turn = getattr(dataloader.sampler, "deals_in_turn", False)
    sizes = [(each.get("batch_size") or 0) * (each.get("processes") or 0) for each in (before, now)]
    # A batch sampler of another class, such as one that groups images by shape, sees the images of one process.
    return deals_in_turn and type(dataloader.batch_sampler) is BatchSampler and sizes[0] == sizes[1] > 0


def batches_of_epoch(meta: Mapping[str, Any], epoch_length: int, changes: Sequence[str], stay: bool = False) -> int:
    """How many batches of an epoch a checkpoint was written after; 0 for one between epochs.

    Args:
        meta: of the checkpoint.
        epoch_length: number of batches of an epoch now.
        changes: what the config changed since, in words that begin with the setting's name.
        stay: what :func:`batches_stay` says.

    Raises:
        UserError: if the rest of the epoch would have other batches than before.
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
            f"`resume`: {change}: the last checkpoint was written within an epoch, whose batches stay as they are; "
            "keep it until an epoch is complete (classifiers may change processes if batch_size times processes stays)"
        )
    return batches


class RemainingBatches:
    """A batch sampler that leaves out the first batches of the epoch that a run is resumed in.

    Args:
        batch_sampler: gives the batches of an epoch.
        first: how many are left out, once.
    """

    def __init__(self, batch_sampler: Any, first: int) -> None:
        self.batch_sampler, self.first = batch_sampler, first

    def __iter__(self) -> Iterator[Any]:
        # A generator, so that nothing happens before the first batch: torch's loader with worker processes makes two
        # iterators at its first epoch, and uses the second.
        first, self.first = self.first, 0
        yield from islice(iter(self.batch_sampler), first, None)

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __getattr__(self, name: str) -> Any:
        if name == "batch_sampler":
            raise AttributeError(name)
        return getattr(self.batch_sampler, name)


def leave_out(dataloader: Any, batches: int) -> None:
    """Lets the next epoch of a data loader begin after its first batches, which are not loaded."""
    # torch allows no other batch sampler after the loader was made; before its first epoch it makes no difference.
    object.__setattr__(dataloader, "batch_sampler", RemainingBatches(dataloader.batch_sampler, batches))


def mid_epoch_checkpoints(config: Config) -> MidEpochCheckpoints:
    """Reads ``checkpoint_steps`` and ``checkpoint_minutes`` of a config.

    Raises:
        UserError: if one is neither None nor a number above 0; the first takes whole numbers alone.
    """
    steps, minutes = config.get("checkpoint_steps"), config.get("checkpoint_minutes")
    if steps is not None and (type(steps) is not int or steps < 1):
        raise UserError(f"checkpoint_steps={steps!r}: give a whole number of optimiser steps, at least 1, or None")
    if minutes is not None and not (type(minutes) in (int, float) and 0 < minutes < float("inf")):
        raise UserError(f"checkpoint_minutes={minutes!r}: give a number of minutes above 0, or None")
    return MidEpochCheckpoints(steps, minutes)
