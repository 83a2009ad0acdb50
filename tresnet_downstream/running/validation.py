"""Validations of a training: the record of the last one, and equal running statistics in all processes."""

from typing import Literal

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

# The keys by which MMEngine's CheckpointHook stores the best checkpoint.
BEST: tuple[Literal["best_score", "best_ckpt"], ...] = ("best_score", "best_ckpt")


@HOOKS.register_module()
class LastValidationHook(Hook):
    """Records each validation in the run folder. A resumed training first repeats a validation that was interrupted.

    The record is needed because a checkpoint is written before its validation. With several processes, all of them
    score with the running statistics of the first one; without ``norm='sync'`` each process has its own.
    """

    priority = "LOWEST"

    def before_train(self, runner: Runner) -> None:
        """Validates the resumed checkpoint if its validation is missing."""
        loop = runner.train_loop
        if loop.iter == 0 or runner.val_loop is None:
            return
        notes = [folders.last_validation(runner.work_dir)]
        broadcast_object_list(notes)  # the other processes may see another disk
        if _is_validated(notes[0], loop):
            if isinstance(loop, TrainLoop):
                loop.validated_iter = loop.iter
            if validation_is_due(loop):  # its line, printed after the checkpoint, has shown the losses before it
                for account in accounts(runner).values():
                    account.open()
        elif validation_is_due(loop):
            tell(f"{position(runner)} has not been validated; validating it now")
            if isinstance(loop, TrainLoop):
                loop.validate()
            else:
                runner.val_loop.run()

    def before_val_epoch(self, runner: Runner) -> None:
        """Gives every process the running statistics that the checkpoint holds."""
        if training_loop(runner) is not None:
            share_buffers(bare(runner.model))

    def after_val_iter(self, runner: Runner, *_: object, **__: object) -> None:
        """Ends the validation of a training if a signal arrived."""
        loop = training_loop(runner)
        if isinstance(loop, TrainLoop):
            loop.checkpoints.in_validation(loop)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Records the position of the training, and the best checkpoint so far."""
        loop = training_loop(runner)
        if loop is None or not is_main_process():
            return
        info = runner.message_hub.runtime_info
        note: dict[str, object] = {"iter": loop.iter, **{key: plain(info[key]) for key in BEST if key in info}}
        note |= validated_so_far(runner)
        if isinstance(loop, TrainLoop) and not loop.within_epoch:
            note["epoch"] = loop.epoch
        folders.write_validation(runner.work_dir, note)


def share_buffers(model: nn.Module) -> None:
    """Copies the buffers of the first process, which checkpoints hold, to all processes."""
    if get_world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def _is_validated(note: folders.LastValidation, loop: BaseLoop) -> bool:
    """Whether a record is of a validation at the loop's position or later."""
    if isinstance(loop, TrainLoop) and loop.val_steps is None:
        # Epochs are compared, because the number of batches depends on the batch size.
        return bool(note.get("epoch", 0) >= loop.epoch)
    return bool(note.get("iter", 0) >= loop.iter)
