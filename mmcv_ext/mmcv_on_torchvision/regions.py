"""Pooling of regions. ``rois`` is K x 5: the index of the image in the batch and (x1, y1, x2, y2) in pixels."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mmcv_on_torchvision.precision import widened

MAX, AVERAGE = 0, 1
# mmcv's maximum of a bin without samples.
EMPTY = -10000.0


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """RoIAlign (He et al., 2017): the average or the maximum of the samples of each bin.

    Args:
        input: N x C x H x W.
        rois: K x 5.
        output: K x C x aligned_height x aligned_width, is overwritten.
        argmax_y: output for the maximum, of ``output``'s shape: y of the greatest sample, -1 for none.
        argmax_x: the same for x.
        aligned_height: number of bins in a column.
        aligned_width: number of bins in a row.
        spatial_scale: size of the feature map relative to the image.
        sampling_ratio: samples along each side of a bin; 0 takes one for each pixel of ``input`` in it.
        pool_mode: 0 for the maximum, 1 for the average.
        aligned: whether the centres of pixels are at half-integer coordinates.
    """
    features, boxes = widened(input), widened(rois).to(widened(input).dtype)
    if pool_mode == AVERAGE:
        size = (spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned)
        output.copy_(torch.ops.torchvision.roi_align(features, boxes, *size))
        return
    shape = (len(boxes), features.shape[1], aligned_height, aligned_width)
    best = features.new_full(shape, EMPTY)
    best_y, best_x = features.new_full(shape, -1), features.new_full(shape, -1)
    image_index = boxes[:, 0].long()[:, None, None]
    for y, x, inside in _samples(boxes, (aligned_height, aligned_width), spatial_scale, sampling_ratio, aligned):
        corners = _corners(y, x, *features.shape[2:])
        # Each is K x bins x bins x C, because separated index arrays come first in the result's shape.
        value = sum(weight[..., None] * features[image_index, :, row, column] for row, column, weight in corners)
        value = torch.as_tensor(value).permute(0, 3, 1, 2)
        greater = (value > best) & inside[:, None]
        best = torch.where(greater, value, best)
        best_y = torch.where(greater, y[:, None].expand(shape), best_y)
        best_x = torch.where(greater, x[:, None].expand(shape), best_x)
    for target, result in ((output, best), (argmax_y, best_y), (argmax_x, best_x)):
        target.copy_(result)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Adds the gradient of :func:`roi_align_forward` to ``grad_input``, N x C x H x W."""
    gradient, boxes = widened(grad_output), widened(rois).to(widened(grad_output).dtype)
    if pool_mode == AVERAGE:
        size = (spatial_scale, aligned_height, aligned_width, *grad_input.shape, sampling_ratio, aligned)
        grad_input += torch.ops.torchvision._roi_align_backward(gradient, boxes, *size)
        return
    has_maximum = argmax_y != -1
    total = torch.zeros_like(grad_input, dtype=gradient.dtype)
    image_index = boxes[:, 0].long()[:, None, None, None].expand_as(has_maximum)
    channels = torch.arange(total.shape[1], device=total.device)[:, None, None].expand_as(has_maximum)
    for row, column, weight in _corners(widened(argmax_y), widened(argmax_x), *total.shape[2:]):
        places = (image_index[has_maximum], channels[has_maximum], row[has_maximum], column[has_maximum])
        total.index_put_(places, (gradient * weight)[has_maximum], accumulate=True)
    grad_input += total


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """The maximum of the pixels of each bin. Bins are rounded outwards; torchvision rounds the region instead.

    Args:
        input: N x C x H x W.
        rois: K x 5; x2 and y2 are the last pixels inside.
        output: K x C x pooled_height x pooled_width, is overwritten; 0 for a bin without pixels.
        argmax: output of that shape, int32: the position of the pixel in its plane, -1 for none.
        pooled_height: number of bins in a column.
        pooled_width: number of bins in a row.
        spatial_scale: size of the feature map relative to the image.
    """
    features = widened(input)
    boxes = widened(rois).to(features.dtype)
    rows = _pixels_of_bins(boxes[:, 2], boxes[:, 4], pooled_height, features.shape[2], spatial_scale)
    columns = _pixels_of_bins(boxes[:, 1], boxes[:, 3], pooled_width, features.shape[3], spatial_scale)
    width = features.shape[3]
    for index, image in enumerate(boxes[:, 0].long().tolist()):
        top, bottom = _reach(rows[index])
        left, right = _reach(columns[index])
        if top == bottom or left == right:
            output[index], argmax[index] = 0, -1
            continue
        # Columns within rows, so that among equal values the first in row order is chosen, as in mmcv.
        plane = features[image, :, top:bottom, left:right]
        along, column = _greatest(plane[:, :, None, :], columns[index, :, left:right])  # C x rows x bins
        best, row = _greatest(along.transpose(1, 2)[:, :, None, :], rows[index, :, top:bottom])  # C x bins x bins
        chosen = column.transpose(1, 2).gather(2, row)
        best, place = best.transpose(1, 2), ((row + top) * width + chosen + left).transpose(1, 2)
        empty = torch.isinf(best) & (best < 0)
        output[index] = best.masked_fill(empty, 0).to(output.dtype)
        argmax[index] = place.masked_fill(empty, -1).to(argmax.dtype)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Adds the gradient of :func:`roi_pool_forward` to ``grad_input``, N x C x H x W."""
    has_maximum = argmax != -1
    total = torch.zeros_like(grad_input, dtype=widened(grad_output).dtype)
    image_index = rois[:, 0].long()[:, None, None, None].expand_as(has_maximum)
    channels = torch.arange(total.shape[1], device=total.device)[:, None, None].expand_as(has_maximum)
    places = (image_index[has_maximum], channels[has_maximum], argmax[has_maximum].long())
    total.flatten(2).index_put_(places, widened(grad_output)[has_maximum], accumulate=True)
    grad_input += total


def _samples(
    rois: Tensor, bins: tuple[int, int], scale: float, sampling_ratio: int, aligned: bool
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yields samples of all bins: rows and columns, K x bins x bins, and whether the bin has the sample."""
    offset = 0.5 if aligned else 0.0
    starts, ends = rois[:, [2, 1]] * scale - offset, rois[:, [4, 3]] * scale - offset
    sides = ends - starts if aligned else (ends - starts).clamp(min=1)
    bin_sides = sides / sides.new_tensor(bins)
    counts = torch.full_like(sides, sampling_ratio) if sampling_ratio > 0 else bin_sides.ceil()
    most = counts.max(0).values.int().tolist() if len(rois) else (0, 0)
    firsts = [
        starts[:, side, None] + torch.arange(bins[side], device=rois.device) * bin_sides[:, side, None]
        for side in (0, 1)
    ]
    for row in range(most[0]):
        for column in range(most[1]):
            y, x = (
                firsts[side] + ((place + 0.5) * bin_sides[:, side] / counts[:, side])[:, None]
                for side, place in ((0, row), (1, column))
            )
            inside = ((row < counts[:, 0]) & (column < counts[:, 1]))[:, None, None]
            shape = (len(rois), *bins)
            yield y[:, :, None].expand(shape), x[:, None, :].expand(shape), inside.expand(shape)


def _corners(y: Tensor, x: Tensor, height: int, width: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Rows, columns and weights of the four pixels around a sample; the weights are 0 far outside."""
    outside = (y < -1) | (y > height) | (x < -1) | (x > width)
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    top, left = y.floor(), x.floor()
    down, right = (y - top).masked_fill(outside, 0), (x - left).masked_fill(outside, 0)
    up, back = (1 - down).masked_fill(outside, 0), (1 - right).masked_fill(outside, 0)
    top, left = top.long(), left.long()
    below, beside = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    return [
        (top, left, up * back),
        (top, beside, up * right),
        (below, left, down * back),
        (below, beside, down * right),
    ]


def _pixels_of_bins(first: Tensor, last: Tensor, bins: int, length: int, scale: float) -> Tensor:
    """Whether each pixel along a side lies in each bin of each region: K x bins x length."""
    start, end = first * scale, (last + 1) * scale
    side = (end - start) / bins
    number = torch.arange(bins, device=first.device)
    begin = (number * side[:, None] + start[:, None]).floor().clamp(0, length)
    stop = ((number + 1) * side[:, None] + start[:, None]).ceil().clamp(0, length)
    pixel = torch.arange(length, device=first.device)
    inside = (pixel >= begin[..., None]) & (pixel < stop[..., None])
    return inside & (end > start)[:, None, None]


def _reach(inside: Tensor) -> tuple[int, int]:
    """The range in which any bin has pixels."""
    pixels = inside.any(0).nonzero()[:, 0].tolist()
    return (pixels[0], pixels[-1] + 1) if pixels else (0, 0)


def _greatest(values: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """The maximum over the last axis among ``inside``, and its index; minus infinity if there is none."""
    maximum = values.masked_fill(~inside, float("-inf")).max(-1)
    return maximum.values, maximum.indices
