"""Writing and checking of checkpoints.

A checkpoint is a dict with the keys ``state_dict`` (the raw weights), ``averaged_state_dict`` (their moving average,
if the config keeps one), ``meta`` (classes, epoch, and in ``meta["model"]`` the task's description of its model) and,
after a validation, ``score``. A checkpoint that a training can resume also has ``optimizer``, ``param_schedulers`` and
the text of the config. All values are tensors and plain Python values, so ``torch.load(weights_only=True)`` reads it.
"""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from tresnet_downstream.errors import NonFiniteLossError, UserError
from tresnet_downstream.files import whole_file
from tresnet_downstream.notices import tell
from tresnet_downstream.registry import HOOKS
from tresnet_downstream.running import folders
from tresnet_downstream.running.early_stopping import BestScore
from tresnet_downstream.running.loops import TrainLoop, training_loop
from tresnet_downstream.running.resumed_state import Checkpoint
from tresnet_downstream.weights import schemes  # noqa: F401 - MMEngine's loaders, safe
from tresnet_downstream.weights.integrity import first_not_finite, require_usable
from tresnet_downstream.weights.pretrained import require_match
from tresnet_downstream.weights.reading import class_names, read_checkpoint, unwrap


def _shown(name: str | None) -> str:
    return "missing" if name is None else repr(name)


def require_classes(checkpoint: Mapping[str, object], classes: Sequence[str], path: str | Path) -> None:
    """Raises UserError if the checkpoint names its classes and they differ from these, or are in another order."""
    trained = class_names(checkpoint, path) or classes
    for place, (trained_name, name) in enumerate(zip_longest(trained, classes)):
        if trained_name != name:
            raise UserError(
                f"{path}: was trained on other classes than the data has: class {place} is {_shown(trained_name)} in "
                f"the checkpoint and {_shown(name)} in the data; use the classes of the checkpoint, in its order"
            )


def require_finite(checkpoint: Mapping[str, object], place: str) -> None:
    """Raises NonFiniteLossError if a weight, a buffer or an averaged weight of the checkpoint is NaN or infinite."""
    require_usable(checkpoint, f"the checkpoint after {place}", finite=False)
    if name := first_not_finite(checkpoint):
        raise NonFiniteLossError(f"weights are not finite after {place} ({name})")


def bare(model: nn.Module) -> Any:
    """The model without its distributed wrapper."""
    return model.module if is_model_wrapper(model) else model


def plain(value: object) -> Any:
    """Converts values of MMEngine's configs and hooks to tensors and plain values, which safe loading accepts."""
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value)
    return value if value is None or isinstance(value, Tensor | str | bytes | bool | int | float) else str(value)


@HOOKS.register_module()
class CheckpointHook(Hook):
    """Keeps the last epochs' checkpoints, and the best one by a validation score as ``best.pth``.

    Args:
        interval: epochs between checkpoints; the last epoch always has one.
        keep: how many of them to keep.
        save_best: name of the score. If a metric gives one score for each set of weights, as ``raw/NAME`` and
            ``averaged/NAME``, the better one is compared, and its weights are the ones used later.
        rule: ``greater`` if a higher score is better, otherwise ``less``.
    """

    priority = "VERY_LOW"

    def __init__(self, interval: int = 1, keep: int = 2, save_best: str = "mAP", rule: str = "greater") -> None:
        if rule not in ("greater", "less"):
            raise UserError(f"default_hooks.checkpoint.rule={rule!r}: give 'greater' or 'less'")
        self.interval, self.keep = interval, keep
        self.save_best, self.sign = save_best, 1 if rule == "greater" else -1
        self.best: dict[str, Any] = {save_best: float("-inf")}

    def before_train(self, runner: Runner) -> None:
        """Restores the best score of a resumed run, and removes outdated checkpoints that a killed run left."""
        if runner.iter > 0 and is_main_process():
            self._remove_outdated(Path(runner.work_dir), runner.epoch)
        best = Path(runner.work_dir) / "best.pth"
        if runner.iter > 0 and best.is_file():
            self._adopt(best, runner)
        if "epoch" not in self.best and is_main_process():
            folders.forget_validation(runner.work_dir)  # the best checkpoint of that validation is lost

    def _adopt(self, best: Path, runner: Runner) -> None:
        """Restores the score of ``best.pth`` if the file belongs to the resumed run; otherwise renames the file.

        A damaged file is renamed too, and the next validation writes another one.
        """
        try:
            checkpoint = read_checkpoint(best)
        except UserError as error:
            barrier()  # until every process has read it
            if is_main_process():
                tell(f"{error}; it is now {folders.set_aside(best).name}, and the next validation writes another one")
            return
        if checkpoint.get("meta", {}).get("run_id") == runner.resumed_id and "score" in checkpoint:
            self.best = checkpoint["score"]
            if runner.resumed_id is None and is_main_process():
                # The run is of a release without run ids; its next checkpoint will have one.
                checkpoint["meta"]["run_id"] = runner.run_id
                with whole_file(best) as partial:
                    torch.save(checkpoint, partial)
            return
        barrier()  # until every process has read it
        if is_main_process():
            tell(f"{best}: belongs to another run; it was renamed to {folders.move_aside(best)}")

    def before_save_checkpoint(self, runner: Runner, checkpoint: Checkpoint) -> None:
        """Adds the description of the model and drops MMEngine's log history, which is not plain data."""
        checkpoint["meta"]["model"] = plain(getattr(runner, "description", {}))
        checkpoint["message_hub"] = {"log_scalars": {}, "runtime_info": {}, "resumed_keys": {}}

    def after_load_checkpoint(self, runner: Runner, checkpoint: Checkpoint) -> None:
        """Raises UserError if the checkpoint has another model or other classes."""
        model = bare(runner.model)
        require_match(model, unwrap(checkpoint, "raw", runner._load_from)[1], runner._load_from)
        require_classes(checkpoint, model.classes, runner._load_from)

    def after_train_epoch(self, runner: Runner) -> None:
        """Writes ``epoch_N.pth``."""
        epoch = runner.epoch + 1
        if epoch % self.interval and epoch != runner.max_epochs and not runner.train_loop.stop_training:
            return
        folder = Path(runner.work_dir)
        if not is_main_process():
            return
        runner.save_checkpoint(str(folder), f"epoch_{epoch}.pth")
        folders.point_to(folder, f"epoch_{epoch}.pth")
        folders.remove_within_epochs(folder, f"epoch_{epoch}.pth")
        self._remove_outdated(folder, epoch)

    def _remove_outdated(self, folder: Path, epoch: int) -> None:
        """Removes the checkpoints of whole epochs up to this one, except the last ``keep``."""
        # Later ones stay: a run that was resumed from an earlier checkpoint has not reached them yet.
        written = [path for path, place in folders.resumable_checkpoints(folder).items() if place <= (epoch, 0)]
        for old in written[: -self.keep]:
            old.unlink()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Writes ``best.pth`` if the score is better than all earlier ones."""
        loop = training_loop(runner)
        if not metrics or not isinstance(loop, TrainLoop):
            return
        metrics = plain(metrics)
        weights, score = self._chosen(metrics)
        if score is None:
            names = ", ".join(sorted({name.rpartition("/")[2] for name in metrics} - {"weights"}))
            raise UserError(
                f"default_hooks.checkpoint.save_best={self.save_best!r}: no metric gives it; they give {names}"
            )
        before = self._chosen(self.best)[1] if "epoch" in self.best else None
        # A score that is NaN is never the best.
        if not self.sign * score > (float("-inf") if before is None else self.sign * before):
            return
        step = {} if loop.val_steps is None else {"step": loop.step}
        self.best = {**metrics, "weights": weights, "epoch": loop.current_epoch, **step}
        if not is_main_process():
            return
        checkpoint = {
            "meta": {
                "epoch": loop.current_epoch,
                "dataset_meta": runner.train_dataloader.dataset.metainfo,
            },
            "state_dict": bare(runner.model).state_dict(),
            "score": self.best,
        }
        runner.call_hook("before_save_checkpoint", checkpoint=checkpoint)
        with whole_file(Path(runner.work_dir) / "best.pth") as partial:
            torch.save(checkpoint, partial)

    def best_score(self, metrics: Mapping[str, object]) -> BestScore | None:
        """The score of a validation by which ``best.pth`` is chosen: the better one of raw and averaged weights."""
        _, score = self._chosen(metrics)
        return None if score is None else BestScore(self.save_best, float(score), self.sign)

    def _chosen(self, metrics: Mapping[str, Any]) -> tuple[str | None, float | None]:
        """The set of weights with the better ``save_best``, and that score; None if no metric gives it."""
        if self.save_best in metrics:
            return metrics.get("weights"), metrics[self.save_best]
        each = {w: metrics[f"{w}/{self.save_best}"] for w in ("raw", "averaged") if f"{w}/{self.save_best}" in metrics}
        weights = max(each, key=lambda name: self.sign * each[name], default=None)
        return weights, None if weights is None else each[weights]
