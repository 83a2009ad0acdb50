"""Non-maximum suppression and overlaps. Boxes are (x1, y1, x2, y2); with ``offset`` 1 a side is ``x2 - x1 + 1``."""

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms as torchvision_nms

from mmcv_on_torchvision.precision import widened


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes that remain after non-maximum suppression, best score first.

    Args:
        boxes: N x 4.
        scores: N.
        iou_threshold: a box is suppressed if its IoU with a better box is larger.
        offset: 0 or 1.

    Returns:
        int64 of shape (selected,).
    """
    boxes = widened(boxes)
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    # mmcv compares in float32, where 0.3 is slightly larger than in float64.
    indices: Tensor = torchvision_nms(boxes, widened(scores).to(boxes.dtype), float(np.float32(iou_threshold)))
    return indices


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Lowers the scores of boxes that overlap a better one; computed on the CPU, as in mmcv.

    Soft-NMS (Bodla et al., 2017). Ties are broken as in mmcv: the best box is swapped with the first box that is
    not yet selected, and a discarded box is replaced by the last one.

    Args:
        boxes: N x 4.
        scores: N.
        dets: N x 5, output: the remaining boxes and their new scores, best first.
        iou_threshold: the overlap from which ``method`` 0 and 1 act.
        sigma: of the Gaussian.
        min_score: a box is discarded when its score falls below.
        method: 0 discards, 1 lowers linearly, 2 by a Gaussian of the overlap.
        offset: 0 or 1.

    Returns:
        int64 of shape (remaining,), positions in ``boxes``.
    """
    candidates = torch.cat([widened(boxes), widened(scores)[:, None]], 1).numpy().astype(np.float32)  # a copy
    positions = np.arange(len(candidates))
    selected = 0
    while selected < len(candidates):
        best = selected + _first_greatest(candidates[selected:, 4])
        for rows in (candidates, positions):
            rows[[selected, best]] = rows[[best, selected]]
        selected += 1
        rest = candidates[selected:]
        overlaps = _overlaps(candidates[selected - 1, :4], rest[:, :4], offset)
        rest[:, 4] *= _kept_share(overlaps, method, np.float32(iou_threshold), np.float32(sigma))
        order = np.concatenate([np.arange(selected), selected + _order_without(rest[:, 4] < np.float32(min_score))])
        candidates, positions = candidates[order], positions[order]
    dets[:selected] = torch.from_numpy(candidates).to(dets.dtype)
    return torch.from_numpy(positions)


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Groups of boxes: each group begins with a remaining box, followed by the boxes that it suppresses, best first.

    Args:
        dets: N x 5, boxes and scores.
        iou_threshold: a box is suppressed if its overlap with a better one is at least this.
    """
    boxes, scores = widened(dets).cpu().split([4, 1], 1)
    order = scores[:, 0].sort(descending=True, stable=True).indices.numpy()
    sorted_boxes, groups = boxes.numpy()[order], []
    while len(order):
        with_first = _overlaps(sorted_boxes[0], sorted_boxes, 0) >= np.float32(iou_threshold)
        with_first[0] = True  # even if its area is 0 and the IoU therefore 0 / 0
        groups.append(order[with_first].tolist())
        order, sorted_boxes = order[~with_first], sorted_boxes[~with_first]
    return groups


def bbox_overlaps(bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int) -> None:
    """Writes the IoU of M and N boxes into ``ious``, M x N; with ``aligned``, the IoU of M pairs into M values.

    ``mode`` 0 is intersection over union, 1 intersection over the area of the first box. The divisor is at least
    ``offset``.
    """
    first, second = widened(bboxes1), widened(bboxes2)
    if not aligned:
        first, second = first[:, None], second[None]
    sides = torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2]) + offset
    intersection = sides.clamp(min=0).prod(-1)
    area1, area2 = ((boxes[..., 2:] - boxes[..., :2] + offset).prod(-1) for boxes in (first, second))
    divisor = area1 + area2 - intersection if mode == 0 else area1.expand_as(intersection)
    ious.copy_(intersection / divisor.clamp(min=offset))


def _overlaps(box: np.ndarray, boxes: np.ndarray, offset: int) -> np.ndarray:
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]) + offset
    intersection = np.maximum(sides[:, 0], 0) * np.maximum(sides[:, 1], 0)
    areas = (boxes[:, 2] - boxes[:, 0] + offset) * (boxes[:, 3] - boxes[:, 1] + offset)
    area = (box[2] - box[0] + offset) * (box[3] - box[1] + offset)
    with np.errstate(invalid="ignore", divide="ignore"):
        overlaps: np.ndarray = intersection / (area + areas - intersection)
    return overlaps


def _kept_share(overlaps: np.ndarray, method: int, iou_threshold: np.float32, sigma: np.float32) -> np.ndarray:
    if method == 2:
        share: np.ndarray = np.exp(-(overlaps * overlaps) / sigma)
        return share
    return np.where(overlaps >= iou_threshold, (1 - overlaps) if method == 1 else 0, 1).astype(np.float32)


def _first_greatest(scores: np.ndarray) -> int:
    """The index that a loop with ``<`` finds: a NaN is never greater, and nothing is greater than a leading NaN."""
    return 0 if np.isnan(scores[0]) else int(np.argmax(np.where(np.isnan(scores), -np.inf, scores)))


def _order_without(removed: np.ndarray) -> np.ndarray:
    """The order of the remaining items if the last one is moved into each vacated position."""
    remaining = np.flatnonzero(~removed)
    count = len(remaining)
    order = np.arange(count)
    order[removed[:count]] = remaining[remaining >= count][::-1]
    return order
