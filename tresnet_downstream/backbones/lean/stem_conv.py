"""The stem's convolution as a step that saves the images instead of their rearranged copy."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tresnet_downstream.backbones.downsampling import SpaceToDepth
from tresnet_downstream.backbones.lean.norm_backward import backward_step

_REARRANGE = SpaceToDepth()


def lean_stem_conv(x: Tensor, weight: Tensor) -> Tensor:
    """3x3 convolution (C x 48 x 3 x 3) of N x 3 x H x W images after space-to-depth, to N x C x H/4 x W/4."""
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    # The copies in `dtype` are made within the step, so that autograd does not save them.
    with torch.autocast(device, enabled=False):
        result: Tensor = _StemConv.apply(x, weight, dtype)
        return result


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
