"""From a config to a running training, or to the scores of a checkpoint."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.logging import MMLogger, print_log
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from tresnet_downstream.classification.classifier import NonFiniteLossError
from tresnet_downstream.classification.datasets import MultiLabelDataset
from tresnet_downstream.classification.metrics import MultilabelMetric
from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation import MultilabelScores
from tresnet_downstream.registry import DATASETS
from tresnet_downstream.training.checkpoints import (
    bare,
    chosen_weights,
    last_checkpoint,
    load_backbone,
    read_checkpoint,
    require_match,
)
from tresnet_downstream.training.hooks import ProgressHook

LAUNCHERS = ("none", "pytorch")
# Keys of a multi-label config that have no default: the user's own data.
DATA_KEYS = ("train_annotations", "train_images", "val_annotations", "val_images")


class QuietRunner(Runner):
    """MMEngine's runner, except that the terminal is left to the progress bar: the log file has every line."""

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Builds the logger as the base class does."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.ERROR)
        return logger


def train_multilabel(config: Config, resume: bool = False, launcher: str = "none") -> dict[str, Any]:
    """Trains and validates; checkpoints, logs and TensorBoard scalars go to ``config.work_dir``.

    Args:
        config: from :func:`load_config`, with ``work_dir``.
        resume: goes on from the newest checkpoint in ``work_dir``, if there is one.
        launcher: ``pytorch`` under torchrun, otherwise ``none``.

    Returns:
        the best validation score: ``mAP``, ``weights`` (``raw`` or ``averaged``) and ``epoch``.

    Raises:
        UserError: for what is wrong with the data, the config or a checkpoint, and for a loss that is not finite.
    """
    join_processes(launcher)
    checkpoint = last_checkpoint(config.work_dir) if resume else None
    if checkpoint is not None:
        read_checkpoint(checkpoint)  # a damaged file is reported before anything starts
    runner = _build_runner(config, launcher, checkpoint, train=True)
    if checkpoint is None and config.get("pretrained"):
        _start_from(runner, config.pretrained)
    try:
        runner.train()
    except NonFiniteLossError as error:
        last = last_checkpoint(config.work_dir)
        kept = f"the last good checkpoint is {last}" if last else "no checkpoint was written before"
        raise NonFiniteLossError(f"{error}; {kept}; a lower max_lr or amp=None may help") from error
    finally:
        _close(runner)
    return next(hook.best for hook in runner.hooks if hasattr(hook, "best"))


def score_multilabel(
    config: Config, checkpoint_path: str | Path, weights: str | None = None, launcher: str = "none"
) -> tuple[MultilabelScores, str]:
    """Scores a checkpoint on the validation data of a config.

    Args:
        config: from :func:`load_config`, with ``work_dir``.
        checkpoint_path: a checkpoint of this toolkit.
        weights: ``raw`` or ``averaged``; None takes those that scored better when the checkpoint was validated.
        launcher: ``pytorch`` under torchrun, otherwise ``none``.

    Returns:
        the scores, and the name of the weights that were scored.

    Raises:
        UserError: if data, config and checkpoint do not fit together.
    """
    join_processes(launcher)
    checkpoint = read_checkpoint(checkpoint_path)
    name, state_dict = chosen_weights(checkpoint, weights, checkpoint_path)
    runner = _build_runner(config, launcher, None, train=False)
    require_match(bare(runner.model), state_dict, checkpoint_path)
    _require_classes(checkpoint, bare(runner.model).classes, checkpoint_path)
    bare(runner.model).load_state_dict(state_dict)
    try:
        runner.val()
    finally:
        _close(runner)
    metric = next(metric for metric in runner.val_evaluator.metrics if isinstance(metric, MultilabelMetric))
    return metric.scores["raw"], name


def join_processes(launcher: str) -> None:
    """Joins the processes that torchrun started: NCCL where each has a GPU, otherwise gloo."""
    if launcher == "none" or dist.is_initialized():
        return
    if missing := {"RANK", "WORLD_SIZE", "LOCAL_RANK"} - set(os.environ):
        raise UserError(f"--launcher pytorch: {', '.join(sorted(missing))} not set; start with torchrun")
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def _build_runner(config: Config, launcher: str, resume_from: Path | None, train: bool) -> Runner:
    _refuse_conversions(config)
    for key in DATA_KEYS:
        if key in config and config[key] is None:
            raise UserError(f"{key}: the config leaves it to you; set it with --cfg-options {key}=PATH")
    init_default_scope(config.default_scope)
    datasets = _build_datasets(config, train)
    config.model.classes = list(datasets["val"].classes)
    seed = config.randomness.seed
    loaders = {
        split: Runner.build_dataloader(_loader_config(config, split, dataset), seed=seed)
        for split, dataset in datasets.items()
    }
    config.launcher = launcher
    if launcher != "none":
        # MMEngine's own default names a GPU.
        device_ids = [int(os.environ["LOCAL_RANK"])] if torch.cuda.is_available() else None
        config.model_wrapper_cfg = {
            "type": "MMDistributedDataParallel",
            "broadcast_buffers": False,
            "device_ids": device_ids,
            "find_unused_parameters": False,
        }
    runner = QuietRunner(
        model=config.model,
        work_dir=config.work_dir,
        train_dataloader=loaders.get("train"),
        train_cfg=config.train_cfg if train else None,
        optim_wrapper=config.optim_wrapper if train else None,
        param_scheduler=config.param_scheduler if train else None,
        val_dataloader=loaders["val"],
        val_cfg=config.val_cfg,
        val_evaluator=config.val_evaluator,
        default_hooks=config.default_hooks,
        custom_hooks=config.custom_hooks if train else [{"type": "ProgressHook"}],
        load_from=None if resume_from is None else str(resume_from),
        resume=resume_from is not None,
        launcher=launcher,
        env_cfg=config.env_cfg,
        log_level=config.log_level,
        visualizer=config.visualizer,
        default_scope=config.default_scope,
        randomness=config.randomness,
        cfg=config,
    )
    # The convolutions' fast layout, on CPUs and on tensor cores alike; the pictures come in it.
    bare(runner.model).to(memory_format=torch.channels_last)
    if train:
        runner.optim_wrapper["reduction"] = bare(runner.model).loss.reduction
    return runner


def _build_datasets(config: Config, train: bool) -> dict[str, MultiLabelDataset]:
    """The splits; validation takes its classes from the training data, so that the columns agree."""
    datasets = {}
    validation = dict(config.val_dataloader.dataset)
    if train:
        datasets["train"] = DATASETS.build(config.train_dataloader.dataset)
        validation.setdefault("classes", datasets["train"].classes)
    datasets["val"] = DATASETS.build(validation)
    return datasets


def _loader_config(config: Config, split: str, dataset: MultiLabelDataset) -> dict[str, Any]:
    loader = dict(config[f"{split}_dataloader"])
    if loader["num_workers"] == 0:
        loader["persistent_workers"] = False
    return {**loader, "dataset": dataset, "pin_memory": torch.cuda.is_available()}


def _start_from(runner: Runner, path: str) -> None:
    missing = load_backbone(bare(runner.model).backbone, path)
    print_log(f"backbone starts from {path}; not in it: {', '.join(missing) or 'nothing'}", "current")


def _require_classes(checkpoint: Mapping[str, Any], classes: tuple[str, ...], path: str | Path) -> None:
    trained = tuple(checkpoint.get("meta", {}).get("dataset_meta", {}).get("classes", classes))
    if trained != tuple(classes):
        place = next((i for i, (a, b) in enumerate(zip(trained, classes, strict=False)) if a != b), 0)
        raise UserError(
            f"{path}: was trained on other classes than the data has: class {place} is "
            f"{trained[place]!r} there and {classes[place]!r} in the data"
        )


def _refuse_conversions(config: Config) -> None:
    if config.get("sync_bn"):
        raise UserError("sync_bn: TResNet's norms are not converted; set model.backbone.norm='sync' instead")


def _close(runner: Runner) -> None:
    for hook in runner.hooks:
        if isinstance(hook, ProgressHook):
            hook.close()
    if is_main_process():
        runner.visualizer.close()
