"""The blur pool as a step that saves no feature map for the backward pass. Plain operators save the padded copy."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tresnet_downstream.backbones.downsampling import BlurPool, blurred
from tresnet_downstream.backbones.lean.norm_backward import backward_step


def lean_blur(x: Tensor, blur: BlurPool) -> Tensor:
    """``blur(x)`` for N x C x H x W."""
    result: Tensor = _Blur.apply(x, blur.filter)
    return result


class _Blur(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, blur_filter: Tensor) -> Tensor:
        ctx.save_for_backward(blur_filter)
        ctx.sides = x.shape[2:]
        with torch.autocast(x.device.type, enabled=False):
            return blurred(x, blur_filter)

    @staticmethod
    @backward_step
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (blur_filter,) = ctx.saved_tensors
        # The transposed convolution. If a side is even, no output depends on the last row or column of the padding.
        unused = [(side + 1) % 2 for side in ctx.sides]
        padded = F.conv_transpose2d(
            grad, blur_filter.to(grad.dtype), stride=2, groups=grad.shape[1], output_padding=unused
        )
        # Reflection copied the padding from the second row or column at each border, which gets its gradients.
        for dim in (2, 3):
            size = padded.shape[dim]
            padded.narrow(dim, 2, 1).add_(padded.narrow(dim, 0, 1))
            padded.narrow(dim, size - 3, 1).add_(padded.narrow(dim, size - 1, 1))
        channels_last = grad.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return padded[:, :, 1:-1, 1:-1].contiguous(memory_format=layout), None
