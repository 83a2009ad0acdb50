"""The settings that a resumed training may change, and how changes take effect.

The settings stored in the checkpoint, ``meta["run"]``, are compared with those of the config as plain values.
"""

import copy
import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, Runner

from tresnet_downstream.errors import UserError
from tresnet_downstream.running.checkpoints import plain
from tresnet_downstream.running.parts import by_part
from tresnet_downstream.running.provenance import without_start
from tresnet_downstream.running.rates import without_factors
from tresnet_downstream.running.resumed_state import RunSettings

# Arguments of models that do not change results.
WITHOUT_EFFECT = ("with_cp",)


def run_settings(config: Config, processes: int) -> RunSettings:
    """The settings of a training; they are compared when it is resumed.

    Args:
        config: config of the training.
        processes: number of processes.
    """
    model = _without(without_start(config.model), WITHOUT_EFFECT)
    loss = model.pop("loss", None)
    model.pop("classes", None)  # compared where the weights are loaded
    wrapper, loader = config.optim_wrapper, config.train_dataloader
    optimizer, sampler = dict(wrapper.get("optimizer") or {}), loader.get("sampler") or {}
    lr_name = "max_lr" if "max_lr" in config else "optim_wrapper.optimizer.lr"
    pipeline = _pipeline_of(loader.get("dataset"))
    hooks = [hook for hook in config.get("custom_hooks") or [] if isinstance(hook, Mapping)]
    free = {
        lr_name: optimizer.pop("lr", None),
        "weight_decay": optimizer.pop("weight_decay", 0.0),
        "max_epochs": config.train_cfg.get("max_epochs"),
        "val_steps": config.get("val_steps"),
        "clip_grad": config.get("clip_grad"),
        "patience": config.get("patience"),
        "min_delta": config.get("min_delta") or None,
        "freeze": by_part("freeze", config.get("freeze")) or None,
        "freeze_statistics": None if config.get("freeze_statistics", True) else False,
        "batch_size": loader.get("batch_size"),
        "processes": processes,
        "accumulation": wrapper.get("accumulative_counts", 1),
        "amp": wrapper.get("amp"),
        "param_scheduler": _without(config.get("param_scheduler"), ("max_lr",)),
        "train_pipeline": pipeline,
        "sampling": sampler.get("sampling", config.get("sampling")),
        "repeat_threshold": sampler.get("repeat_threshold", config.get("repeat_threshold")),
        "class_weights": weights_setting(config),
        "effective_beta": config.get("effective_beta") if weights_setting(config) == "effective" else None,
    }
    fixed = {
        "seed": (config.get("randomness") or {}).get("seed"),
        "image_size": _image_sizes(pipeline),  # fixed, though the rest of the pipeline is free
        "model": model,
        "loss": loss,
        "initial_bias": config.get("initial_bias"),
        "weight_average": [hook for hook in hooks if str(hook.get("type")).endswith(("WeightAverageHook", "EMAHook"))],
        "optimizer": optimizer,
        # They determine the optimiser's parameter groups, and the order of its state.
        "lr_factors": by_part("lr_factors", config.get("lr_factors")) or None,
        "layer_decay": config.get("layer_decay"),
        "layer_decay_unit": config.get("layer_decay_unit") if config.get("layer_decay") is not None else None,
        # The best checkpoint so far was chosen by it, and two different scores cannot be compared.
        "save_best": ((config.get("default_hooks") or {}).get("checkpoint") or {}).get("save_best"),
    }
    settings: RunSettings = plain({"fixed": fixed, "free": free})
    return settings


def changes(before: object, now: object, name: str = "") -> Iterator[str]:
    """Describes each difference of two plain values. A list and a tuple of the same items are equal.

    Args:
        before: the old value, possibly nested dicts and lists.
        now: the new value.
        name: name of the value in the descriptions.

    Examples:
        >>> list(changes({"max_lr": 0.1, "size": [224, 224]}, {"max_lr": 0.2, "size": (224, 224)}))
        ['max_lr was 0.1 and is now 0.2']
    """
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in {**before, **now}:
            yield from changes(before.get(key), now.get(key), f"{name}.{key}" if name else str(key))
    elif isinstance(before, list | tuple) and isinstance(now, list | tuple) and len(before) == len(now):
        for place, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from changes(old, new, f"{name}.{place}")
    elif before != now:
        yield f"{name} was {before!r} and is now {now!r}"


def require_same_run(before: RunSettings, now: RunSettings, epoch: int) -> list[str]:
    """Compares the settings of a checkpoint with those of a config.

    Args:
        before: settings of the checkpoint, from :func:`run_settings`.
        now: settings of the config.
        epoch: epoch of the checkpoint.

    Returns:
        descriptions of the free settings that differ.

    Raises:
        UserError: if a fixed setting differs, or ``max_epochs`` is below ``epoch``.
    """
    if refused := list(changes(before["fixed"], now["fixed"])):
        others = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        raise UserError(
            f"`resume`: {refused[0]}{others}: restore the earlier value, or begin a new run with another `work_dir`"
        )
    max_epochs = now["free"].get("max_epochs")
    if isinstance(max_epochs, int) and max_epochs < epoch:
        raise UserError(
            f"`resume`: max_epochs={max_epochs}, but the run has already reached epoch {epoch}; increase it"
        )
    return list(changes(before["free"], now["free"]))


def images_of_a_step(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Describes the number of images of an optimiser step, over all processes, if a setting that determines it changed.

    Args:
        before: the free settings of the checkpoint, from :func:`run_settings`.
        now: the free settings of the config.
    """
    names = ("batch_size", "processes", "accumulation")
    if all(before.get(name) == now.get(name) for name in names):
        return None
    if not all(type(each.get(name)) is int for each in (before, now) for name in names):
        return None  # the batch sampler determines the size of a batch
    had, has = (math.prod(each[name] for name in names) for each in (before, now))
    if had == has:
        return f"an optimiser step uses {has} images over all processes, as before"
    batch_size, rest = divmod(had, now["processes"] * now["accumulation"])
    advice = f"; batch_size={batch_size} keeps {had}" if batch_size and not rest else ""
    return f"an optimiser step uses {has} images over all processes, and used {had} before{advice}"


class ConfigSchedule:
    """The initial state of optimiser and schedules, from the config, copied before a checkpoint is loaded."""

    def __init__(self, runner: Runner) -> None:
        wrapper, schedules = runner.optim_wrapper, runner.param_schedulers
        # With several optimisers, MMEngine has dicts of optimisers and schedules.
        self.several_optimisers = not (isinstance(wrapper, OptimWrapper) and isinstance(schedules, list | None))
        if self.several_optimisers:
            return
        groups = wrapper.optimizer.param_groups
        self.groups = [{key: copy.copy(value) for key, value in g.items() if key != "params"} for g in groups]
        self.schedules = [copy.deepcopy(schedule.state_dict()) for schedule in schedules or []]

    def restore(self, runner: Runner, batches: int) -> None:
        """Restores the state and steps the schedules from the beginning to the position of the resumed run.

        Args:
            runner: the runner.
            batches: number of batches trained in the current, incomplete epoch.

        Raises:
            UserError: if there are several optimisers, or the loop does not count epochs.
        """
        loop = runner.train_loop
        if self.several_optimisers:
            raise UserError("`resume`: with several optimisers no setting may change: keep the config as it was")
        if not isinstance(loop, EpochBasedTrainLoop):
            raise UserError("`resume`: with a loop over iterations no setting may change: keep the config as it was")
        for group, state in zip(runner.optim_wrapper.optimizer.param_groups, self.groups, strict=True):
            group.update(state)
        schedules = runner.param_schedulers or []
        for schedule, state in zip(schedules, self.schedules, strict=True):
            schedule.__dict__.update(state)
        # The number of batches of an epoch may have changed.
        epoch_length = len(runner.train_dataloader)
        loop._iter = loop.epoch * epoch_length + batches
        by_epoch = [schedule for schedule in schedules if schedule.by_epoch]
        by_step = [schedule for schedule in schedules if not schedule.by_epoch]
        with without_factors(runner.optim_wrapper), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns if a schedule steps before its optimiser
            for _ in range(loop.epoch):
                for schedule in by_step * epoch_length + by_epoch:
                    schedule.step()
            for schedule in by_step * batches:
                schedule.step()


def weights_setting(config: Config) -> object:
    """The key ``class_weights`` of a config; None for no weights.

    The default in configs/_base_ is ``{}``, because MMEngine merges a dict of weights only into a dict.
    """
    value = config.get("class_weights")
    return None if value == {} else value


def _pipeline_of(dataset: object) -> list[object]:
    """The transforms of a data set's config or, for wrappers such as RepeatDataset, of the first wrapped one."""
    while isinstance(dataset, Mapping):
        if "pipeline" in dataset:
            return list(dataset["pipeline"] or [])
        inner = dataset.get("dataset") or dataset.get("datasets")
        dataset = inner[0] if isinstance(inner, list | tuple) and inner else inner
    return []


def _image_sizes(pipeline: list[object]) -> object:
    """The size to which the pipeline resizes; a list if the number of resizing transforms is not one."""
    transforms = [each for each in pipeline if isinstance(each, Mapping) and str(each.get("type")).endswith("Resize")]
    sizes = [transform[key] for transform in transforms for key in ("size", "scale") if key in transform]
    return sizes[0] if len(sizes) == 1 else sizes


def _without(node: object, names: tuple[str, ...]) -> Any:
    """A copy of a nested config without the given keys."""
    if isinstance(node, Mapping):
        return {key: _without(value, names) for key, value in node.items() if key not in names}
    return type(node)(_without(item, names) for item in node) if isinstance(node, list | tuple) else node
