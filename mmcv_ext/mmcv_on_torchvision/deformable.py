"""Deformable convolution (Dai et al., 2017; Zhu et al., 2018) and attention (Zhu et al., 2020)."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcv_on_torchvision.precision import widened

# mmcv's names of strides, padding, dilation and groups in its two functions. The kernel size is the size of the
# weights, and torchvision chooses the number of images per step (im2col_step) itself.
PLAIN = ("dH", "dW", "padH", "padW", "dilationH", "dilationW", "group", "deformable_group")
MODULATED = ("stride_h", "stride_w", "pad_h", "pad_w", "dilation_h", "dilation_w", "group", "deformable_group")
# Attribute of a gradient that stores the gradient with respect to the weights.
_BY_WEIGHTS = "_deform_conv_by_weights"


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    **sizes: int,
) -> None:
    """Writes the convolution of ``input``, N x C x H x W, sampled at shifted positions, into ``output``.

    ``offset`` has the shifts, N x (2 * deformable_group * kH * kW) x H' x W', rows before columns. ``columns`` and
    ``ones`` are mmcv's work buffers and are not used. ``sizes`` has the integers that :data:`PLAIN` names.
    """
    operands = _operands(input, weight, offset, None, None)
    numbers = _numbers(sizes, PLAIN, use_mask=False)
    output.copy_(torch.ops.torchvision.deform_conv2d(*operands, *numbers))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **sizes: int,
) -> None:
    """Writes the gradients with respect to the images and the shifts.

    The same operator also computes the gradient with respect to the weights. It is stored as an attribute of
    ``grad_output`` for :func:`deform_conv_backward_parameters`, which mmcv calls next with the same tensors.
    """
    operands = _operands(input, weight, offset, None, None)
    numbers = _numbers(sizes, PLAIN, use_mask=False)
    gradients = torch.ops.torchvision._deform_conv2d_backward(widened(grad_output), *operands, *numbers)
    grad_input.copy_(gradients[0])
    grad_offset.copy_(_without_gradient_outside(gradients[2], operands[2], input, weight, numbers))
    vars(grad_output)[_BY_WEIGHTS] = (columns, gradients[1])


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    *,
    scale: float,
    **sizes: int,
) -> None:
    """Adds ``scale`` times the gradient with respect to the weights to ``grad_weight``."""
    # A gradient may be passed to several convolutions, but each forward call has its own ``columns``.
    owner, gradient = vars(grad_output).pop(_BY_WEIGHTS, (None, None))
    if owner is columns:
        grad_weight.add_(gradient.to(grad_weight.dtype), alpha=scale)
        return
    # Only the weights need a gradient, which does not depend on their values.
    operands = _operands(input, torch.zeros_like(grad_weight), offset, None, None)
    numbers = _numbers(sizes, PLAIN, use_mask=False)
    gradients = torch.ops.torchvision._deform_conv2d_backward(widened(grad_output), *operands, *numbers)
    grad_weight.add_(gradients[1].to(grad_weight.dtype), alpha=scale)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    *,
    with_bias: bool,
    **sizes: int,
) -> None:
    """Like :func:`deform_conv_forward`, with samples multiplied by ``mask``, N x (groups * kernel) x H' x W'.

    If offset and mask have a larger feature map than the output, as in MMDetection's DyHead, the first values of each
    image in memory order are used.
    """
    offset, mask = (_first_of_each(tensor, output.shape[2:]) for tensor in (offset, mask))
    operands = _operands(input, weight, offset, mask, bias if with_bias else None)
    numbers = _numbers(sizes, MODULATED, use_mask=True)
    output.copy_(torch.ops.torchvision.deform_conv2d(*operands, *numbers))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    *,
    with_bias: bool,
    **sizes: int,
) -> None:
    """Writes the gradients of :func:`modulated_deform_conv_forward`."""
    offset, mask = (_first_of_each(tensor, grad_output.shape[2:]) for tensor in (offset, mask))
    operands = _operands(input, weight, offset, mask, bias if with_bias else None)
    numbers = _numbers(sizes, MODULATED, use_mask=True)
    gradients = torch.ops.torchvision._deform_conv2d_backward(widened(grad_output), *operands, *numbers)
    grad_input.copy_(gradients[0])
    grad_weight.copy_(gradients[1])
    by_offset = _without_gradient_outside(gradients[2], operands[2], input, weight, numbers)
    for target, gradient in ((grad_offset, by_offset), (grad_mask, gradients[3])):
        target.zero_()
        target.flatten(1)[:, : gradient[0].numel()] = gradient.flatten(1).to(target.dtype)
    if with_bias:
        grad_bias.copy_(gradients[4])


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    *,
    im2col_step: int,
) -> Tensor:
    """Attention to a few positions in several feature maps.

    Args:
        value: N x (sum of H * W) x heads x channels.
        value_spatial_shapes: levels x 2, H and W.
        value_level_start_index: the first key of each level.
        sampling_locations: N x queries x heads x levels x points x 2, x and y in [0, 1].
        attention_weights: N x queries x heads x levels x points.
        im2col_step: mmcv's number of images per step, ignored: all images are processed at once.

    Returns:
        N x queries x (heads * channels).
    """
    wide = (widened(value), widened(sampling_locations), widened(attention_weights))
    return _attend(value_spatial_shapes.tolist(), *wide).to(value.dtype)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    *,
    im2col_step: int,
) -> None:
    """Writes the gradients of :func:`ms_deform_attn_forward`, which recomputes the forward pass."""
    operands = [widened(tensor).detach().requires_grad_() for tensor in (value, sampling_locations, attention_weights)]
    with torch.enable_grad():
        output = _attend(value_spatial_shapes.tolist(), *operands)
    gradients = torch.autograd.grad(output, operands, widened(grad_output), allow_unused=True)
    for target, gradient in zip((grad_value, grad_sampling_loc, grad_attn_weight), gradients, strict=True):
        if gradient is not None:
            target.copy_(gradient)


def _operands(input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor | None) -> list[Tensor]:
    """The arguments in torchvision's order, which requires tensors even without mask or bias."""
    features = widened(input)
    mask = features.new_zeros((len(features), 1)) if mask is None else mask
    bias = features.new_zeros(len(weight)) if bias is None else bias
    return [features, *(widened(tensor).to(features.dtype) for tensor in (weight, offset, mask, bias))]


def _first_of_each(tensor: Tensor, size: Sequence[int]) -> Tensor:
    """The first numbers of each image of N x C x H x W, reshaped to N x C x ``size``."""
    count = tensor.shape[1] * size[0] * size[1]
    if tuple(tensor.shape[2:]) == tuple(size) or tensor[0].numel() < count:
        return tensor  # torchvision refuses a smaller map
    cropped: Tensor = tensor.flatten(1)[:, :count].unflatten(1, (tensor.shape[1], *size))
    return cropped


def _without_gradient_outside(
    gradient: Tensor, offset: Tensor, input: Tensor, weight: Tensor, numbers: Sequence[Any]
) -> Tensor:
    """The gradient with respect to the shifts, 0 for samples that are at least a pixel outside.

    At exactly one pixel before the first, torchvision has the gradient of one side and mmcv has none. Zero-initialised
    shifts with padding put many samples there.
    """
    strides, padding, dilation = numbers[0:2], numbers[2:4], numbers[4:6]
    shifts = offset.unflatten(1, (-1, *weight.shape[2:], 2))  # N x groups x kH x kW x 2 x H' x W'
    outside = torch.zeros_like(shifts[:, :, :, :, 0], dtype=torch.bool)
    for axis in (0, 1):
        taps = torch.arange(weight.shape[2 + axis], device=offset.device) * dilation[axis]
        places = torch.arange(offset.shape[2 + axis], device=offset.device) * strides[axis] - padding[axis]
        grid = (taps[:, None, None, None] + places[:, None]) if axis == 0 else (taps[:, None, None] + places)
        at = shifts[:, :, :, :, axis] + grid
        outside |= (at <= -1) | (at >= input.shape[2 + axis])
    return gradient.masked_fill(outside[:, :, :, :, None].expand_as(shifts).reshape_as(gradient), 0)


def _numbers(sizes: Mapping[str, int], names: Sequence[str], use_mask: bool) -> tuple[Any, ...]:
    """Strides, padding, dilation (rows before columns) and groups, in torchvision's order."""
    return (*(sizes[name] for name in names), use_mask)


def _attend(shapes: list[list[int]], value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    batch, _, heads, channels = value.shape
    queries, levels, points = locations.shape[1], locations.shape[3], locations.shape[4]
    grids = (2 * locations - 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 1)  # (N * heads) x levels x queries x points x 2
    starts = [0, *torch.tensor([height * width for height, width in shapes]).cumsum(0).tolist()]
    samples = []
    for level, ((height, width), (start, end)) in enumerate(zip(shapes, pairwise(starts), strict=True)):
        plane = value[:, start:end].permute(0, 2, 3, 1).reshape(batch * heads, channels, height, width)
        samples.append(F.grid_sample(plane, grids[:, level], padding_mode="zeros", align_corners=False))
    sampled = torch.stack(samples, -2).flatten(-2)  # (N * heads) x channels x queries x (levels * points)
    shares = weights.transpose(1, 2).reshape(batch * heads, 1, queries, levels * points)
    return (sampled * shares).sum(-1).view(batch, heads * channels, queries).transpose(1, 2).contiguous()
