"""Whether Triton's kernels take the place of torch's operators: by themselves, on a GPU, unless turned off."""

import os
import warnings
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

# The kernels compute in float32.
TYPES = (torch.float32, torch.bfloat16, torch.float16)
# Tests add the CPU, where Triton's interpreter runs the kernels.
DEVICES = ["cuda"]
# Pictures are an axis of the grid that kernels run on.
_MOST_PICTURES = 65535


class _Switch:
    on = os.environ.get("TRESNET_TRITON", "1") != "0"


def use_triton(on: bool) -> bool:
    """Turns the kernels on or off in this process; the environment variable ``TRESNET_TRITON=0`` starts with them off.

    They are on at first, and serve where they can: on a GPU, in channels-last layout, outside ``torch.compile``. A
    backward pass takes what its forward pass took.

    Returns:
        Whether they were on before.
    """
    before, _Switch.on = _Switch.on, on
    return before


def kernels_for(*feature_maps: Tensor) -> Any:
    """The module of the kernels if they can read all of these N x C x H x W, else None."""
    if not _Switch.on or not all(_is_readable(x) for x in feature_maps):
        return None
    return _kernels(feature_maps[0].device.type)


def _is_readable(x: Tensor) -> bool:
    return (
        x.device.type in DEVICES
        and x.dtype in TYPES
        and x.is_contiguous(memory_format=torch.channels_last)
        and x.numel() > 0
        and len(x) <= _MOST_PICTURES
    )


@cache
def _kernels(device: str) -> Any:
    """The module, if Triton is there (torch's wheels for GPUs bring it) and can compile for this device."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return None
    kernels = import_module("tresnet_downstream.backbones.lean.triton_kernels")
    values = torch.ones(1, device=device)
    try:
        kernels.line(values.view(1, 1, 1, 1), values, values)
    except Exception as error:  # An old GPU, no C compiler: Triton has many ways to say so.
        warnings.warn(f"Triton does not work here, torch's operators are used instead: {error}", stacklevel=2)
        return None
    return kernels
