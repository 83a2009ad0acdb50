"""Parts of a model that are frozen: for the first epochs of a training, or always.

What is frozen is a function of the epoch, so a resumed run freezes what the interrupted one did. A frozen parameter
gets no gradient, so the optimiser leaves it as it is: no step, no weight decay, no momentum; its state begins when it
is trained first. Unless told otherwise, frozen parts are in evaluation mode: norms use their running statistics and do
not move them.
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
    """For how many epochs each part is frozen, by its name, as the config's ``freeze`` says; infinity for ``always``.

    Raises:
        UserError: for a value that is neither ``always`` nor a whole number from 1.
    """
    epochs = by_part("freeze", config.get("freeze"))
    for part, value in epochs.items():
        if value != ALWAYS and (type(value) is not int or value < 1):
            raise UserError(f"freeze: {part}={value!r}: give a number of epochs, at least 1, or {ALWAYS!r}")
    return {part: float("inf") if value == ALWAYS else value for part, value in epochs.items()}


class Freezing:
    """Freezes parts of a model and trains them again, between epochs.

    Args:
        epochs: from :func:`freeze_settings`.
        model: without the wrapper of several processes.
        roots: what may stand before the names of parts.
        statistics: whether frozen parts are in evaluation mode.

    Raises:
        UserError: for a part that the model does not have.
    """

    def __init__(
        self, epochs: Mapping[str, float], model: nn.Module, roots: tuple[str, ...] = ("",), statistics: bool = True
    ) -> None:
        self.epochs, self.statistics = dict(epochs), statistics
        self.owners = parameters_of("freeze", epochs, model, roots)
        self.modules = module_parts(epochs, model, roots) if statistics else {}
        # What the model freezes itself, by `frozen_stages` for example, stays frozen.
        self.trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.frozen: frozenset[str] = frozenset()  # parts

    def begin_epoch(self, runner: Runner, epoch: int) -> None:
        """Freezes what is frozen in an epoch, and trains the rest.

        Args:
            runner: whose model it is.
            epoch: number of epochs trained before.

        Raises:
            UserError: if nothing is left to train.
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
        """Puts the model into training mode, but for frozen parts."""
        runner.model.train()
        if not self.frozen:
            return
        for name, module in _bare(runner.model).named_modules():
            if self.modules.get(name) in self.frozen:
                module.training = False  # `eval` would reach parts within that are trained


def freezing_of(runner: Runner) -> Freezing:
    """What a runner's config says of frozen parts.

    Raises:
        UserError: for a setting that is none, or a part that the model does not have.
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
    """Wraps the model of several processes anew: a wrapper exchanges gradients of what was trained when it was made.

    Raises:
        UserError: for a wrapper other than MMEngine's of DistributedDataParallel.
    """
    wrapped = runner.model
    if not is_model_wrapper(wrapped):
        return
    if type(wrapped) is not MMDistributedDataParallel:
        raise UserError(f"freeze: is not for models that {type(wrapped).__name__} wraps; leave it out")
    model, config = wrapped.module, runner.cfg.get("model_wrapper_cfg")
    runner.model = model
    del wrapped
    gc.collect()  # the hooks of the wrapper before go with it
    runner.model = runner.wrap_model(None if config is None else config.copy(), model)
    runner._maybe_compile("train_step")


def _bare(model: Any) -> nn.Module:
    bare: nn.Module = model.module if is_model_wrapper(model) else model
    return bare
