"""What a resumed training may change: settings as plain values, compared, and brought into effect."""

import copy
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, Runner

from tresnet_downstream.errors import UserError
from tresnet_downstream.notices import tell
from tresnet_downstream.running.checkpoints import plain
from tresnet_downstream.running.provenance import without_start

# Settings of a model that change no result.
WITHOUT_EFFECT = ("with_cp",)


def run_settings(config: Config, processes: int) -> dict[str, dict[str, Any]]:
    """What defines a training, as plain values: ``fixed`` for its whole length, and ``free`` to change on resuming."""
    model = _without(without_start(config.model), WITHOUT_EFFECT)
    loss = model.pop("loss", None)
    model.pop("classes", None)
    wrapper = config.optim_wrapper
    optimizer = dict(wrapper.get("optimizer") or {})
    rate = "max_lr" if "max_lr" in config else "optim_wrapper.optimizer.lr"
    loader, pipeline = config.train_dataloader, _pipeline_of(config.train_dataloader.get("dataset"))
    hooks = [hook for hook in config.get("custom_hooks") or [] if isinstance(hook, Mapping)]
    average = [hook for hook in hooks if str(hook.get("type")).endswith(("WeightAverageHook", "EMAHook"))]
    free = {
        rate: optimizer.pop("lr", None),
        "weight_decay": optimizer.pop("weight_decay", 0.0),
        "max_epochs": config.train_cfg.get("max_epochs"),
        "batch_size": loader.get("batch_size"),
        "processes": processes,
        "accumulation": wrapper.get("accumulative_counts", 1),
        "amp": wrapper.get("amp"),
        "param_scheduler": _without(config.get("param_scheduler"), ("max_lr",)),
        "train_pipeline": pipeline,
    }
    fixed = {
        "seed": (config.get("randomness") or {}).get("seed"),
        "image_size": _sizes(pipeline),
        "model": model,
        "loss": loss,
        "weight_average": average,
        "optimizer": optimizer,
    }
    settings: dict[str, dict[str, Any]] = plain({"fixed": fixed, "free": free})
    return settings


def changes(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """Says where two plain values differ; lists and tuples of the same items are equal."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in {**before, **now}:
            yield from changes(before.get(key), now.get(key), f"{name}.{key}" if name else str(key))
    elif isinstance(before, list | tuple) and isinstance(now, list | tuple) and len(before) == len(now):
        for place, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from changes(old, new, f"{name}.{place}")
    elif before != now:
        yield f"{name} was {before!r} and is now {now!r}"


def require_same_run(
    before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]], epoch: int
) -> list[str]:
    """Compares the settings of a checkpoint with those of a config; gives the changes that are allowed.

    Raises:
        UserError: names what a resumed training cannot change.
    """
    refused = list(changes(before["fixed"], now["fixed"]))
    if refused:
        others = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        raise UserError(f"--resume: {refused[0]}{others}: keep it, or begin a new run with another --work-dir")
    epochs = now["free"].get("max_epochs")
    if isinstance(epochs, int) and epochs < epoch:
        raise UserError(f"--resume: max_epochs={epochs}, but the run has come to epoch {epoch}")
    return list(changes(before["free"], now["free"]))


class FreshSchedule:
    """Optimiser and schedules as a config has them, remembered before a checkpoint is loaded into them."""

    def __init__(self, runner: Runner) -> None:
        wrapper, schedules = runner.optim_wrapper, runner.param_schedulers
        self.groups: list[dict[str, Any]] | None = None
        if isinstance(wrapper, OptimWrapper) and isinstance(schedules, list | None):
            groups = wrapper.optimizer.param_groups
            self.groups = [{key: copy.copy(value) for key, value in g.items() if key != "params"} for g in groups]
            self.schedules = [copy.deepcopy(schedule.state_dict()) for schedule in schedules or []]

    def restore(self, runner: Runner) -> None:
        """Puts them back, and takes the schedules from the beginning to where the run is."""
        if self.groups is None:
            raise UserError("--resume: with several optimisers nothing may change: keep the config as it was")
        for group, fresh in zip(runner.optim_wrapper.optimizer.param_groups, self.groups, strict=True):
            group.update(fresh)
        schedules = runner.param_schedulers or []
        for schedule, fresh in zip(schedules, self.schedules, strict=True):
            schedule.__dict__.update(fresh)
        length, loop = len(runner.train_dataloader), runner.train_loop
        if not isinstance(loop, EpochBasedTrainLoop):
            raise UserError("--resume: with a loop over iterations nothing may change: keep the config as it was")
        loop._iter = loop.epoch * length
        by_epoch = [schedule for schedule in schedules if schedule.by_epoch]
        by_step = [schedule for schedule in schedules if not schedule.by_epoch]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they miss the steps of the optimiser
            for _ in range(loop.epoch):
                for schedule in by_step * length + by_epoch:
                    schedule.step()


def tell_changes(allowed: list[str]) -> None:
    """Says in one line each what a resumed training does otherwise than before."""
    for change in allowed:
        tell(f"resumed with a change: {change}")


def _pipeline_of(dataset: Any) -> list[Any]:
    """The steps of the first data set, also within wrappers, such as RepeatDataset."""
    while isinstance(dataset, Mapping):
        if "pipeline" in dataset:
            return list(dataset["pipeline"] or [])
        inner = dataset.get("dataset") or dataset.get("datasets")
        dataset = inner[0] if isinstance(inner, list | tuple) and inner else inner
    return []


def _sizes(pipeline: list[Any]) -> Any:
    """The size that pictures are brought to, or the sizes, if several steps have one."""
    steps = [step for step in pipeline if isinstance(step, Mapping) and str(step.get("type")).endswith("Resize")]
    sizes = [step[key] for step in steps for key in ("size", "scale") if key in step]
    return sizes[0] if len(sizes) == 1 else sizes


def _without(node: Any, names: tuple[str, ...]) -> Any:
    """A copy of a config's node without the keys of these names."""
    if isinstance(node, Mapping):
        return {key: _without(value, names) for key, value in node.items() if key not in names}
    return type(node)(_without(item, names) for item in node) if isinstance(node, list | tuple) else node
