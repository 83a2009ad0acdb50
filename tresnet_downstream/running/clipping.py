"""Gradient clipping by the key ``clip_grad`` of a config, for every task."""

import copy
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from tresnet_downstream.errors import UserError
from tresnet_downstream.notices import tell


def with_clipping(optim_wrapper: Any, config: Config) -> Any:
    """The config of an optimiser wrapper with the config's ``clip_grad``; unchanged if ``clip_grad`` is None.

    The gradients of an optimiser step (summed over accumulated batches and processes) are scaled so that their norm
    over all weights is at most ``clip_grad``. In float16, the loss scale is removed first.

    Args:
        optim_wrapper: config of the optimiser wrapper.
        config: the training's config; its ``clip_grad`` is None or a number.

    Raises:
        UserError: if ``clip_grad`` is neither, or if there are several optimisers.
    """
    norm = config.get("clip_grad")
    if norm is None:
        return optim_wrapper
    if type(norm) not in (int, float) or not 0 < norm < float("inf"):
        raise UserError(
            f"clip_grad={norm!r}: give the largest norm of the gradients, a number above 0, or None; "
            "for MMEngine's other ways to clip, set optim_wrapper.clip_grad=dict(...)"
        )
    if not isinstance(optim_wrapper, Mapping) or "optimizer" not in optim_wrapper:
        raise UserError("clip_grad: needs a single optimiser; with several, set clip_grad of each in optim_wrapper")
    clipping = {"max_norm": float(norm)}
    before = optim_wrapper.get("clip_grad")
    if before and dict(before) != clipping:
        tell(f"clip_grad={norm} replaces optim_wrapper.clip_grad={dict(before)}")
    clipped: Any = copy.copy(optim_wrapper)
    clipped["clip_grad"] = clipping
    return clipped
