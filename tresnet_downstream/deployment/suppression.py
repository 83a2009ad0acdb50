"""Non-maximum suppression of a batch as one operator, which ONNX has too."""

from typing import Any

import torch
from torch import Tensor
from torchvision.ops import nms

# Below every score. A candidate with it is none.
NO_SCORE = -1.0


@torch.library.custom_op("tresnet_downstream::suppressed", mutates_args=())
def kept_by_nms(boxes: Tensor, scores: Tensor, iou_threshold: float, most: int) -> Tensor:
    """Which boxes of each picture stay: those that overlap no better one that stays by more than a threshold.

    Args:
        boxes: N x K x 4, left, top, right and bottom.
        scores: N x K; candidates with :data:`NO_SCORE` neither stay nor suppress others.
        iou_threshold: intersection over union, 0 to 1.
        most: how many boxes of a picture stay; the best do.

    Returns:
        N x K in float32: 1 for those that stay, otherwise 0.
    """
    kept = torch.zeros_like(scores, dtype=torch.float32)
    for row, picture_boxes, picture_scores in zip(kept, boxes, scores, strict=True):
        candidates = (picture_scores > NO_SCORE / 2).nonzero()[:, 0]
        row[candidates[nms(picture_boxes[candidates], picture_scores[candidates], iou_threshold)[:most]]] = 1
    return kept


@kept_by_nms.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float, most: int) -> Tensor:
    return torch.empty_like(scores, dtype=torch.float32)


def onnx_translations() -> dict[Any, Any]:
    """For ``torch.onnx.export``: the operator above by ONNX's ``NonMaxSuppression``."""
    from onnxscript import opset18

    op: Any = opset18

    def suppressed(boxes: Any, scores: Any, iou_threshold: float, most: int) -> Any:
        scores_by_class = op.Unsqueeze(scores, op.Constant(value_ints=[1]))  # N x 1 x K
        limit = op.Constant(value_ints=[most])
        threshold = op.Constant(value_floats=[iou_threshold])
        least = op.Constant(value_floats=[NO_SCORE / 2])
        selected = op.NonMaxSuppression(boxes, scores_by_class, limit, threshold, least)  # rows of picture, class, box
        kept = op.ConstantOfShape(op.Shape(scores_by_class))
        ones = op.Expand(op.Constant(value_floats=[1.0]), op.Shape(selected, start=0, end=1))
        return op.Squeeze(op.ScatterND(kept, selected, ones), op.Constant(value_ints=[1]))

    return {torch.ops.tresnet_downstream.suppressed.default: suppressed}
