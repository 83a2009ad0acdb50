"""Whether Triton's kernels take the place of torch's operators: by themselves, on a GPU, unless turned off."""

import os
import warnings
from functools import cache
from importlib import import_module
from threading import Lock
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from tresnet_downstream.backbones.lean.kernel_proof import failure_of

# The kernels compute in float32.
TYPES = (torch.float32, torch.bfloat16, torch.float16)
# Tests add the CPU, where Triton's interpreter runs the kernels.
DEVICES = ["cuda"]
# By device and type: whether the kernels computed there what torch's operators compute.
_proofs: dict[tuple[torch.device, torch.dtype], bool] = {}
_proof_lock = Lock()


class _Switch:
    on = os.environ.get("TRESNET_TRITON", "1") != "0"


def use_triton(on: bool) -> bool:
    """Turns the kernels on or off in this process; the environment variable ``TRESNET_TRITON=0`` starts with them off.

    They are on at first, and serve where they can: on a GPU, in channels-last layout, outside ``torch.compile``, once
    they have proved there that they compute what torch's operators do. A backward pass takes what its forward pass
    took.

    Returns:
        Whether they were on before.
    """
    before, _Switch.on = _Switch.on, on
    return before


def kernels_for(*feature_maps: Tensor) -> Any:
    """The module of the kernels if they can read all of these N x C x H x W, else None.

    The first call for a device and a type compares the kernels with torch's operators there. If a result is wrong or
    a kernel raises, one warning says so, and torch's operators serve that device and type from then on.
    """
    if not _Switch.on or _are_intercepted() or not _are_readable(feature_maps):
        return None
    x = feature_maps[0]
    kernels = _module()
    if kernels is None or not kernels.fits(x) or not _are_proven(kernels, x.device, x.dtype):
        return None
    return kernels


def _are_intercepted() -> bool:
    """Whether a transform of torch.func, or a dispatch mode that fakes, traces or counts, must see every operator."""
    return torch._C._len_torch_dispatch_stack() > 0 or torch._C._functorch.peek_interpreter_stack() is not None


def _are_readable(feature_maps: tuple[Tensor, ...]) -> bool:
    """Whether all are plain tensors in channels-last layout, of one shape, type and device that the kernels know."""
    # A subclass may hold no values (FakeTensor), or hold them elsewhere. Its type is asked for before anything else.
    if not all(type(x) in (Tensor, Parameter) for x in feature_maps):
        return False
    first, *others = feature_maps
    return (
        first.device.type in DEVICES
        and first.dtype in TYPES
        and first.numel() > 0
        and all((x.shape, x.dtype, x.device) == (first.shape, first.dtype, first.device) for x in others)
        and all(x.is_contiguous(memory_format=torch.channels_last) for x in feature_maps)
    )


@cache
def _module() -> Any:
    """The module, if Triton is there: torch's wheels for GPUs bring it."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return None
    try:
        return import_module(f"{__package__}.triton_kernels")
    except Exception as error:  # A Triton that does not fit torch or Python has many ways to say so.
        warnings.warn(f"Triton cannot be imported, torch's operators are used instead: {error}", stacklevel=3)
        return None


def _are_proven(kernels: Any, device: torch.device, dtype: torch.dtype) -> bool:
    key = device, dtype
    if key in _proofs:
        return _proofs[key]
    # A graph would record the proof and cannot wait for its results: torch's operators serve until a later call.
    if _is_capturing(device):
        return False
    with _proof_lock:
        if key in _proofs:
            return _proofs[key]
        failure = failure_of(kernels, device, dtype)
        # Before the warning, which raises where warnings are errors.
        _proofs[key] = failure is None
    if failure is not None:
        name = f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
        warnings.warn(
            f"Triton's kernels do not work on {name} in {dtype}, torch's operators are used instead: {failure}",
            stacklevel=3,
        )
    return failure is None


def _is_capturing(device: torch.device) -> bool:
    """Whether this thread is recording a CUDA graph on the device."""
    if device.type != "cuda":
        return False
    with torch.cuda.device(device):
        return torch.cuda.is_current_stream_capturing()
