"""The small layers of TResNet: space-to-depth stem, anti-alias blur pool, squeeze-and-excite."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class SpaceToDepth(nn.Module):
    """Moves each 4x4 square of pixels into the channels.

    N x C x H x W becomes N x 16C x H/4 x W/4. The channel order is (row, column, C), the published one.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Rearranges ``x``; its height and width must be divisible by 4."""
        n, c, h, w = x.shape
        squares = x.reshape(n, c, h // 4, 4, w // 4, 4).permute(0, 3, 5, 1, 2, 4)
        return squares.reshape(n, 16 * c, h // 4, w // 4)

    def back(self, x: Tensor) -> Tensor:
        """The inverse: N x 16C x H/4 x W/4 to N x C x H x W."""
        n, c, h, w = x.shape
        squares = x.reshape(n, 4, 4, c // 16, h, w).permute(0, 3, 4, 1, 5, 2)
        return squares.reshape(n, c // 16, 4 * h, 4 * w)


def lean_stem_conv(x: Tensor, space_to_depth: SpaceToDepth, weight: Tensor) -> Tensor:
    """3x3 convolution of the rearranged pictures, keeping the pictures in place of their rearranged copy."""
    device = x.device.type
    if torch.is_autocast_enabled(device):
        # The short copies live no longer than this step.
        with torch.autocast(device, enabled=False):
            return _LeanStemConv.apply(x, space_to_depth, weight, torch.get_autocast_dtype(device))
    return _LeanStemConv.apply(x, space_to_depth, weight, weight.dtype)


class _LeanStemConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, space_to_depth: SpaceToDepth, weight: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.space_to_depth, ctx.dtype = space_to_depth, dtype
        ctx.save_for_backward(x, weight)
        return F.conv2d(space_to_depth(x).to(dtype), weight.to(dtype), padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor, None]:
        x, weight = ctx.saved_tensors
        source = ctx.space_to_depth(x).to(ctx.dtype)
        needs = [bool(ctx.needs_input_grad[0]), True, False]
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            grad, source, weight.to(ctx.dtype), None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, needs
        )
        grad_x = ctx.space_to_depth.back(grad_x).to(x.dtype) if needs[0] else None
        return grad_x, None, grad_weight.to(weight.dtype), None


class BlurPool(nn.Module):
    """Halves height and width after a 3x3 binomial blur with reflected borders (Zhang, 2019).

    N x C x H x W becomes N x C x ceil(H/2) x ceil(W/2); each side must be at least 2.
    """

    filter: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        # On the CPU even where a network is laid out without memory, since no file brings these numbers.
        binomial = torch.tensor([0.25, 0.5, 0.25], device="cpu")
        filter_2d = torch.outer(binomial, binomial).expand(channels, 1, 3, 3).contiguous()
        # A constant: it follows the module's device and type and stays out of the state dict.
        self.register_buffer("filter", filter_2d, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Blurs and subsamples ``x``."""
        return _blurred(x, self.filter)

    def lean(self, x: Tensor) -> Tensor:
        """The same, keeping nothing for the backward pass: plain operators would keep the padded copy."""
        return _LeanBlur.apply(x, self.filter)


def _blurred(x: Tensor, blur_filter: Tensor) -> Tensor:
    padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
    return F.conv2d(padded, blur_filter.to(x.dtype), stride=2, groups=x.shape[1])


class _LeanBlur(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, blur_filter: Tensor) -> Tensor:
        ctx.save_for_backward(blur_filter)
        ctx.sides = x.shape[2:]
        with torch.autocast(x.device.type, enabled=False):
            return _blurred(x, blur_filter)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (blur_filter,) = ctx.saved_tensors
        # The transpose of the convolution; the last row and column of an even side's frame were read by nobody.
        unread = [(side + 1) % 2 for side in ctx.sides]
        padded = F.conv_transpose2d(
            grad, blur_filter.to(grad.dtype), stride=2, groups=grad.shape[1], output_padding=unread
        )
        # The frame's pixels are those of the second row or column from each border.
        for dim in (2, 3):
            size = padded.shape[dim]
            padded.narrow(dim, 2, 1).add_(padded.narrow(dim, 0, 1))
            padded.narrow(dim, size - 3, 1).add_(padded.narrow(dim, size - 1, 1))
        layout = (
            torch.channels_last if grad.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        )
        return padded[:, :, 1:-1, 1:-1].contiguous(memory_format=layout), None


class SqueezeExcite(nn.Module):
    """One gate in (0, 1) for every picture and channel, from the channel means (Hu et al., 2018).

    Args:
        channels: channels of the feature map that is gated.
        hidden_channels: width of the layer in between.
    """

    def __init__(self, channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, hidden_channels, 1)
        self.fc2 = nn.Conv2d(hidden_channels, channels, 1)

    def gate(self, means: Tensor) -> Tensor:
        """Gates for channel means: N x C x 1 x 1 in, N x C x 1 x 1 out."""
        # On one pixel a 1x1 convolution is a linear layer, which has less to set up.
        hidden = F.relu_(F.linear(means.flatten(1), self.fc1.weight.flatten(1), self.fc1.bias))
        return F.linear(hidden, self.fc2.weight.flatten(1), self.fc2.bias).sigmoid()[:, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        """Gates for a feature map: N x C x H x W in, N x C x 1 x 1 out."""
        return self.gate(x.mean((2, 3), keepdim=True))
