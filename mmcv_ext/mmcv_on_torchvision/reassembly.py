"""CARAFE (Wang et al., 2019) and convolution at chosen pixels."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcv_on_torchvision.precision import widened


def carafe_naive_forward(
    features: Tensor, masks: Tensor, output: Tensor, *, kernel_size: int, group_size: int, scale_factor: int
) -> None:
    """Upsamples ``features`` with a different kernel for each output pixel.

    Args:
        features: N x C x H x W.
        masks: N x (group_size * kernel_size**2) x sH x sW, the kernels.
        output: N x C x sH x sW, is written to.
        kernel_size: side of a kernel, odd.
        group_size: groups of channels, each with kernels of its own.
        scale_factor: s.
    """
    wide = widened(features)
    kernels = _by_block(widened(masks).to(wide.dtype), group_size, kernel_size**2, scale_factor)
    total = _by_block(torch.zeros_like(output, dtype=wide.dtype), group_size, -1, scale_factor)
    for tap, shifted in enumerate(_neighbours(wide, kernel_size, group_size)):
        total.addcmul_(shifted[..., None, :, None], kernels[:, :, tap, None])
    output.copy_(total.reshape(output.shape))


def carafe_naive_backward(
    grad_output: Tensor,
    features: Tensor,
    masks: Tensor,
    grad_input: Tensor,
    grad_masks: Tensor,
    *,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Writes the gradients of :func:`carafe_naive_forward`."""
    wide = widened(features)
    height, width = wide.shape[2:]
    kernels = _by_block(widened(masks).to(wide.dtype), group_size, kernel_size**2, scale_factor)
    upstream = _by_block(widened(grad_output).to(wide.dtype), group_size, -1, scale_factor)
    by_kernel = torch.empty_like(kernels)
    reach = kernel_size // 2
    by_feature = F.pad(torch.zeros_like(wide), [reach] * 4).unflatten(1, (group_size, -1))
    for tap, shifted in enumerate(_neighbours(wide, kernel_size, group_size)):
        by_kernel[:, :, tap] = (upstream * shifted[..., None, :, None]).sum(2)
        row, column = divmod(tap, kernel_size)
        by_feature[..., row : row + height, column : column + width] += (upstream * kernels[:, :, tap, None]).sum(
            (4, 6)
        )
    inner = by_feature[..., reach : reach + height, reach : reach + width]
    grad_input.copy_(inner.reshape(grad_input.shape))
    grad_masks.copy_(by_kernel.reshape(grad_masks.shape))


def carafe_forward(
    features: Tensor, masks: Tensor, rfeatures: Tensor, routput: Tensor, rmasks: Tensor, output: Tensor, **sizes: int
) -> None:
    """Like :func:`carafe_naive_forward`; copies ``features`` to ``rfeatures`` for the backward pass."""
    rfeatures.copy_(features)
    carafe_naive_forward(features, masks, output, **sizes)


def carafe_backward(
    grad_output: Tensor,
    rfeatures: Tensor,
    masks: Tensor,
    rgrad_output: Tensor,
    rgrad_input_hs: Tensor,
    rgrad_input: Tensor,
    rgrad_masks: Tensor,
    grad_input: Tensor,
    grad_masks: Tensor,
    **sizes: int,
) -> None:
    """Writes the gradients of :func:`carafe_forward`; the other ``r`` tensors are buffers."""
    carafe_naive_backward(grad_output, rfeatures, masks, grad_input, grad_masks, **sizes)


def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    *,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Writes the kernel windows at the chosen pixels of ``im``, 1 x C x H x W, into ``col``, (C * kernel) x pixels."""
    padded = F.pad(im[0], (pad_w, pad_w + kernel_w, pad_h, pad_h + kernel_h))
    rows = mask_h_idx + torch.arange(kernel_h, device=im.device)[:, None, None]
    columns = mask_w_idx + torch.arange(kernel_w, device=im.device)[:, None]
    col.copy_(padded[:, rows, columns].flatten(0, 2))


def masked_col2im_forward(
    col: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, im: Tensor, *, height: int, width: int, channels: int
) -> None:
    """Writes ``col``, C x pixels, to the chosen pixels of ``im``, 1 x C x H x W."""
    im[0, :, mask_h_idx, mask_w_idx] = col.to(im.dtype)


def _by_block(large: Tensor, groups: int, inner: Any, scale: int) -> Tensor:
    """Reshapes N x (groups * inner) x sH x sW to N x groups x inner x H x s x W x s."""
    height, width = large.shape[2] // scale, large.shape[3] // scale
    blocks: Tensor = large.unflatten(1, (groups, inner)).unflatten(4, (width, scale)).unflatten(3, (height, scale))
    return blocks


def _neighbours(features: Tensor, kernel_size: int, groups: int) -> Iterator[Tensor]:
    """``features``, N x groups x C/groups x H x W, shifted by each position of a kernel; 0 outside."""
    height, width = features.shape[2:]
    padded = F.pad(features, [kernel_size // 2] * 4).unflatten(1, (groups, -1))
    for row in range(kernel_size):
        for column in range(kernel_size):
            yield padded[..., row : row + height, column : column + width]
