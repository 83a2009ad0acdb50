"""The stem's convolution as a step that keeps the pictures in place of their rearranged copy."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tresnet_downstream.backbones.layers import SpaceToDepth
from tresnet_downstream.backbones.lean.norm_backward import backward_step

_REARRANGE = SpaceToDepth()


def lean_stem_conv(x: Tensor, weight: Tensor) -> Tensor:
    """3x3 convolution (C x 48 x 3 x 3) of N x 3 x H x W pictures, rearranged by space-to-depth."""
    device = x.device.type
    if not torch.is_autocast_enabled(device):
        return _StemConv.apply(x, weight, weight.dtype)
    # The short copies live no longer than this step.
    with torch.autocast(device, enabled=False):
        return _StemConv.apply(x, weight, torch.get_autocast_dtype(device))


class _StemConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.dtype = dtype
        ctx.save_for_backward(x, weight)
        return F.conv2d(_REARRANGE(x).to(dtype), weight.to(dtype), padding=1)

    @staticmethod
    @backward_step
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, _ = ctx.needs_input_grad
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            grad, _REARRANGE(x).to(ctx.dtype), weight.to(ctx.dtype), None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1,
            [needs_x, needs_weight, False],
        )  # fmt: skip
        grad_x = _REARRANGE.back(grad_x).to(x.dtype) if needs_x else None
        return grad_x, grad_weight.to(weight.dtype) if needs_weight else None, None
