"""Decides whether Triton's kernels are used in place of torch's operators: on GPUs, unless they are turned off."""

import os
import warnings
from functools import cache
from importlib import import_module
from threading import Lock
from typing import cast

import torch
from torch import Tensor
from torch.nn import Parameter

from tresnet_downstream.backbones.lean.interfaces import BlurringKernels
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
    """Turns Triton's kernels on or off in this process.

    They are on by default; the environment variable ``TRESNET_TRITON=0`` turns them off. They are used on GPUs, for
    feature maps in channels-last layout, outside ``torch.compile``, after a check on the device that their results
    equal those of torch's operators. A backward pass uses the operators of its forward pass.

    Args:
        on: whether the kernels may be used.

    Returns:
        Whether they were on before the call.

    Examples:
        >>> before = use_triton(False)
        >>> use_triton(before)
        False
    """
    before, _Switch.on = _Switch.on, on
    return before


def kernels_for(*feature_maps: Tensor) -> BlurringKernels | None:
    """The module of the kernels if they can process all of these N x C x H x W feature maps, else None.

    The first call for a device and a type compares the kernels with torch's operators. If a result is wrong or a kernel
    raises, one warning says so, and from then on torch's operators are used for that device and type.
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
    # The type is checked first: a subclass may have no values (FakeTensor), or store them elsewhere.
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
def _module() -> BlurringKernels | None:
    """The module of the kernels; None without Triton, which is installed with torch's wheels for GPUs."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return None
    try:
        return cast(BlurringKernels, import_module(f"{__package__}.triton_kernels"))
    except Exception as error:  # A version of Triton that does not fit torch or Python raises errors of many types.
        warnings.warn(f"Triton cannot be imported, torch's operators are used instead: {error}", stacklevel=3)
        return None


def _are_proven(kernels: BlurringKernels, device: torch.device, dtype: torch.dtype) -> bool:
    key = device, dtype
    if key in _proofs:
        return _proofs[key]
    # During graph capture the check would be recorded and its results cannot be read. A later call checks.
    if _is_capturing(device):
        return False
    with _proof_lock:
        if key in _proofs:
            return _proofs[key]
        failure = failure_of(kernels, device, dtype)
        # Stored before the warning, which raises if warnings are errors.
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
