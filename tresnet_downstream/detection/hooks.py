"""Hooks of a detector's training: plain checkpoints, a check for finite losses, and progress."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from tresnet_downstream.detection.adjusted_config import datasets_of
from tresnet_downstream.detection.network_check import detector_of
from tresnet_downstream.errors import NonFiniteLossError, UserError
from tresnet_downstream.notices import tell
from tresnet_downstream.registry import HOOKS
from tresnet_downstream.running.checkpoints import plain, require_classes
from tresnet_downstream.running.folders import last_checkpoint, last_validation
from tresnet_downstream.running.loops import training_loop
from tresnet_downstream.running.progress import ProgressHook
from tresnet_downstream.running.provenance import without_start
from tresnet_downstream.running.validation import BEST
from tresnet_downstream.weights.pretrained import require_match, without_second_names
from tresnet_downstream.weights.reading import unwrap


@HOOKS.register_module()
class DetectionCheckpointHook(Hook):
    """Converts checkpoints to plain data, and refuses checkpoints of other detectors.

    MMEngine's log history is removed: safe loading refuses its objects, and only the smoothing of logged values would
    be resumed from it.
    """

    priority = "LOWEST"

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Converts numpy numbers to plain ones, and adds the description of the detector for :func:`load_detector`."""
        hub = checkpoint["message_hub"]
        resumed_keys = {key: value for key, value in hub["resumed_keys"].items() if key in hub["runtime_info"]}
        checkpoint["message_hub"] = {**hub, "log_scalars": {}, "resumed_keys": resumed_keys}
        checkpoint["meta"]["model"] = {
            "detector": describe_detector(runner.cfg.model),
            "pipeline": next(
                (dataset["pipeline"] for split, dataset in datasets_of(runner.cfg) if split != "train"), []
            ),
        }
        checkpoint.update({key: plain(value) for key, value in checkpoint.items() if key != "state_dict"})

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Checks names, shapes and classes; a training that starts from a detector's weights may have other heads."""
        last = last_validation(runner.work_dir)
        # The best checkpoint may be from a validation after this checkpoint, which deleted the earlier best one.
        if runner._resume and last.get("iter", -1) >= checkpoint.get("meta", {}).get("iter", 0):
            hub, best = checkpoint["message_hub"], {key: last[key] for key in BEST if key in last}
            hub["runtime_info"].update(best)
            hub["resumed_keys"].update(dict.fromkeys(best, True))
        model, path = detector_of(runner.model), runner._load_from or last_checkpoint(runner.work_dir) or "checkpoint"
        weights = unwrap(checkpoint, "raw", path)[1]
        # The loop is a config until a training begins.
        if training_loop(runner) is not None and not runner._resume:
            _keep_what_fits(model, checkpoint, weights, path)
            return
        known = checkpoint["state_dict"] = without_second_names(model, weights)
        require_match(model, known, path)
        for _, dataset in datasets_of(runner.cfg):
            if "classes" in (dataset.get("metainfo") or {}):
                require_classes(checkpoint, dataset.metainfo["classes"], path)


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Ends a training whose loss is not finite.

    Args:
        interval: steps between checks; each check waits for the device.
    """

    def __init__(self, interval: int = 10) -> None:
        self.interval = interval

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Checks the loss."""
        if not self.every_n_train_iters(runner, self.interval) or torch.as_tensor(outputs["loss"]).isfinite():
            return
        last = last_checkpoint(runner.work_dir)
        checkpoint = f"the last checkpoint is {last}" if last else "no checkpoint was written before"
        raise NonFiniteLossError(
            f"the loss is not finite in epoch {runner.epoch + 1}, step {batch_idx + 1}; {checkpoint}; "
            "a lower optim_wrapper.optimizer.lr or optim_wrapper.clip_grad.max_norm=35 may help"
        )


@HOOKS.register_module()
class DetectionProgressHook(ProgressHook):
    """A progress bar, and a line with loss and AP for each epoch."""

    loss_name, loss_key = "loss", "loss"

    def __init__(self) -> None:
        super().__init__()
        self.last_ap: float | None = None

    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        """Prints the epoch's line."""
        super().after_val_epoch(runner, metrics)
        if metrics and "coco/bbox_mAP" in metrics:
            self.last_ap = 100 * float(metrics["coco/bbox_mAP"])

    def scores_text(self, metrics: Mapping[str, Any]) -> str:
        """AP in percent, of boxes and of masks."""
        scores = [
            f"{name} {100 * metrics[key]:.2f}"
            for kind, suffix in (("bbox", ""), ("segm", " of masks"))
            for name, key in ((f"AP{suffix}", f"coco/{kind}_mAP"), (f"AP50{suffix}", f"coco/{kind}_mAP_50"))
            if metrics.get(key, -1) >= 0
        ]
        return f"val {', '.join(scores)}" if scores else ""


def describe_detector(model: ConfigDict) -> dict[str, object]:
    """The config of a detector as plain data, without pretrained weights of the detector or its teacher."""
    # The checkpoint contains the teacher of LAD.
    return {key: value for key, value in without_start(model).items() if key != "teacher_ckpt"}


def _keep_what_fits(
    model: nn.Module, checkpoint: dict[str, object], weights: Mapping[str, Tensor], path: str | Path
) -> None:
    """Removes weights of other shapes, such as those of heads for other classes, and prints a line about them."""
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    fitting = {name: tensor for name, tensor in weights.items() if shapes.get(name) == tensor.shape}
    if not any(".backbone." in f".{name}" for name in fitting):
        raise UserError(
            f"{path}: is a checkpoint of another detector: no weight of its backbone fits; to load weights of a "
            "backbone, set model.backbone.init_cfg.checkpoint"
        )
    checkpoint["state_dict"] = fitting
    if fresh := [name for name in shapes if name not in fitting]:
        tell(
            f"{path}: {len(fresh)} weights of the detector start randomly, because the checkpoint lacks them or has "
            f"other shapes, such as {fresh[0]}"
        )
