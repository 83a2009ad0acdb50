"""Validations of a training: what was validated last, and the same running statistics in every process."""

from typing import Any

import torch.distributed as dist
from mmengine.dist import broadcast_object_list, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner
from torch import nn

from tresnet_downstream.notices import tell
from tresnet_downstream.registry import HOOKS
from tresnet_downstream.running import folders
from tresnet_downstream.running.checkpoints import bare, plain
from tresnet_downstream.running.early_stopping import validated_so_far
from tresnet_downstream.running.loops import TrainLoop, training_loop, validation_is_due
from tresnet_downstream.running.mid_epoch import accounts
from tresnet_downstream.running.progress import position

# What MMEngine's CheckpointHook knows of the best checkpoint.
BEST = ("best_score", "best_ckpt")


@HOOKS.register_module()
class LastValidationHook(Hook):
    """Notes each validation in the run's folder; a resumed training first makes up for one that was cut.

    Several processes score with the first one's running statistics; without ``norm='sync'`` each has its own.

    The checkpoint that a run is resumed from is written before its validation, and does not know of it.
    """

    priority = "LOWEST"

    def before_train(self, runner: Runner) -> None:
        """Validates what a resumed checkpoint lacks."""
        loop = runner.train_loop
        if loop.iter == 0 or runner.val_loop is None:
            return
        notes = [folders.last_validation(runner.work_dir)]
        broadcast_object_list(notes)  # the other processes may see another disk
        if _is_validated(notes[0], loop):
            if isinstance(loop, TrainLoop):
                loop.validated_iter = loop.iter
            if validation_is_due(loop):  # it came after the checkpoint, and its line has told the losses before it
                for account in accounts(runner).values():
                    account.open()
        elif validation_is_due(loop):
            tell(f"{position(runner)} has not been validated, so it is now")
            if isinstance(loop, TrainLoop):
                loop.validate()
            else:
                runner.val_loop.run()

    def before_val_epoch(self, runner: Runner) -> None:
        """Lets every process score with the running statistics that the checkpoint has."""
        if training_loop(runner) is not None:
            share_buffers(bare(runner.model))

    def after_val_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Ends the validation of a training where a signal arrived."""
        loop = training_loop(runner)
        if isinstance(loop, TrainLoop):
            loop.checkpoints.in_validation(loop)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        """Notes where the training stands, and the best checkpoint so far."""
        loop = training_loop(runner)
        if loop is None or not is_main_process():
            return
        info = runner.message_hub.runtime_info
        note = {"iter": loop.iter, **{key: plain(info[key]) for key in BEST if key in info}}
        note |= validated_so_far(runner)
        if isinstance(loop, TrainLoop) and not loop.within_epoch:
            note["epoch"] = loop.epoch
        folders.write_validation(runner.work_dir, note)


def share_buffers(model: nn.Module) -> None:
    """Gives every process the first one's running statistics, which are those that checkpoints hold."""
    if get_world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def _is_validated(note: dict[str, Any], loop: BaseLoop) -> bool:
    """Whether a note is of a validation where the loop stands, or later."""
    if isinstance(loop, TrainLoop) and loop.val_steps is None:
        # Not by batches: their number changes with the batch size.
        return bool(note.get("epoch", 0) >= loop.epoch)
    return bool(note.get("iter", 0) >= loop.iter)
