"""Clipping of gradients by one key of the config, for every task."""

import copy
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from tresnet_downstream.errors import UserError
from tresnet_downstream.notices import tell


def with_clipping(optim_wrapper: Any, config: Config) -> Any:
    """The config of an optimiser that clips gradients by ``clip_grad``; as it is if that is None.

    The gradients of an optimiser step (of all accumulated batches, and of all processes) are scaled down to a norm of
    at most ``clip_grad`` over all weights, after float16's scale is taken away.

    Args:
        optim_wrapper: its config.
        config: with ``clip_grad``, None or a number.

    Raises:
        UserError: for something else, and if there are several optimisers.
    """
    norm = config.get("clip_grad")
    if norm is None:
        return optim_wrapper
    if type(norm) not in (int, float) or not 0 < norm < float("inf"):
        raise UserError(
            f"clip_grad={norm!r}: give the largest norm of the gradients, a number above 0, or None; "
            "optim_wrapper.clip_grad=dict(...) takes what else MMEngine clips by"
        )
    if not isinstance(optim_wrapper, Mapping) or "optimizer" not in optim_wrapper:
        raise UserError("clip_grad: is for one optimiser; with several, set clip_grad of each in optim_wrapper")
    clipping = {"max_norm": float(norm)}
    before = optim_wrapper.get("clip_grad")
    if before and dict(before) != clipping:
        tell(f"clip_grad={norm} replaces optim_wrapper.clip_grad={dict(before)}")
    clipped: Any = copy.copy(optim_wrapper)
    clipped["clip_grad"] = clipping
    return clipped
