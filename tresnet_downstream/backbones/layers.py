"""The small layers of TResNet: space-to-depth, anti-alias blur pool, squeeze-and-excite, stochastic depth."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
        return blurred(x, self.filter)


def blurred(x: Tensor, blur_filter: Tensor) -> Tensor:
    """The blur pool of N x C x H x W with a C x 1 x 3 x 3 filter."""
    padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
    return F.conv2d(padded, blur_filter.to(x.dtype), stride=2, groups=x.shape[1])


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

    def forward(self, x: Tensor) -> Tensor:
        """Gates for a feature map: N x C x H x W in, N x C x 1 x 1 out."""
        means = x.mean((2, 3), keepdim=True)
        return torch.sigmoid(self.fc2(F.relu(self.fc1(means))))


def drop_path_factors(x: Tensor, rate: float, training: bool) -> Tensor | None:
    """N factors for stochastic depth (Huang et al., 2016): 0, or ``1 / (1 - rate)`` to keep the mean; None for 1."""
    if not training or rate == 0:
        return None
    return torch.empty(x.shape[0], device=x.device).bernoulli_(1 - rate) / (1 - rate)


@torch.fx.wrap
def drop_path(x: Tensor, rate: float, training: bool) -> Tensor:
    """``x``, N x C x H x W, with some pictures set to 0: see :func:`drop_path_factors`."""
    factors = drop_path_factors(x, rate, training)
    return x if factors is None else x * factors.to(x.dtype)[:, None, None, None]
