"""1x1 convolutions of channels-last feature maps and their gradients, as matrix products or convolutions.

The faster form is used. In bfloat16 and float16, torch calls the same library for both, and matrix products have less
overhead. In float32, matrix products call MKL and convolutions call oneDNN. On Intel's processors, MKL computes the
gradient of the weight in half the time; on AMD's, all of MKL's products take twice the time of oneDNN's convolutions.
"""

import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tresnet_downstream.backbones.lean.norm_backward import backward_step


def lean_pointwise_conv(x: Tensor, weight: Tensor) -> Tensor:
    """1x1 convolution of N x C x H x W with K x C x 1 x 1 to N x K x H x W. Autograd saves only these two tensors."""
    device = x.device.type
    if torch.is_autocast_enabled(device):
        x = x.to(torch.get_autocast_dtype(device))
    with torch.autocast(device, enabled=False):
        result: Tensor = _PointwiseConv.apply(x, weight)
        return result


class _PointwiseConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return pointwise_conv(x, weight.flatten(1).to(x.dtype))

    @staticmethod
    @backward_step
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight = ctx.needs_input_grad
        grad_x = input_gradient(grad, weight.flatten(1).to(x.dtype), x) if needs_x else None
        grad_weight = weight_gradient(grad, x).view_as(weight).to(weight.dtype) if needs_weight else None
        return grad_x, grad_weight


def pointwise_conv(x: Tensor, matrix: Tensor) -> Tensor:
    """N x C x H x W and K x C to N x K x H x W."""
    if _as_product(x):
        return F.linear(x.permute(0, 2, 3, 1), matrix).permute(0, 3, 1, 2)
    return F.conv2d(x, matrix[:, :, None, None])


def input_gradient(grad: Tensor, matrix: Tensor, x: Tensor) -> Tensor:
    """``matrix^T @ grad`` at every pixel: N x K x H x W and K x C to N x C x H x W, the shape of ``x``."""
    if _as_product(grad):
        return (grad.permute(0, 2, 3, 1) @ matrix).permute(0, 3, 1, 2)
    return _convolution_backward(grad, x, matrix, (True, False))[0]


def weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """The sum over pixels of ``grad x^T``: N x K x H x W and N x C x H x W to K x C."""
    if _as_product(grad) and _as_product(x):
        return as_rows(grad).T @ as_rows(x)
    # Only the shape of the weight is read.
    matrix = x.new_empty((grad.shape[1], x.shape[1]))
    return _convolution_backward(grad, x, matrix, (False, True))[1][:, :, 0, 0]


def _convolution_backward(grad: Tensor, x: Tensor, matrix: Tensor, needs: tuple[bool, bool]) -> tuple[Tensor, Tensor]:
    grads = torch.ops.aten.convolution_backward(
        grad, x, matrix[:, :, None, None], None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [*needs, False]
    )
    return grads[0], grads[1]


def _as_product(x: Tensor) -> bool:
    if not x.is_contiguous(memory_format=torch.channels_last):
        return False
    return x.device.type != "cpu" or x.dtype != torch.float32 or _is_intel()


def as_rows(x: Tensor) -> Tensor:
    """N x C x H x W in channels-last layout to a view of shape NHW x C, with a row for each pixel."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def as_pixels(rows: Tensor) -> Tensor:
    """L x C to a view of shape 1 x C x 1 x L in channels-last layout."""
    return rows[None, None].permute(0, 3, 1, 2)


@cache
def _is_intel() -> bool:
    """Whether the processor is Intel's; False if it is unknown."""
    try:
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return "Intel" in platform.processor()
