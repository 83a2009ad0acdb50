"""Learning rates by part and by layer: each parameter group has a factor on the scheduled learning rate.

A group with a factor has two keys besides torch's: ``lr_factor``, and ``scheduled_lr``, the learning rate that the
schedules computed; ``lr`` is their product. Schedules read and change the rates without factors
(:func:`without_factors`), so factors work with every schedule, also with one that sets absolute rates.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypedDict

import torch
from mmengine.config import Config
from mmengine.hooks import ParamSchedulerHook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import nn

from tresnet_downstream.errors import UserError
from tresnet_downstream.registry import HOOKS
from tresnet_downstream.running.layer_order import UNITS, layer_numbers
from tresnet_downstream.running.parts import by_part, parameters_of

BACKBONE = "backbone"


class _Group(TypedDict):
    """The learning rates of a parameter group with a factor.

    Attributes:
        lr: learning rate that the optimiser uses.
        lr_factor: factor on the scheduled learning rate.
        scheduled_lr: learning rate that the schedules computed.
    """

    lr: float
    lr_factor: float
    scheduled_lr: float


class RateSettings(NamedTuple):
    """The keys of a config that set learning rates by part.

    Attributes:
        factors: factors by the names of parts.
        decay: learning rate of each backbone layer relative to the next layer; None for no decay.
        unit: the unit of a layer, ``block`` or ``stage``.
    """

    factors: dict[str, float]
    decay: float | None
    unit: str

    def __bool__(self) -> bool:
        return bool(self.factors) or self.decay is not None


def rate_settings(config: Config) -> RateSettings:
    """Reads ``lr_factors``, ``layer_decay`` and ``layer_decay_unit`` of a config.

    Raises:
        UserError: if a factor is not a number above 0, the decay is not above 0 and at most 1, or the unit is unknown.

    Examples:
        >>> rate_settings(Config({"lr_factors": {"backbone": 0.1}}))
        RateSettings(factors={'backbone': 0.1}, decay=None, unit='block')
    """
    factors, decay = by_part("lr_factors", config.get("lr_factors")), config.get("layer_decay")
    for part, factor in factors.items():
        if type(factor) not in (int, float) or not 0 < factor < float("inf"):
            raise UserError(
                f"lr_factors: {part}={factor!r}: give a number above 0; to keep a part unchanged, set "
                f"freeze=dict({part}='always')"
            )
    if decay is not None and (type(decay) not in (int, float) or not 0 < decay <= 1):
        raise UserError(f"layer_decay={decay!r}: give a number above 0, at most 1, or None")
    unit = config.get("layer_decay_unit", UNITS[0])
    if unit not in UNITS:
        raise UserError(f"layer_decay_unit={unit!r}: choose {' or '.join(UNITS)}")
    return RateSettings(factors, decay, unit)


def rate_factors(settings: RateSettings, model: nn.Module, roots: tuple[str, ...] = ("",)) -> dict[str, float]:
    """The learning rate factor of each parameter: the factor of its part times that of its layer.

    With a decay d and backbone layers 0 (the stem) to L, layer n has the factor d ** (L + 1 - n). Parameters outside
    of the backbone have the factor 1. This is the rule of timm and MMDetection, after BEiT (arXiv:2106.08254) and
    ELECTRA.

    Args:
        settings: from :func:`rate_settings`.
        model: the model without its distributed wrapper.
        roots: prefixes that the names of parts may leave out.

    Raises:
        UserError: if the model does not have a part, or the order of the backbone's layers is unknown.
    """
    owners = parameters_of("lr_factors", settings.factors, model, roots)
    factors = {name: float(settings.factors.get(owners.get(name, ""), 1)) for name, _ in model.named_parameters()}
    if settings.decay is None:
        return factors
    prefix = next((f"{root}{BACKBONE}." for root in roots if _has(model, f"{root}{BACKBONE}")), None)
    if prefix is None:
        raise UserError(f"layer_decay: needs a model with a part {BACKBONE!r}, and this one has none; use lr_factors")
    numbers = layer_numbers(model.get_submodule(prefix[:-1]), settings.unit)
    last = max(numbers.values(), default=0)
    for name, number in numbers.items():
        if prefix + name in factors:  # a parameter that two modules share has one name
            factors[prefix + name] *= settings.decay ** (last + 1 - number)
    return factors


def _has(model: nn.Module, name: str) -> bool:
    try:
        model.get_submodule(name)
    except AttributeError:
        return False
    return True


def give_factors(optimiser: OptimWrapper | OptimWrapperDict, model: nn.Module, factors: dict[str, float]) -> None:
    """Splits the parameter groups of an optimiser by factor, and stores ``lr_factor`` in each group.

    :func:`take_effect` applies the factors.

    Args:
        optimiser: the optimiser wrapper, before schedules are built for it.
        model: the model whose parameters it optimises.
        factors: factors by parameter name.
    """
    by_id = {id(parameter): factors[name] for name, parameter in model.named_parameters()}
    for wrapper in _wrappers(optimiser):
        groups: list[dict[str, object]] = []
        for group in wrapper.optimizer.param_groups:
            members: dict[float, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                members.setdefault(by_id.get(id(parameter), 1.0), []).append(parameter)
            settings = {key: value for key, value in group.items() if key != "params"}
            groups += [{"params": each, **settings, "lr_factor": factor} for factor, each in sorted(members.items())]
        wrapper.optimizer.param_groups[:] = groups
        if len(groups) > 1 and wrapper.base_param_settings is None:
            # MMEngine logs this rate, the one without factors, if there are several groups.
            wrapper.base_param_settings = {"params": torch.tensor([0.0]), **wrapper.optimizer.defaults}


def take_effect(optimiser: OptimWrapper | OptimWrapperDict) -> None:
    """Multiplies the learning rates by the factors, after the schedules have set the first rates."""
    for group in _groups(optimiser):
        group["scheduled_lr"] = group["lr"]
        group["lr"] = group["scheduled_lr"] * group["lr_factor"]


@contextmanager
def without_factors(optimiser: OptimWrapper | OptimWrapperDict) -> Iterator[None]:
    """A context in which the groups have the learning rates without factors. On exit, the factors are applied again."""
    groups = [group for group in _groups(optimiser) if "scheduled_lr" in group]
    for group in groups:
        group["lr"] = group["scheduled_lr"]
    try:
        yield
    finally:
        for group in groups:
            group["scheduled_lr"] = group["lr"]
            group["lr"] = group["scheduled_lr"] * group["lr_factor"]


def _wrappers(optimiser: OptimWrapper | OptimWrapperDict) -> list[OptimWrapper]:
    return list(optimiser.values()) if isinstance(optimiser, OptimWrapperDict) else [optimiser]


def _groups(optimiser: OptimWrapper | OptimWrapperDict) -> list[_Group]:
    groups = (group for wrapper in _wrappers(optimiser) for group in wrapper.optimizer.param_groups)
    return [group for group in groups if "lr_factor" in group]


@HOOKS.register_module()
class ScheduleHook(ParamSchedulerHook):
    """MMEngine's hook of schedules, for parameter groups with learning rate factors."""

    def after_train_iter(self, runner: Runner, *args: object, **kwargs: object) -> None:
        """Steps the schedules that count iterations."""
        with without_factors(runner.optim_wrapper):
            super().after_train_iter(runner, *args, **kwargs)

    def after_train_epoch(self, runner: Runner) -> None:
        """Steps the schedules that count epochs."""
        with without_factors(runner.optim_wrapper):
            super().after_train_epoch(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Steps the schedules that depend on a score."""
        # Without a training, `optim_wrapper` is a config or None.
        if isinstance(runner.optim_wrapper, OptimWrapper | OptimWrapperDict):
            with without_factors(runner.optim_wrapper):
                super().after_val_epoch(runner, metrics)
        else:
            super().after_val_epoch(runner, metrics)
