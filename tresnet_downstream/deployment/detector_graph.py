"""A detector of MMDetection as a graph of fixed shapes, including non-maximum suppression.

MMDetection filters candidates by score for each image, so the sizes of all following tensors vary. Here they are fixed:
filtered candidates are kept with a score below all others. The resulting boxes are the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from tresnet_downstream.deployment.suppression import NO_SCORE, kept_by_nms

if TYPE_CHECKING:
    from mmcv.ops import RoIAlign
    from mmdet.models.data_preprocessors import DetDataPreprocessor
    from mmdet.models.dense_heads import RPNHead
    from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
    from mmdet.models.detectors import BaseDetector
    from mmdet.models.roi_heads import StandardRoIHead
    from mmengine.config import ConfigDict


@dataclass(frozen=True)
class Candidates:
    """The candidates of non-maximum suppression, for each of N images.

    Attributes:
        boxes: N x K x 4, left, top, right and bottom.
        scores: N x K; :data:`NO_SCORE` for filtered candidates.
        groups: N x K, int64: a box suppresses only boxes of its own group.
    """

    boxes: Tensor
    scores: Tensor
    groups: Tensor


class DetectorGraph(nn.Module):
    """A detector that returns a fixed number of boxes for each image.

    Args:
        detector: a detector of MMDetection that :mod:`.detector` supports, in evaluation mode.
        size: height and width of the images.
    """

    def __init__(self, detector: "BaseDetector", size: tuple[int, int]) -> None:
        super().__init__()
        self.pixels = _Pixels(detector.data_preprocessor)
        self.backbone = detector.backbone
        self.neck = detector.neck if detector.with_neck else nn.Identity()
        with torch.no_grad():
            maps = self.neck(self.backbone(torch.zeros(1, 3, *size)))
        map_sizes = [tuple(each.shape[-2:]) for each in maps]
        if hasattr(detector, "roi_head"):
            self.head: nn.Module = TwoStageHead(detector.rpn_head, detector.roi_head, map_sizes)
        else:
            self.head = OneStageHead(detector.bbox_head, map_sizes)

    def forward(
        self, images: Tensor, sizes: Tensor, scale_factors: Tensor, score_threshold: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Predicts boxes, best first.

        Args:
            images: N x 3 x H x W in [0, 1], RGB, each image at the top left.
            sizes: N x 2, height and width of each image within ``images``; pixels outside are ignored.
            scale_factors: N x 2, factors by which the width and height of each image were scaled.
            score_threshold: shape (1,); boxes have a score above it.

        Returns:
            N x K x 4 boxes in pixels of the original images; N x K scores, 0 if there is no box; N x K classes, int64,
            -1 if there is no box.
        """
        maps = self.neck(self.backbone(self.pixels(images, sizes)))
        detections: tuple[Tensor, Tensor, Tensor] = self.head(
            maps, sizes.flip(1).repeat(1, 2), scale_factors.repeat(1, 2), score_threshold
        )
        return detections


class _Pixels(nn.Module):
    """MMDetection's preprocessor: normalises images, and then pads them with a constant."""

    def __init__(self, preprocessor: "DetDataPreprocessor") -> None:
        super().__init__()
        mean, std = torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)
        if preprocessor._enable_normalize:
            mean, std = mean + preprocessor.mean.cpu(), std * preprocessor.std.cpu()
        # MMDetection reads images as BGR; ours are RGB.
        self.reverse = not preprocessor._channel_conversion
        # MMDetection's pixels are from 0 to 255, ours from 0 to 1. If the network expects ours, nothing is computed.
        self.scale = nn.Buffer(255 / std, persistent=False)
        self.shift = nn.Buffer(-mean / std, persistent=False)
        self.is_identity = bool((self.scale == 1).all() and (self.shift == 0).all())
        self.pad_value = float(preprocessor.pad_value)

    def forward(self, images: Tensor, sizes: Tensor) -> Tensor:
        """Normalises and pads N x 3 x H x W images for the backbone."""
        if self.reverse:
            images = images.flip(1)
        if not self.is_identity:
            images = images * self.scale + self.shift
        height, width = images.shape[2:]
        below = torch.arange(height)[None, :] < sizes[:, :1]
        left_of = torch.arange(width)[None, :] < sizes[:, 1:]
        inside = below[:, None, :, None] & left_of[:, None, None, :]
        return torch.where(inside, images, self.pad_value)


class OneStageHead(nn.Module):
    """``predict_by_feat`` of MMDetection's ``BaseDenseHead`` and ``GFLHead``: boxes from feature maps.

    Args:
        head: a head of MMDetection.
        map_sizes: height and width of each feature map.
    """

    def __init__(self, head: "BaseDenseHead", map_sizes: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self.layers, self.test_cfg = head, head.test_cfg
        self.priors = _Priors(head, map_sizes)

    def forward(
        self, maps: Sequence[Tensor], limits: Tensor, scale_factors: Tensor, score_threshold: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, scores and classes, see :class:`DetectorGraph`; ``limits`` are width, height, width, height."""
        levels = []
        for level, outputs in enumerate(zip(*self.layers(maps), strict=True)):
            logits, boxes, *factors = (_by_position(output) for output in outputs)
            classes = _class_scores(self.layers, logits.unflatten(2, (-1, self.layers.cls_out_channels)).flatten(1, 2))
            boxes = boxes.reshape(boxes.shape[0], classes.shape[1], -1)
            candidates = classes.flatten(1)
            candidates = torch.where(candidates > score_threshold, candidates, NO_SCORE)
            scores, pairs = candidates.topk(min(self.test_cfg.nms_pre, candidates.shape[1]), 1)
            places = pairs // classes.shape[2]
            if factors:
                factor = factors[0].flatten(1).gather(1, places).sigmoid()
                scores = torch.where(scores > NO_SCORE / 2, scores * factor, NO_SCORE)
            levels.append((self.priors.decode(level, places, _at(boxes, places)), scores, pairs % classes.shape[2]))
        boxes, scores, labels = (torch.cat(parts, 1) for parts in zip(*levels, strict=True))
        boxes = self.priors.clipped(boxes, limits) / scale_factors[:, None]
        scores = without_small(boxes, scores, self.test_cfg)
        return best(Candidates(boxes, scores, labels), self.test_cfg)


class TwoStageHead(nn.Module):
    """A region proposal network followed by a box head: MMDetection's ``RPNHead`` and ``StandardRoIHead``."""

    def __init__(self, rpn_head: "RPNHead", roi_head: "StandardRoIHead", map_sizes: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self.rpn_layers, self.rpn_cfg = rpn_head, rpn_head.test_cfg
        self.priors = _Priors(rpn_head, map_sizes)
        self.box_head, self.test_cfg = roi_head.bbox_head, roi_head.test_cfg
        extractor = roi_head.bbox_roi_extractor
        self.extractor, self.strides = extractor, extractor.featmap_strides

    def forward(
        self, maps: Sequence[Tensor], limits: Tensor, scale_factors: Tensor, score_threshold: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`OneStageHead`."""
        proposals, proposal_scores = self._proposals(maps, limits)
        number, count = proposals.shape[:2]
        image_index = torch.arange(number, device=proposals.device).to(proposals)[:, None, None].expand(-1, count, 1)
        regions = torch.cat([image_index, proposals], 2).flatten(0, 1)
        logits, deltas = self.box_head(self._region_features(maps[: len(self.strides)], regions))
        scores = logits.softmax(1)[:, :-1].unflatten(0, (-1, count))
        boxes = deltas.unflatten(0, (-1, count)).unflatten(2, (-1, 4))
        priors = proposals[:, :, None].expand_as(boxes)
        coder = self.box_head.bbox_coder
        boxes = coder.decode(priors.reshape(-1, 4), boxes.reshape(-1, 4)).reshape(boxes.shape)
        if coder.clip_border:
            boxes = torch.minimum(boxes.clamp(min=0), limits[:, None, None])
        boxes = (boxes / scale_factors[:, None, None]).expand(-1, -1, scores.shape[2], -1).flatten(1, 2)
        labels = torch.arange(scores.shape[2], device=scores.device).expand(scores.shape)
        is_box = (scores > score_threshold) & (proposal_scores > NO_SCORE / 2)[:, :, None]
        scores = torch.where(is_box, scores, NO_SCORE)
        return best(Candidates(boxes, scores.flatten(1), labels.flatten(1)), self.test_cfg)

    def _proposals(self, maps: Sequence[Tensor], limits: Tensor) -> tuple[Tensor, Tensor]:
        """N x K x 4 boxes and N x K scores, :data:`NO_SCORE` if there is no proposal."""
        levels = []
        for level, (logits, deltas) in enumerate(zip(*self.rpn_layers(maps), strict=True)):
            channels = self.rpn_layers.cls_out_channels
            classes = _class_scores(self.rpn_layers, _by_position(logits).reshape(logits.shape[0], -1, channels))
            classes = classes.flatten(1)
            boxes = _by_position(deltas).reshape(deltas.shape[0], classes.shape[1], 4)
            scores, places = classes.topk(min(self.rpn_cfg.nms_pre, classes.shape[1]), 1)
            boxes = self.priors.decode(level, places, _at(boxes, places))
            levels.append((boxes, scores, torch.full_like(places, level)))
        boxes, scores, groups = (torch.cat(parts, 1) for parts in zip(*levels, strict=True))
        boxes = self.priors.clipped(boxes, limits)
        scores = without_small(boxes, scores, self.rpn_cfg)
        scores, order = _best_kept(Candidates(boxes, scores, groups), self.rpn_cfg)
        return _at(boxes, order), scores

    def _region_features(self, maps: Sequence[Tensor], regions: Tensor) -> Tensor:
        """Features, R x C x h x w, of R regions: image index, left, top, right, bottom.

        Each feature map is sampled for all regions, so sizes are fixed; regions of other maps are replaced by one cell.
        """
        layers = self.extractor.roi_layers
        if len(maps) == 1:
            return _aligned(maps[0], regions, layers[0])
        levels = self.extractor.map_roi_levels(regions, len(maps))
        features = None
        for level, (feature_map, layer) in enumerate(zip(maps, layers, strict=True)):
            is_here = (levels == level)[:, None]
            cell = regions.new_tensor([0, 0, 1 / layer.spatial_scale, 1 / layer.spatial_scale])
            sampled = torch.where(is_here, regions[:, 1:], cell)
            here = _aligned(feature_map, torch.cat([regions[:, :1], sampled], 1), layer)
            features = here if features is None else torch.where(is_here[:, :, None, None], here, features)
        assert features is not None
        return features


class _Priors(nn.Module):
    """Anchors or points of a dense head, for feature maps of fixed sizes."""

    def __init__(self, head: "BaseDenseHead", map_sizes: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self.coder = head.bbox_coder
        self.is_distribution = hasattr(head, "integral")  # GFL predicts distributions of distances
        priors = head.prior_generator.grid_priors(list(map_sizes), device="cpu")
        if self.is_distribution:
            self.reg_max, self.strides = head.reg_max, [float(stride[0]) for stride in head.prior_generator.strides]
            self.project = nn.Buffer(head.integral.project.clone(), persistent=False)
            priors = [head.anchor_center(each) for each in priors]
        for level, each in enumerate(priors):
            self.register_buffer(f"level_{level}", each.clone(), persistent=False)

    def decode(self, level: int, places: Tensor, values: Tensor) -> Tensor:
        """Decodes boxes, N x K x 4, from the priors at ``places``, N x K, and the head's outputs, N x K x values."""
        priors = getattr(self, f"level_{level}")[places]
        if self.is_distribution:
            shares = values.unflatten(2, (4, self.reg_max + 1)).softmax(3)
            values = (shares * self.project).sum(3) * self.strides[level]
        boxes: Tensor = self.coder.decode(priors.flatten(0, 1), values.flatten(0, 1))
        return boxes.reshape(*values.shape[:2], 4)

    def clipped(self, boxes: Tensor, limits: Tensor) -> Tensor:
        """N x K x 4 boxes, clipped to their images if the head's coder clips boxes."""
        return torch.minimum(boxes.clamp(min=0), limits[:, None]) if self.coder.clip_border else boxes


def without_small(boxes: Tensor, scores: Tensor, test_cfg: "ConfigDict") -> Tensor:
    """The scores, set to :data:`NO_SCORE` for boxes that are not larger than ``min_bbox_size``."""
    least = test_cfg.get("min_bbox_size", -1)
    if least < 0:
        return scores
    return torch.where(((boxes[..., 2:] - boxes[..., :2]) > least).all(-1), scores, NO_SCORE)


def best(candidates: Candidates, test_cfg: "ConfigDict") -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, scores and classes after suppression, best first; 0 and -1 if there is no box."""
    scores, order = _best_kept(candidates, test_cfg)
    is_box = scores > NO_SCORE / 2
    boxes = torch.where(is_box[..., None], _at(candidates.boxes, order), 0.0)
    return boxes, torch.where(is_box, scores, 0.0), torch.where(is_box, candidates.groups.gather(1, order), -1)


def _best_kept(candidates: Candidates, test_cfg: "ConfigDict") -> tuple[Tensor, Tensor]:
    """Scores and indices of the best ``max_per_img`` candidates after suppression, filled up with :data:`NO_SCORE`."""
    boxes, scores = candidates.boxes, candidates.scores
    if not test_cfg.nms.get("class_agnostic", False):
        # As in MMDetection, boxes of different groups are shifted so they do not overlap.
        among = torch.where((scores > NO_SCORE / 2)[..., None], boxes, 0.0)
        distance = among.flatten(1).amax(1) + 1
        boxes = boxes + (candidates.groups.to(boxes) * distance[:, None])[..., None]
    most = min(test_cfg.max_per_img, scores.shape[1])
    not_suppressed = kept_by_nms(boxes, scores, float(test_cfg.nms.iou_threshold), most)
    return torch.where(not_suppressed > 0, scores, NO_SCORE).topk(most, 1)


def _class_scores(head: "BaseDenseHead", logits: Tensor) -> Tensor:
    """Scores of the classes, without the background."""
    return logits.sigmoid() if head.use_sigmoid_cls else logits.softmax(-1)[..., :-1]


def _by_position(output: Tensor) -> Tensor:
    """Reshapes N x C x H x W to N x HW x C."""
    return output.flatten(2).transpose(1, 2)


def _at(values: Tensor, places: Tensor) -> Tensor:
    """Gathers rows of N x K x V at N x M indices: N x M x V."""
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[2]))


def _aligned(feature_map: Tensor, regions: Tensor, layer: "RoIAlign") -> Tensor:
    """RoIAlign with the settings of mmcv's layer."""
    aligned: Tensor = roi_align(
        feature_map, regions, layer.output_size, layer.spatial_scale, layer.sampling_ratio, layer.aligned
    )
    return aligned
