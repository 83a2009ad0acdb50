"""The check of what a training goes on from: the state in a checkpoint, which anybody may have written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, optim

from tresnet_downstream.errors import UserError

_WHOLE, _TEXT, _LIST, _DICT = (int,), (str,), (list, tuple), (Mapping,)
# The parts that are used by name, below keys within each other. They may lack, but not be of another type.
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
# What torch's optimisers read of a group; others of its settings have defaults, or are of newer releases.
_OF_A_GROUP = ("params", "lr", "lr_factor", "scheduled_lr", "betas", "eps", "momentum", "weight_decay")
_KEPT = {optim.Adam: ("step", "exp_avg", "exp_avg_sq"), optim.AdamW: ("step", "exp_avg", "exp_avg_sq")}
_REQUIRED = (
    *(("meta", "epoch"), ("meta", "iter")),
    *(("message_hub", key) for key in ("log_scalars", "runtime_info", "resumed_keys")),
)


def require_parts(checkpoint: Mapping[str, Any], path: str | Path) -> None:
    """Checks the parts of a checkpoint that are used by name.

    Raises:
        UserError: one is of another type than a training writes, or lacks.
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
            raise UserError(f"{path}: a training cannot go on from it: it has no {place}")
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


def require_optimisation(checkpoint: Mapping[str, Any], runner: Runner, path: str | Path, same_config: bool) -> None:
    """Compares the state of optimiser and schedules with what a runner has before it takes it up.

    Args:
        checkpoint: with parts as `require_parts` asks.
        runner: with optimiser and schedules built.
        path: of the checkpoint, for messages.
        same_config: whether the schedules of the checkpoint are used; otherwise they begin as the config has them.

    Raises:
        UserError: a value is of another type or shape than the runner's.
    """
    # MMEngine gives several optimisers, and their schedules, as dicts.
    if same_config and isinstance(runner.param_schedulers, list):
        own = [schedule.state_dict() for schedule in runner.param_schedulers]
        _require_alike(path, "param_schedulers", checkpoint.get("param_schedulers"), own)
    if isinstance(runner.optim_wrapper, OptimWrapper) and "optimizer" in checkpoint:
        _require_optimiser(path, checkpoint["optimizer"], runner.optim_wrapper.optimizer)


def _require_optimiser(path: str | Path, stored: Mapping[str, Any], optimiser: optim.Optimizer) -> None:
    """The settings of the groups as the optimiser has them; of Adam and AdamW, also what they keep of a parameter."""
    own = optimiser.state_dict()
    for key in ("state", "param_groups"):
        if not isinstance(stored.get(key), type(own[key])):
            raise _damaged(path, f"optimizer.{key}", stored.get(key))
    _require_alike(path, "optimizer.param_groups", stored["param_groups"], own["param_groups"])
    for number, (group, own_group) in enumerate(zip(stored["param_groups"], own["param_groups"], strict=True)):
        for key in _OF_A_GROUP:
            if key in own_group and key not in group:
                raise UserError(
                    f"{path}: a training cannot go on from it: group {number} of its optimizer has no {key}"
                )
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    kept = next((names for kind, names in _KEPT.items() if isinstance(optimiser, kind)), ())
    for number, values in stored["state"].items():
        place = f"optimizer.state.{number}"
        if type(number) is not int or not 0 <= number < len(parameters) or not isinstance(values, Mapping):
            raise _damaged(path, place, values)
        for name in kept:
            value, shape = values.get(name), () if name == "step" else tuple(parameters[number].shape)
            if not (isinstance(value, Tensor) and tuple(value.shape) == shape):
                raise _damaged(path, f"{place}.{name}", value)


def _require_alike(path: str | Path, place: str, stored: Any, own: Any, all_keys: bool = False) -> None:
    """Raises UserError where a stored value cannot stand in the place of the runner's.

    With ``all_keys`` a dict must have all keys of the runner's: those within lists, such as the phases of a schedule,
    are read key by key. Others may lack keys, which newer releases of torch add.
    """
    if own is None or (stored is None and not all_keys):
        return
    if isinstance(own, Mapping) and isinstance(stored, Mapping):
        for key, value in own.items():
            if key in stored:
                _require_alike(path, f"{place}.{key}", stored[key], value, all_keys)
            elif all_keys:
                raise UserError(
                    f"{path}: a training cannot go on from it: {place} has no {key}; take another checkpoint"
                )
    elif isinstance(own, list | tuple) and isinstance(stored, list | tuple) and len(own) == len(stored):
        in_schedules = place.startswith("param_schedulers.")
        for number, (one, other) in enumerate(zip(stored, own, strict=True)):
            _require_alike(path, f"{place}.{number}", one, other, in_schedules)
    elif isinstance(own, Mapping | list | tuple) or not _same_kind(stored, own):
        raise _damaged(path, place, stored)


def _is_of(value: Any, types: tuple[type, ...]) -> bool:
    if types == _WHOLE:
        return type(value) is int and 0 <= value < 2**63
    return isinstance(value, types) and not isinstance(value, bool)


def _same_kind(one: Any, other: Any) -> bool:
    numbers = (int, float)
    return type(one) is type(other) or (type(one) in numbers and type(other) in numbers)


def _damaged(path: str | Path, place: str, value: Any) -> UserError:
    shown = f"a tensor of {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)[:80]
    return UserError(f"{path}: a training cannot go on from it: {place} is {shown}; take another checkpoint")
