"""The layers of TResNet that reduce height and width: space-to-depth and the anti-aliased blur pool."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SpaceToDepth(nn.Module):
    """Moves each 4x4 square of pixels into the channels.

    N x C x H x W becomes N x 16C x H/4 x W/4. The channels are in the published order, (row, column, C).

    Examples:
        >>> SpaceToDepth()(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 48, 8, 8])
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


class BlurPool(nn.Module):
    """Halves height and width after a 3x3 binomial blur with reflected borders (Zhang, 2019).

    N x C x H x W becomes N x C x ceil(H/2) x ceil(W/2). H and W must be at least 2.

    Examples:
        >>> BlurPool(8)(torch.rand(2, 8, 7, 10)).shape
        torch.Size([2, 8, 4, 5])
    """

    filter: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        # On the CPU also under the device "meta", since no checkpoint has these values.
        binomial = torch.tensor([0.25, 0.5, 0.25], device="cpu")
        filter_2d = torch.outer(binomial, binomial).expand(channels, 1, 3, 3).contiguous()
        # A buffer, so that it follows the module's device and type. It is not in the state dict.
        self.register_buffer("filter", filter_2d, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Blurs and subsamples ``x``."""
        return blurred(x, self.filter)


def blurred(x: Tensor, blur_filter: Tensor) -> Tensor:
    """Blurs and subsamples N x C x H x W by a C x 1 x 3 x 3 filter, as :class:`BlurPool`."""
    padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
    return F.conv2d(padded, blur_filter.to(x.dtype), stride=2, groups=x.shape[1])
