"""Factors of a residual branch of TResNet: the gates of squeeze-and-excite, and stochastic depth."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """Computes a gate in (0, 1) for each image and channel from the channel means (Hu et al., 2018).

    Args:
        channels: channels of the feature map that is gated.
        hidden_channels: channels of the hidden layer.

    Examples:
        >>> SqueezeExcite(8, 4)(torch.rand(2, 8, 5, 5)).shape
        torch.Size([2, 8, 1, 1])
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
    """Draws the factors of stochastic depth (Huang et al., 2016) for N images.

    A factor is 0 with probability ``rate``, else ``1 / (1 - rate)``, so that the expected value is 1.

    Returns:
        N factors; None if all are 1.
    """
    if not training or rate == 0:
        return None
    return torch.empty(x.shape[0], device=x.device).bernoulli_(1 - rate) / (1 - rate)


@torch.fx.wrap
def drop_path(x: Tensor, rate: float, training: bool) -> Tensor:
    """Multiplies each image of N x C x H x W by its factor of :func:`drop_path_factors`."""
    factors = drop_path_factors(x, rate, training)
    return x if factors is None else x * factors.to(x.dtype)[:, None, None, None]
