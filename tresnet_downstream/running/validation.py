"""What was validated last, so that a training that was cut in a validation makes up for it when resumed."""

from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner

from tresnet_downstream.notices import tell
from tresnet_downstream.registry import HOOKS
from tresnet_downstream.running import folders
from tresnet_downstream.running.checkpoints import plain
from tresnet_downstream.running.loops import TrainLoop, training_loop, validation_is_due
from tresnet_downstream.running.progress import position

# What MMEngine's CheckpointHook knows of the best checkpoint.
BEST = ("best_score", "best_ckpt")


@HOOKS.register_module()
class LastValidationHook(Hook):
    """Notes each validation in the run's folder; a resumed training first makes up for one that was cut.

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
        elif validation_is_due(loop):
            tell(f"{position(runner)} has not been validated, so it is now")
            if isinstance(loop, TrainLoop):
                loop.validate()
            else:
                runner.val_loop.run()

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
        if isinstance(loop, TrainLoop) and not loop.within_epoch:
            note["epoch"] = loop.epoch
        folders.write_validation(runner.work_dir, note)


def _is_validated(note: dict[str, Any], loop: BaseLoop) -> bool:
    """Whether a note is of a validation where the loop stands, or later."""
    if isinstance(loop, TrainLoop) and loop.val_steps is None:
        # Not by batches: their number changes with the batch size.
        return bool(note.get("epoch", 0) >= loop.epoch)
    return bool(note.get("iter", 0) >= loop.iter)
