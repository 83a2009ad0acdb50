"""Checks of the training state in a checkpoint before it is resumed; the file may come from an untrusted source."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, optim

from tresnet_downstream.errors import UserError

_WHOLE, _TEXT, _LIST, _DICT = (int,), (str,), (list, tuple), (Mapping,)
# Types of the values that are read by name, by their nested keys. Values may be missing, except those in _REQUIRED.
_PARTS: Mapping[tuple[str, ...], tuple[type, ...]] = {
    ("meta",): _DICT,
    ("meta", "epoch"): _WHOLE,
    ("meta", "iter"): _WHOLE,
    ("meta", "epoch_length"): _WHOLE,
    ("meta", "seed"): _WHOLE,
    ("meta", "run_id"): _TEXT,
    ("meta", "run"): _DICT,
    ("meta", "run", "fixed"): _DICT,
    ("meta", "run", "free"): _DICT,
    ("meta", "accounts"): _DICT,
    ("meta", "validated"): _DICT,
    ("meta", "dataset_meta"): _DICT,
    ("meta", "dataset_meta", "classes"): _LIST,
    ("message_hub",): _DICT,
    ("message_hub", "log_scalars"): _DICT,
    ("message_hub", "runtime_info"): _DICT,
    ("message_hub", "runtime_info", "best_score"): (int, float),
    ("message_hub", "runtime_info", "best_ckpt"): _TEXT,
    ("message_hub", "resumed_keys"): _DICT,
    ("optimizer",): _DICT,
    ("param_schedulers",): (*_LIST, Mapping),
    ("averaged_steps",): _WHOLE,
}
# Keys of a parameter group that torch's optimisers read; its other keys have defaults or exist in newer releases only.
_OF_A_GROUP = ("params", "lr", "lr_factor", "scheduled_lr", "betas", "eps", "momentum", "weight_decay")
_STATE_NAMES = {optim.Adam: ("step", "exp_avg", "exp_avg_sq"), optim.AdamW: ("step", "exp_avg", "exp_avg_sq")}
_REQUIRED = (
    *(("meta", "epoch"), ("meta", "iter")),
    *(("message_hub", key) for key in ("log_scalars", "runtime_info", "resumed_keys")),
)


class RunSettings(TypedDict):
    """The settings that define a training, as plain values by the names in messages.

    Attributes:
        fixed: settings that a resumed training must keep.
        free: settings that a resumed training may change.
    """

    fixed: dict[str, Any]
    free: dict[str, Any]


class CheckpointMeta(TypedDict, total=False):
    """The part ``meta`` of a checkpoint; only the keys that this package reads or writes.

    Attributes:
        epoch: number of complete epochs.
        iter: number of batches trained.
        epoch_length: number of batches of an epoch, in a checkpoint within an epoch.
        seed: seed of the run.
        step: number of optimiser steps.
        tracked_steps: number of optimiser steps as the trackers count them.
        run_id: id of the run.
        run: settings of the run.
        accounts: sums of the hooks' accounts, by the class name of the hook.
        validated: scores of all validations, see :mod:`early_stopping`.
        model: the task's description of its model.
        dataset_meta: properties of the training data, with ``classes``.
        config: text of the config.
    """

    epoch: int
    iter: int
    epoch_length: int
    seed: int
    step: int
    tracked_steps: int
    run_id: str
    run: RunSettings
    accounts: Mapping[str, Sequence[float]]
    validated: Mapping[str, object]
    model: Mapping[str, object]
    dataset_meta: Mapping[str, object]
    config: str


class Checkpoint(TypedDict, total=False):
    """The content of a checkpoint of a training; only the keys that this package reads or writes.

    Attributes:
        meta: position of the training, its settings, and the description of the model.
        state_dict: the raw weights.
        averaged_state_dict: the averaged weights.
        averaged_steps: number of steps in the average.
        optimizer: state of the optimiser.
        param_schedulers: state of the schedules.
        message_hub: MMEngine's log history and information.
        score: scores of the validation, in ``best.pth``.
    """

    meta: CheckpointMeta
    state_dict: Mapping[str, Tensor]
    averaged_state_dict: Mapping[str, Tensor]
    averaged_steps: int
    optimizer: dict[str, Any]
    param_schedulers: Sequence[object]
    message_hub: Mapping[str, object]
    score: Mapping[str, object]


def require_parts(checkpoint: Mapping[str, Any], path: str | Path) -> None:
    """Checks the values of a checkpoint that are read by name.

    Raises:
        UserError: if a required value is missing, or a value has another type than a training writes.
    """
    for keys, types in _PARTS.items():
        place = ".".join(keys)
        outer: Any = checkpoint
        for key in keys[:-1]:
            outer = outer.get(key, {})
        if keys[-1] in outer:
            if not _is_of(outer[keys[-1]], types):
                raise _damaged(path, place, outer[keys[-1]])
        elif keys in _REQUIRED:
            raise UserError(f"{path}: a training cannot be resumed from it: it has no {place}; use another checkpoint")
    for name, sums in checkpoint["meta"].get("accounts", {}).items():
        if not (isinstance(sums, list | tuple) and all(type(number) in (int, float) for number in sums)):
            raise _damaged(path, f"meta.accounts.{name}", sums)
    schedules = checkpoint.get("param_schedulers", ())
    if isinstance(schedules, list | tuple):
        for number, schedule in enumerate(schedules):
            if not isinstance(schedule, Mapping):
                raise _damaged(path, f"param_schedulers.{number}", schedule)
    if "run" in checkpoint["meta"] and not {"fixed", "free"} <= checkpoint["meta"]["run"].keys():
        raise _damaged(path, "meta.run", checkpoint["meta"]["run"])


def require_optimisation(checkpoint: Checkpoint, runner: Runner, path: str | Path, same_config: bool) -> None:
    """Compares the stored state of optimiser and schedules with the runner's, before the runner loads it.

    Args:
        checkpoint: a checkpoint that passed :func:`require_parts`.
        runner: a runner whose optimiser and schedules are built.
        path: path of the checkpoint, for messages.
        same_config: whether the state of the schedules is loaded too; if the config changed, it is computed again.

    Raises:
        UserError: if a value has another type or shape than the runner's.
    """
    # With several optimisers, MMEngine has dicts of optimisers and schedules.
    if same_config and isinstance(runner.param_schedulers, list):
        own = [schedule.state_dict() for schedule in runner.param_schedulers]
        _require_alike(path, "param_schedulers", checkpoint.get("param_schedulers"), own)
    if isinstance(runner.optim_wrapper, OptimWrapper) and "optimizer" in checkpoint:
        _require_optimiser(path, checkpoint["optimizer"], runner.optim_wrapper.optimizer)


def _require_optimiser(path: str | Path, stored: Mapping[str, Any], optimiser: optim.Optimizer) -> None:
    """Compares the groups with the optimiser's and, for Adam and AdamW, the state of each parameter."""
    own = optimiser.state_dict()
    for key in ("state", "param_groups"):
        if not isinstance(stored.get(key), type(own[key])):
            raise _damaged(path, f"optimizer.{key}", stored.get(key))
    _require_alike(path, "optimizer.param_groups", stored["param_groups"], own["param_groups"])
    for number, (group, own_group) in enumerate(zip(stored["param_groups"], own["param_groups"], strict=True)):
        for key in _OF_A_GROUP:
            if key in own_group and key not in group:
                raise UserError(
                    f"{path}: a training cannot be resumed from it: group {number} of its optimizer has no {key}; use "
                    "another checkpoint"
                )
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    state_names = next((names for kind, names in _STATE_NAMES.items() if isinstance(optimiser, kind)), ())
    for number, values in stored["state"].items():
        place = f"optimizer.state.{number}"
        if type(number) is not int or not 0 <= number < len(parameters) or not isinstance(values, Mapping):
            raise _damaged(path, place, values)
        for name in state_names:
            value, shape = values.get(name), () if name == "step" else tuple(parameters[number].shape)
            if not (isinstance(value, Tensor) and tuple(value.shape) == shape):
                raise _damaged(path, f"{place}.{name}", value)


def _require_alike(path: str | Path, place: str, stored: object, own: object, all_keys: bool = False) -> None:
    """Raises UserError if a stored value cannot replace the runner's value.

    With ``all_keys`` a dict must have all keys of the runner's dict. This is so for dicts within lists, such as the
    phases of a schedule. Other dicts may lack keys, because newer releases of torch add some.
    """
    if own is None or (stored is None and not all_keys):
        return
    if isinstance(own, Mapping) and isinstance(stored, Mapping):
        for key, value in own.items():
            if key in stored:
                _require_alike(path, f"{place}.{key}", stored[key], value, all_keys)
            elif all_keys:
                raise UserError(
                    f"{path}: a training cannot be resumed from it: {place} has no {key}; use another checkpoint"
                )
    elif isinstance(own, list | tuple) and isinstance(stored, list | tuple) and len(own) == len(stored):
        in_schedules = place.startswith("param_schedulers.")
        for number, (one, other) in enumerate(zip(stored, own, strict=True)):
            _require_alike(path, f"{place}.{number}", one, other, in_schedules)
    elif isinstance(own, Mapping | list | tuple) or not _same_kind(stored, own):
        raise _damaged(path, place, stored)


def _is_of(value: object, types: tuple[type, ...]) -> bool:
    if types == _WHOLE:
        return type(value) is int and 0 <= value < 2**63
    return isinstance(value, types) and not isinstance(value, bool)


def _same_kind(one: object, other: object) -> bool:
    numbers = (int, float)
    return type(one) is type(other) or (type(one) in numbers and type(other) in numbers)


def _damaged(path: str | Path, place: str, value: object) -> UserError:
    shown = f"a tensor of {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)[:80]
    return UserError(f"{path}: a training cannot be resumed from it: {place} is {shown}; use another checkpoint")
