"""Freezing of parts of a model, for the first epochs of a training or always.

The frozen parts depend only on the epoch, so a resumed run freezes the same ones. A frozen parameter gets no gradient,
and the optimiser does not change it: no step, no weight decay, no momentum. The optimiser creates its state at the
first step after freezing. By default frozen parts are in evaluation mode: norms use their running statistics and do
not update them.
"""

import gc
from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel, is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from tresnet_downstream.errors import UserError
from tresnet_downstream.notices import tell
from tresnet_downstream.running.parts import by_part, module_parts, parameters_of

ALWAYS = "always"


def freeze_settings(config: Config) -> dict[str, float]:
    """Reads the key ``freeze``: the number of epochs that each part is frozen, by its name; infinity for ``always``.

    Raises:
        UserError: if a value is neither ``always`` nor a whole number of at least 1.

    Examples:
        >>> freeze_settings(Config({"freeze": {"backbone": {"stem": "always"}, "head": 2}}))
        {'backbone.stem': inf, 'head': 2}
    """
    epochs = by_part("freeze", config.get("freeze"))
    for part, value in epochs.items():
        if value != ALWAYS and (type(value) is not int or value < 1):
            raise UserError(f"freeze: {part}={value!r}: give a number of epochs, at least 1, or {ALWAYS!r}")
    return {part: float("inf") if value == ALWAYS else value for part, value in epochs.items()}


class Freezing:
    """Freezes and unfreezes parts of a model between epochs.

    Args:
        epochs: from :func:`freeze_settings`.
        model: the model without its distributed wrapper.
        roots: prefixes that the names of parts may leave out.
        statistics: whether frozen parts are in evaluation mode.

    Raises:
        UserError: if the model does not have a part.
    """

    def __init__(
        self, epochs: Mapping[str, float], model: nn.Module, roots: tuple[str, ...] = ("",), statistics: bool = True
    ) -> None:
        self.epochs, self.statistics = dict(epochs), statistics
        self.owners = parameters_of("freeze", epochs, model, roots)
        self.modules = module_parts(epochs, model, roots) if statistics else {}
        # Parameters that the model froze itself, for example by `frozen_stages`, stay frozen.
        self.trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.frozen: frozenset[str] = frozenset()  # parts

    def begin_epoch(self, runner: Runner, epoch: int) -> None:
        """Freezes the parts that are frozen in an epoch, and unfreezes the others.

        Args:
            runner: the runner that trains the model.
            epoch: number of epochs trained before.

        Raises:
            UserError: if no parameter is left to train.
        """
        frozen = frozenset(part for part, count in self.epochs.items() if epoch < count)
        if frozen == self.frozen:
            return
        model = _bare(runner.model)
        for name, parameter in model.named_parameters():
            if name in self.trainable and name in self.owners:
                parameter.requires_grad_(self.owners[name] not in frozen)
                if not parameter.requires_grad:
                    parameter.grad = None
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise UserError(f"freeze: no weight is left to train in epoch {epoch + 1}; freeze fewer parts")
        _tell(self.epochs, self.frozen, frozen, epoch)
        self.frozen = frozen
        _wrap_again(runner)

    def train(self, runner: Runner) -> None:
        """Puts the model into training mode, except the frozen parts."""
        runner.model.train()
        if not self.frozen:
            return
        for name, module in _bare(runner.model).named_modules():
            if self.modules.get(name) in self.frozen:
                module.training = False  # not `eval`, which would also reach trained parts within this module


def freezing_of(runner: Runner) -> Freezing:
    """The :class:`Freezing` that a runner's config describes.

    Raises:
        UserError: if a setting is invalid, or the model does not have a part.
    """
    statistics = runner.cfg.get("freeze_statistics", True)
    if type(statistics) is not bool:
        raise UserError(f"freeze_statistics={statistics!r}: give True or False")
    roots: tuple[str, ...] = getattr(runner, "part_roots", ("",))
    return Freezing(freeze_settings(runner.cfg), _bare(runner.model), roots, statistics)


def _tell(epochs: Mapping[str, float], before: Iterable[str], now: Iterable[str], epoch: int) -> None:
    if added := sorted(set(now) - set(before)):
        spans = (f"{part} ({_span(epochs[part])})" for part in added)
        tell(f"frozen: {', '.join(spans)}")
    if trained := sorted(set(before) - set(now)):
        tell(f"trained from epoch {epoch + 1}: {', '.join(trained)}")


def _span(count: float) -> str:
    return ALWAYS if count == float("inf") else f"epoch 1 to {count:.0f}" if count > 1 else "epoch 1"


def _wrap_again(runner: Runner) -> None:
    """Wraps a distributed model again: a wrapper exchanges only gradients of parameters that were trainable before.

    Raises:
        UserError: if the wrapper is not ``MMDistributedDataParallel``.
    """
    wrapped = runner.model
    if not is_model_wrapper(wrapped):
        return
    if type(wrapped) is not MMDistributedDataParallel:
        raise UserError(f"freeze: does not work with the model wrapper {type(wrapped).__name__}; leave it out")
    model, config = wrapped.module, runner.cfg.get("model_wrapper_cfg")
    runner.model = model
    del wrapped
    gc.collect()  # removes the old wrapper's autograd hooks
    runner.model = runner.wrap_model(None if config is None else config.copy(), model)
    runner._maybe_compile("train_step")


def _bare(model: Any) -> nn.Module:
    bare: nn.Module = model.module if is_model_wrapper(model) else model
    return bare
