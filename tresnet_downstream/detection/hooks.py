"""Hooks of a detector's training: plain checkpoints, finite losses, and what the terminal shows."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner
from torch import nn

from tresnet_downstream.detection.adjusted_config import datasets_of
from tresnet_downstream.errors import NonFiniteLossError, UserError
from tresnet_downstream.files import whole_file
from tresnet_downstream.notices import tell
from tresnet_downstream.registry import HOOKS
from tresnet_downstream.running.checkpoints import bare, plain, require_classes
from tresnet_downstream.running.folders import last_checkpoint
from tresnet_downstream.running.hooks import ProgressHook
from tresnet_downstream.running.provenance import without_start
from tresnet_downstream.weights.pretrained import require_match
from tresnet_downstream.weights.reading import unwrap

# The file in the work dir that says which epoch was validated last, with what MMEngine knows of the best one.
LAST_VALIDATION = "last_validation.json"
BEST = ("best_score", "best_ckpt")


@HOOKS.register_module()
class DetectionCheckpointHook(Hook):
    """Leaves checkpoints that hold plain data alone, and refuses those of another detector.

    MMEngine's log history is not kept: it is made of objects that safe loading refuses, and nothing resumes it
    but the smoothing of what the log shows.
    """

    priority = "LOWEST"

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Turns numpy's numbers into plain ones and describes the detector for :func:`load_detector`."""
        hub = checkpoint["message_hub"]
        kept = {key: value for key, value in hub["resumed_keys"].items() if key in hub["runtime_info"]}
        checkpoint["message_hub"] = {**hub, "log_scalars": {}, "resumed_keys": kept}
        checkpoint["meta"]["model"] = {
            "detector": describe_detector(runner.cfg.model),
            "pipeline": next((given["pipeline"] for split, given in datasets_of(runner.cfg) if split != "train"), []),
        }
        checkpoint.update({key: plain(value) for key, value in checkpoint.items() if key != "state_dict"})

    def before_train(self, runner: Runner) -> None:
        """Validates the epoch whose validation was cut, where a training is resumed from its checkpoint."""
        loop = runner.train_loop
        if not runner._resume and is_main_process():
            (Path(runner.work_dir) / LAST_VALIDATION).unlink(missing_ok=True)  # of another run in this folder
        if not runner._resume or not isinstance(loop, EpochBasedTrainLoop) or runner.val_loop is None:
            return
        loop._decide_current_val_interval()
        due = loop.epoch >= loop.val_begin and (loop.epoch % loop.val_interval == 0 or loop.epoch == loop.max_epochs)
        # The first process decides: the others may see another disk.
        decision = [due and loop.epoch > 0 and _last_validation(runner.work_dir).get("epoch") != loop.epoch]
        broadcast_object_list(decision)
        if decision[0]:
            runner.val_loop.run()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        """Notes which epoch was validated and the best so far: its checkpoint was written before."""
        if not isinstance(runner._train_loop, EpochBasedTrainLoop) or not is_main_process():
            return
        info = runner.message_hub.runtime_info
        best = {key: plain(info[key]) for key in BEST if key in info}
        with whole_file(Path(runner.work_dir) / LAST_VALIDATION) as partial:
            partial.write_text(json.dumps({"epoch": runner.epoch, **best}))

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Checks names, shapes and classes; a training that starts from a detector may have other heads."""
        checkpoint.get("meta", {}).pop("config", None)  # MMEngine would run it
        last = _last_validation(runner.work_dir)
        if runner._resume and last and last.get("epoch") == checkpoint.get("meta", {}).get("epoch"):
            hub, best = checkpoint["message_hub"], {key: last[key] for key in BEST if key in last}
            hub["runtime_info"].update(best)
            hub["resumed_keys"].update(dict.fromkeys(best, True))
        model, path = _detector(runner.model), runner._load_from or last_checkpoint(runner.work_dir) or "checkpoint"
        weights = unwrap(checkpoint, "raw", path)[1]
        # Until a training begins, the loop is a config.
        if isinstance(runner._train_loop, BaseLoop) and not runner._resume:
            _keep_what_fits(model, checkpoint, weights, path)
            return
        require_match(model, weights, path)
        for _, dataset in datasets_of(runner.cfg):
            if "classes" in (dataset.get("metainfo") or {}):
                require_classes(checkpoint, dataset.metainfo["classes"], path)


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Ends a training whose loss is not finite.

    Args:
        interval: steps between looks, each of which waits for the device.
    """

    def __init__(self, interval: int = 10) -> None:
        self.interval = interval

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Looks at the loss."""
        if not self.every_n_train_iters(runner, self.interval) or torch.as_tensor(outputs["loss"]).isfinite():
            return
        last = last_checkpoint(runner.work_dir)
        kept = f"the last checkpoint is {last}" if last else "no checkpoint was written before"
        raise NonFiniteLossError(
            f"the loss is not finite in epoch {runner.epoch + 1}, step {batch_idx + 1}; {kept}; "
            "a lower optim_wrapper.optimizer.lr or optim_wrapper.clip_grad.max_norm=35 may help"
        )


@HOOKS.register_module()
class DetectionProgressHook(ProgressHook):
    """A bar on a terminal, and one line for each epoch with the loss and AP."""

    # Before the checkpoints' hook, which may validate at once.
    priority = "VERY_LOW"
    loss_name, loss_key = "loss", "loss"

    def __init__(self) -> None:
        super().__init__()
        self.last_ap: float | None = None

    def before_train(self, runner: Runner) -> None:
        """Shows the bar, and expects that an epoch may be validated that this process has not trained."""
        super().before_train(runner)
        self.started, self.losses, self.images, self.skipped = time.perf_counter(), 0.0, 0, 0

    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        """Prints the epoch's line."""
        super().after_val_epoch(runner, metrics)
        if metrics and "coco/bbox_mAP" in metrics:
            self.last_ap = 100 * float(metrics["coco/bbox_mAP"])

    def scores_text(self, metrics: Mapping[str, Any]) -> str:
        """AP in percent, of boxes and of masks."""
        found = [
            f"{name} {100 * metrics[key]:.2f}"
            for kind, suffix in (("bbox", ""), ("segm", " of masks"))
            for name, key in ((f"AP{suffix}", f"coco/{kind}_mAP"), (f"AP50{suffix}", f"coco/{kind}_mAP_50"))
            if metrics.get(key, -1) >= 0
        ]
        return f"val {', '.join(found)}" if found else ""


def describe_detector(model: Any) -> dict[str, Any]:
    """The config of a detector as plain data, without the weights that it, or its teacher, would start from."""
    # LAD's teacher is part of its weights.
    return {key: value for key, value in without_start(model).items() if key != "teacher_ckpt"}


def _last_validation(work_dir: str | Path) -> dict[str, Any]:
    """What the work dir says of the last validation; nothing if there was none, or the file is damaged."""
    try:
        content = json.loads((Path(work_dir) / LAST_VALIDATION).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _detector(model: nn.Module) -> nn.Module:
    """The detector itself, without what several processes or test-time augmentation put around it."""
    inner = bare(model)
    return inner.module if isinstance(inner, BaseTTAModel) else inner


def _keep_what_fits(model: nn.Module, checkpoint: dict[str, Any], weights: Mapping[str, Any], path: str | Path) -> None:
    """Leaves the weights of other shapes out, such as those of heads for other classes, and says which."""
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    fitting = {name: tensor for name, tensor in weights.items() if wanted.get(name) == tensor.shape}
    if not any(name.startswith("backbone.") for name in fitting):
        raise UserError(
            f"{path}: is a checkpoint of another detector: no weight of its backbone fits; a backbone's own weights "
            "are named by model.backbone.init_cfg.checkpoint"
        )
    checkpoint["state_dict"] = fitting
    if fresh := [name for name in wanted if name not in fitting]:
        tell(f"{path}: {len(fresh)} weights start fresh, such as {fresh[0]}")
