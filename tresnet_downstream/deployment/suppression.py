"""Non-maximum suppression of a batch as one operator, which is translated to ONNX's operator."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import nms

# Score of candidates that are filtered out; lower than all valid scores.
NO_SCORE = -1.0


@torch.library.custom_op("tresnet_downstream::suppressed", mutates_args=())
def kept_by_nms(boxes: Tensor, scores: Tensor, iou_threshold: float, most: int) -> Tensor:
    """Non-maximum suppression: a box is suppressed if its IoU with a better remaining box is above a threshold.

    Args:
        boxes: N x K x 4, left, top, right and bottom.
        scores: N x K; candidates with :data:`NO_SCORE` are ignored.
        iou_threshold: largest intersection over union of remaining boxes, 0 to 1.
        most: largest number of remaining boxes of an image; the best ones remain.

    Returns:
        N x K in float32: 1 for remaining boxes, otherwise 0.
    """
    remaining = torch.zeros_like(scores, dtype=torch.float32)
    for row, image_boxes, image_scores in zip(remaining, boxes, scores, strict=True):
        candidates = (image_scores > NO_SCORE / 2).nonzero()[:, 0]
        row[candidates[nms(image_boxes[candidates], image_scores[candidates], iou_threshold)[:most]]] = 1
    return remaining


@kept_by_nms.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float, most: int) -> Tensor:
    return torch.empty_like(scores, dtype=torch.float32)


def onnx_translations() -> dict[Callable[..., object], Callable[..., object]]:
    """The translation of :func:`kept_by_nms` to ONNX's ``NonMaxSuppression``, for ``torch.onnx.export``."""
    from onnxscript import opset18

    op: Any = opset18

    def suppressed(boxes: Any, scores: Any, iou_threshold: float, most: int) -> Any:
        scores_by_class = op.Unsqueeze(scores, op.Constant(value_ints=[1]))  # N x 1 x K
        limit = op.Constant(value_ints=[most])
        threshold = op.Constant(value_floats=[iou_threshold])
        least = op.Constant(value_floats=[NO_SCORE / 2])
        selected = op.NonMaxSuppression(boxes, scores_by_class, limit, threshold, least)  # rows of image, class, box
        zeros = op.ConstantOfShape(op.Shape(scores_by_class))
        ones = op.Expand(op.Constant(value_floats=[1.0]), op.Shape(selected, start=0, end=1))
        return op.Squeeze(op.ScatterND(zeros, selected, ones), op.Constant(value_ints=[1]))

    return {torch.ops.tresnet_downstream.suppressed.default: suppressed}
