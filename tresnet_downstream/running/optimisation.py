"""Optimisers, precision and learning rate schedules of the ASL and ML-Decoder releases and of single-label recipes."""

import math
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.optim import OptimWrapper, OptimWrapperDict, _ParamScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from tresnet_downstream.errors import UserError
from tresnet_downstream.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS, PARAM_SCHEDULERS

AMP_TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@OPTIM_WRAPPERS.register_module()
class RecipeOptimWrapper(OptimWrapper):
    """An optimiser wrapper with mixed precision on any device, and with losses that are sums over the global batch.

    If the loss is a sum, several processes or accumulated batches give the same gradients as one process with the
    whole batch: the loss is not divided by the number of accumulated batches, as MMEngine does, and
    DistributedDataParallel's mean over processes is undone. If the loss is a mean, both are kept.

    Difference from MMEngine: gradients are not accumulated across the end of an epoch, so a checkpoint holds everything
    that a resumed run needs. The last step of an epoch may have fewer batches.

    Args:
        optimizer: the optimiser.
        amp: ``bfloat16`` or ``float16`` for autocast, on a CPU too; None for full precision. float16 scales
            the loss against underflow.
        reduction: ``sum`` or ``mean``: how the loss is reduced over a batch.
        epoch_length: number of batches of an epoch.
        **kwargs: see MMEngine's ``OptimWrapper``: ``accumulative_counts``, ``clip_grad``.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        amp: str | None = None,
        reduction: str = "sum",
        epoch_length: int = sys.maxsize,
        **kwargs: object,
    ) -> None:
        clip_grad = kwargs.get("clip_grad")
        if clip_grad is not None and not (isinstance(clip_grad, dict) and clip_grad):
            raise UserError(f"optim_wrapper.clip_grad={clip_grad!r}: give one such as dict(max_norm=1), or None")
        super().__init__(optimizer, **kwargs)
        if amp is not None and amp not in AMP_TYPES:
            raise UserError(f"amp={amp!r} is unknown: choose bfloat16, float16 or None")
        self.amp, self.reduction, self.epoch_length = amp, reduction, epoch_length
        self.device = optimizer.param_groups[-1]["params"][0].device.type
        self.scaler = torch.amp.GradScaler(self.device, enabled=amp == "float16")

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The context of the forward pass and the loss."""
        with super().optim_context(model), autocast(self.device, self.amp):
            yield

    def scale_loss(self, loss: Tensor) -> Tensor:
        """Scales the loss for several processes or accumulated batches, see the class."""
        if self.reduction == "sum":
            return loss * int(get_world_size())
        done = self._inner_count % self.epoch_length
        left = self.epoch_length - done + done % self._accumulative_counts
        return loss / int(min(self._accumulative_counts, left))

    def should_update(self) -> bool:
        """Whether the last batch completed an optimiser step."""
        return self._completes_step(self._inner_count)

    def should_sync(self) -> bool:
        """Whether the next batch completes an optimiser step, so processes must exchange gradients."""
        return self._completes_step(self._inner_count + 1)

    def _completes_step(self, count: int) -> bool:
        return bool(count % self.epoch_length % self._accumulative_counts == 0)

    def steps_after(self, batches: int) -> int:
        """Number of optimiser steps in the first ``batches`` batches of a training."""
        epochs, others = divmod(batches, self.epoch_length)
        return int(epochs * -(-self.epoch_length // self._accumulative_counts) + others // self._accumulative_counts)

    def backward(self, loss: Tensor, **kwargs: object) -> None:
        """Computes the gradients of the loss, and adds them to those of earlier batches."""
        super().backward(self.scaler.scale(loss), **kwargs)

    def step(self, **kwargs: object) -> None:
        """Clips the gradients, if the config says so, and updates the weights."""
        if self.clip_grad_kwargs:
            self.scaler.unscale_(self.optimizer)
            self._clip_grad()
        self.scaler.step(self.optimizer, **kwargs)
        self.scaler.update()

    def state_dict(self) -> dict[str, object]:
        """The state of the optimiser, and the loss scale."""
        return {**super().state_dict(), "loss_scaler": self.scaler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state from :meth:`state_dict`."""
        state_dict = dict(state_dict)
        # Missing if a detector was trained without amp, empty if it was not float16; then the scale starts again.
        if scale := state_dict.pop("loss_scaler", None):
            self.scaler.load_state_dict(scale)
        super().load_state_dict(state_dict)


def optimizer_steps(wrapper: OptimWrapper | OptimWrapperDict, batches: int, max_batches: int) -> int:
    """Number of optimiser steps in the first batches of a training.

    Args:
        wrapper: the optimiser wrapper; with several optimisers, each batch counts as a step.
        batches: number of batches.
        max_batches: number of batches of the whole training; the last one completes a step.
    """
    if isinstance(wrapper, RecipeOptimWrapper):
        return wrapper.steps_after(batches)
    accumulated = getattr(wrapper, "_accumulative_counts", 1)
    # MMEngine accumulates across the ends of epochs, and the last batch of the training completes a step.
    return batches // accumulated + int(batches == max_batches and batches % accumulated > 0)


def autocast(device: str, amp: str | None) -> torch.autocast:
    """The autocast context for ``amp``; for None, a context without effect."""
    return torch.autocast(device, AMP_TYPES[amp or "bfloat16"], enabled=amp is not None)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class MatrixDecayConstructor:
    """Applies weight decay only to parameters with more than one dimension: not to norms and biases.

    Args:
        optim_wrapper_cfg: config of the optimiser wrapper, with ``optimizer``.
        paramwise_cfg: must be empty; MMEngine passes it. Learning rates of parts are set by ``lr_factors`` and
            ``layer_decay``, see :mod:`rates`.

    Raises:
        UserError: if ``paramwise_cfg`` is not empty.
    """

    def __init__(self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: dict[str, Any] | None = None) -> None:
        if paramwise_cfg:
            raise UserError(
                "optim_wrapper.paramwise_cfg: MatrixDecayConstructor, which gives norms and biases no weight decay, "
                "does not take it; set lr_factors=dict(backbone=0.1) or layer_decay=0.8 for learning rates by part, or "
                "optim_wrapper.constructor='DefaultOptimWrapperConstructor', which takes paramwise_cfg as MMEngine does"
            )
        self.wrapper = dict(optim_wrapper_cfg)

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Builds the optimiser for the trainable parameters of ``model``."""
        optimizer = dict(self.wrapper.pop("optimizer"))
        decay = optimizer.pop("weight_decay", 0.0)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer["params"] = [
            {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
            {"params": [p for p in trained if p.dim() > 1], "weight_decay": decay},
        ]
        return OPTIM_WRAPPERS.build(
            {"type": "RecipeOptimWrapper", **self.wrapper, "optimizer": OPTIMIZERS.build(optimizer)}
        )


@PARAM_SCHEDULERS.register_module()
class OneCycle(OneCycleLR, _ParamScheduler):  # MMEngine recognises schedules by the second base class
    """torch's one-cycle schedule, updated each iteration: a cosine from ``max_lr / 25`` to ``max_lr`` and down to 0.

    It also changes Adam's first beta from 0.95 to 0.85 and back. MMEngine's schedule of the same name does not.

    Args:
        optimizer: the optimiser wrapper, from MMEngine.
        max_lr: the largest learning rate. If a parameter group's rate is the optimiser's times a factor (MMEngine's
            ``paramwise_cfg``), the group's largest rate is ``max_lr`` times that factor.
        end: number of iterations; MMEngine passes the number of the whole training.
        pct_start: fraction of the iterations in which the rate increases.
        by_epoch: must be False: the schedule counts iterations.
    """

    def __init__(
        self, optimizer: OptimWrapper, max_lr: float, end: int, pct_start: float = 0.2, by_epoch: bool = False
    ) -> None:
        if by_epoch:
            raise UserError("OneCycle steps by iteration: set by_epoch=False")
        self.by_epoch = by_epoch
        if pct_start * end == 1:
            # torch divides by the length of the rise minus 1, which is 0 here; a slightly longer rise avoids that.
            pct_start *= 1 + 1e-9
        base = optimizer.optimizer.defaults.get("lr")
        peaks = [max_lr * (group["lr"] / base if base else 1) for group in optimizer.optimizer.param_groups]
        super().__init__(optimizer.optimizer, peaks, total_steps=end, pct_start=pct_start)
        # Without this, torch warns if accumulation or float16's loss scaling delays the first step.
        optimizer.optimizer._opt_called = True


@PARAM_SCHEDULERS.register_module()
class Cosine(_ParamScheduler):
    """Cosine decay of the optimiser's learning rate after a linear warm-up: timm's ``cosine`` schedule of one cycle.

    At step ``t`` of ``T`` the rate is ``lr_min + (lr - lr_min) * (1 + cos(pi * t / T)) / 2``. During the warm-up it
    increases linearly from ``warmup_lr`` to ``lr``. As in timm, the warm-up does not delay the cosine.

    Args:
        optimizer: the optimiser wrapper, from MMEngine.
        end: number of iterations or epochs; MMEngine passes the number of the whole training.
        warmup: fraction of them that is the warm-up, from 0 to below 1.
        warmup_lr: learning rate of the first step of the warm-up.
        lr_min: learning rate at the end.
        by_epoch: whether the rate changes after each epoch, as in timm's training script, or after each iteration.
    """

    def __init__(
        self,
        optimizer: OptimWrapper,
        end: int,
        warmup: float = 0.0,
        warmup_lr: float = 1e-5,
        lr_min: float = 0.0,
        by_epoch: bool = False,
        **options: object,
    ) -> None:
        if not 0 <= warmup < 1 or min(warmup_lr, lr_min) < 0:
            raise UserError(
                f"Cosine: warmup={warmup}, warmup_lr={warmup_lr}, lr_min={lr_min}: give a share from 0 to below 1, and "
                "rates from 0"
            )
        self.warmup, self.warmup_lr, self.lr_min = warmup * end, warmup_lr, lr_min
        super().__init__(optimizer, "lr", end=end, by_epoch=by_epoch, **options)

    def _get_value(self) -> list[float]:
        step = self.last_step
        if step < self.warmup:
            return [self.warmup_lr + step * (base - self.warmup_lr) / self.warmup for base in self.base_values]
        share = (1 + math.cos(math.pi * min(step / self.end, 1))) / 2
        return [self.lr_min + (base - self.lr_min) * share for base in self.base_values]


@OPTIMIZERS.register_module()  # type: ignore[untyped-decorator]
def Lamb(params: Iterable[object], **options: object) -> torch.optim.Optimizer:  # noqa: N802 - as in configs
    """Timm's LAMB optimiser (arXiv:1904.00962), with its arguments: ``lr``, ``betas``, ``weight_decay`` and so on.

    Raises:
        UserError: if timm is not installed.
    """
    try:
        from timm.optim import Lamb as TimmLamb
    except ImportError as error:
        raise UserError("Lamb needs timm: pip install 'tresnet-downstream[timm]'") from error
    optimizer: torch.optim.Optimizer = TimmLamb(params, **options)
    return optimizer
