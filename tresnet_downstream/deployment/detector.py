"""Export of detectors: from images to boxes, including non-maximum suppression."""

import copy
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from torch import Tensor, nn

from tresnet_downstream.backbones import TResNet
from tresnet_downstream.deployment.detector_graph import DetectorGraph
from tresnet_downstream.deployment.exportable import DifferentOutputsError, Exportable, Run, batches, synthetic_images
from tresnet_downstream.deployment.fuse import fuse
from tresnet_downstream.detection import mmcv
from tresnet_downstream.errors import UserError
from tresnet_downstream.exported.detector import (
    BOXES,
    IMAGES,
    LABELS,
    SCALE_FACTORS,
    SCORE_THRESHOLD,
    SCORES,
    SIZES,
    Prepared,
    RawBoxes,
    boxes_of_each,
    inputs_of,
)
from tresnet_downstream.exported.file import DETECTOR, FileDescription
from tresnet_downstream.exported.letterbox import Letterbox

# isort: split
# After our `detection`, which raises a clear error if MMDetection is missing.
from mmdet import models
from mmdet.models.detectors import BaseDetector
from mmdet.structures import DetDataSample

# Largest differences of a float32 file: of corners, relative to the longer side of the image, and of scores.
BOX_TOLERANCE, SCORE_TOLERANCE = 1e-4, 1e-4
# Smallest share of boxes that both must find. If two scores, or an overlap and the threshold, are equal up to rounding,
# suppression may choose another box.
LEAST_PAIRED = 0.99
# In int8: smallest share of torch's boxes with a score above INT8_SCORE that must be found with an IoU of INT8_IOU.
INT8_SCORE, INT8_IOU, INT8_LEAST_PAIRED = 0.3, 0.5, 0.8
EXPORTED = "RetinaNet, FCOS, ATSS, GFL, RTMDet and Faster R-CNN"
_ONE_STAGE = (
    *(models.RetinaNet, models.FCOS, models.ATSS, models.GFL, models.RTMDet),
    models.SingleStageDetector,
)
_HEADS = (
    *(models.RetinaHead, models.FCOSHead, models.ATSSHead, models.GFLHead),
    *(models.RTMDetHead, models.RTMDetSepBNHead),
)
_BOX_HEADS = (
    *(models.BBoxHead, models.ConvFCBBoxHead, models.Shared2FCBBoxHead),
    models.Shared4Conv1FCBBoxHead,
)
_CODERS = (models.task_modules.coders.DeltaXYWHBBoxCoder, models.task_modules.coders.DistancePointBBoxCoder)


class ExportableDetector(Exportable[Prepared]):
    """A detector to export; a TResNet backbone is fused.

    Inputs and outputs are those of :class:`DetectorGraph`. The outputs equal those of MMDetection's ``predict`` for the
    same images, padded to the same height and width.

    Args:
        detector: a detector from :func:`load_detector`; it is not modified.
        size: height and width of the images; None uses the size of the test pipeline.

    Raises:
        UserError: if the detector or its pipeline cannot be exported, or the detector does not accept the size.
    """

    kind: ClassVar[str] = DETECTOR
    inputs: ClassVar[tuple[str, ...]] = (IMAGES, SIZES, SCALE_FACTORS, SCORE_THRESHOLD)
    outputs: ClassVar[tuple[str, ...]] = (BOXES, SCORES, LABELS)
    per_image: ClassVar[tuple[str, ...]] = (IMAGES, SIZES, SCALE_FACTORS)
    # Box coordinates have more than 256 values and cannot be quantised to int8.
    int8_modules: ClassVar[tuple[str, ...] | None] = (
        *("backbone", "neck", "head.layers", "head.rpn_layers", "head.box_head"),
    )

    def __init__(self, detector: BaseDetector, size: int | None = None) -> None:
        require_exportable(detector)
        self._letterbox = Letterbox.of_pipeline(
            detector.pipeline, int(detector.data_preprocessor.pad_size_divisor), size
        )
        self.size = (self._letterbox.height, self._letterbox.width)
        self._detector = copy.deepcopy(detector).cpu().float()
        # The reference uses the network that is not fused, so the comparison includes the fusing.
        fused = copy.copy(self._detector)
        fused._modules = dict(self._detector._modules)
        if isinstance(detector.backbone, TResNet):
            fused.backbone = fuse(self._detector.backbone)
        self.classes = tuple(detector.classes)
        self.score_threshold = float(_test_cfg(detector).get("score_thr", 0))
        try:
            self.module = self.graph(fused).eval()
            with torch.inference_mode():
                self.module(*self.example())
        except (RuntimeError, AssertionError, ValueError) as error:
            height, width = self.size
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"the detector does not accept images of {height} x {width} ({reason}); choose another size with "
                "`input_size`, such as a multiple of 32"
            ) from error

    def graph(self, detector: BaseDetector) -> nn.Module:
        """The module to export, for a detector whose backbone may be fused."""
        return DetectorGraph(detector, self.size)

    def description(self) -> FileDescription:
        """The classes, the score threshold, and the preparation of images."""
        return {
            "classes": list(self.classes),
            "score_threshold": self.score_threshold,
            "picture": self._letterbox.description(),
        }

    def prepare(self, image: np.ndarray) -> Prepared:
        """See :class:`Letterbox`."""
        return self._letterbox(image)

    def batch(self, prepared: Sequence[Prepared]) -> dict[str, np.ndarray]:
        """See :class:`Exportable`; uses the score threshold of the detector's config."""
        return inputs_of(prepared, self.score_threshold)

    def example(self) -> tuple[Tensor, ...]:
        """See :class:`Exportable`."""
        sizes = torch.tensor([self.size, self.size])
        return torch.zeros(2, 3, *self.size), sizes, torch.ones(2, 2), torch.tensor([self.score_threshold])

    def drawn(self) -> Sequence[Prepared]:
        """Synthetic images of several shapes, larger and smaller than the size of the file."""
        height, width = self.size
        shapes = [(height, width), (height, 2 * width // 3), (2 * height // 3, width), (2 * height, width)]
        return [self.prepare(synthetic_images(1, *shape)[0]) for shape in shapes]

    def compare(self, run: Run, prepared: Sequence[Prepared], int8: bool) -> str:
        """Compares boxes with those of MMDetection's ``predict``.

        In float32, each box must have a partner of the same class, with scores within :data:`SCORE_TOLERANCE` and
        corners within :data:`BOX_TOLERANCE`. Boxes of all scores are compared, so each image has some. If an image has
        the largest possible number of boxes, those with the lowest scores need no partner.
        """
        pairs = _Pairs(INT8_IOU if int8 else None)
        for part in batches(prepared):
            # In int8 a score may be lower than the reference score.
            inputs = inputs_of(part, INT8_SCORE / 3 if int8 else 0.0)
            reference = self.predicted(part, INT8_SCORE if int8 else 0.0)
            outputs = run(inputs)
            for sample, expected, from_file in zip(part, reference, boxes_of_each(outputs), strict=True):
                longest = max(self.size) / float(sample[SCALE_FACTORS].min())
                pairs.add(expected, from_file, longest, outputs[SCORES].shape[1])
        return pairs.summary_of_int8(len(prepared)) if int8 else pairs.summary(len(prepared))

    @torch.inference_mode()
    def predicted(self, prepared: Sequence[Prepared], score_threshold: float) -> list[RawBoxes]:
        """MMDetection's predictions for images that are padded to the size of the file."""
        images, samples = self.padded(prepared)
        config = _test_cfg(self._detector)
        before, config["score_thr"] = config.get("score_thr", 0), score_threshold
        try:
            results = self._detector.predict(images, samples, rescale=True)
        finally:
            config["score_thr"] = before
        instances = [result.pred_instances for result in results]
        return [RawBoxes(each.bboxes.numpy(), each.scores.numpy(), each.labels.numpy()) for each in instances]

    def padded(self, prepared: Sequence[Prepared]) -> tuple[Tensor, list[DetDataSample]]:
        """The images after MMDetection's preprocessor, padded to the size of the file, and the samples."""
        preprocessor = self._detector.data_preprocessor
        images, samples = [], []
        for sample in prepared:
            height, width = sample[SIZES]
            pixels = np.ascontiguousarray(sample[IMAGES][:height, :width, ::-1].transpose(2, 0, 1))
            images.append(torch.from_numpy(pixels))
            shape = (int(height), int(width))
            factors = tuple(float(factor) for factor in sample[SCALE_FACTORS])
            samples.append(DetDataSample(metainfo={"img_shape": shape, "ori_shape": shape, "scale_factor": factors}))
        data = preprocessor({"inputs": images, "data_samples": samples})
        height, width = self.size
        padding = (0, width - data["inputs"].shape[3], 0, height - data["inputs"].shape[2])
        return F.pad(data["inputs"], padding, value=preprocessor.pad_value), data["data_samples"]


def require_exportable(detector: BaseDetector) -> None:
    """Checks that :class:`DetectorGraph` supports a detector.

    Raises:
        UserError: if it does not; the message lists the supported detectors.
    """
    if detector.training:
        raise UserError("the detector is in training mode: call detector.eval() first")
    if getattr(detector, "with_mask", False):
        raise UserError(
            f"the detector has a mask head, but exported files return only boxes; {EXPORTED} can be exported"
        )
    parts = [detector]
    if type(detector) is models.FasterRCNN:
        roi_head = detector.roi_head
        parts = [detector.rpn_head, roi_head]
        known = type(detector.rpn_head) is models.RPNHead and type(roi_head) is models.StandardRoIHead
        if known:
            parts = [roi_head.bbox_head, roi_head.bbox_roi_extractor, roi_head.bbox_head.bbox_coder]
            known = (
                type(roi_head.bbox_head) in _BOX_HEADS
                and type(roi_head.bbox_roi_extractor) is models.SingleRoIExtractor
                and type(roi_head.bbox_head.bbox_coder) is models.task_modules.coders.DeltaXYWHBBoxCoder
                and roi_head.bbox_head.with_cls
                and roi_head.bbox_head.with_reg
                and not roi_head.bbox_head.custom_activation
                and not roi_head.with_shared_head
                and all(
                    type(layer) is mmcv.ops.RoIAlign and layer.pool_mode == "avg"
                    for layer in roi_head.bbox_roi_extractor.roi_layers
                )
            )
        head, configs = detector.rpn_head, [detector.rpn_head.test_cfg, roi_head.test_cfg]
    else:
        head = getattr(detector, "bbox_head", None)
        known = type(detector) in _ONE_STAGE and type(head) in _HEADS
        known = known and not getattr(getattr(head, "loss_cls", None), "custom_cls_channels", False)
        parts, configs = [detector, head], [getattr(head, "test_cfg", None)]
    known = known and type(detector.data_preprocessor) is models.DetDataPreprocessor
    if known and type(head.bbox_coder) not in _CODERS:
        parts, known = [head.bbox_coder], False
    if not known:
        names = " with ".join(type(part).__name__ for part in parts if part is not None)
        raise UserError(f"{names} cannot be exported; {EXPORTED} can, with MMDetection's own heads")
    for place, config in enumerate(configs):
        _require_test_cfg(config, needs_nms_pre=place == 0)


def _require_test_cfg(config: ConfigDict | None, needs_nms_pre: bool) -> None:
    nms = (config or {}).get("nms")
    if config is None or not isinstance(nms, Mapping):
        raise UserError("model.test_cfg.nms: is not set, but the exported file needs it")
    unknown = set(nms) - {"type", "iou_threshold", "class_agnostic", "split_thr"}
    if nms.get("type", "nms") != "nms" or "iou_threshold" not in nms or unknown:
        raise UserError(
            f"model.test_cfg.nms={dict(nms)}: cannot be exported; choose dict(type='nms', iou_threshold=...), such as "
            "by a config (`config`)"
        )
    for key in ("max_per_img", *(("nms_pre",) if needs_nms_pre else ())):
        if not (isinstance(config.get(key), int) and config[key] > 0):
            raise UserError(f"model.test_cfg.{key}={config.get(key)}: give a whole number above 0 for the export")


def _test_cfg(detector: BaseDetector) -> ConfigDict:
    return (detector.roi_head if hasattr(detector, "roi_head") else detector.bbox_head).test_cfg


class _Pairs:
    """Pairs of boxes of torch and of an exported file, over several images.

    Args:
        least_iou: smallest IoU of a pair; None uses :data:`BOX_TOLERANCE` and :data:`SCORE_TOLERANCE`.
    """

    def __init__(self, least_iou: float | None) -> None:
        self._least_iou = least_iou
        self._boxes = self._paired = 0
        self._corners: list[float] = [0.0]
        self._scores: list[float] = [0.0]

    def add(self, reference: RawBoxes, exported: RawBoxes, longest: float, most: int) -> None:
        """Adds the boxes of one image; ``longest`` is its longer side, ``most`` the largest number of boxes."""
        free = np.ones(len(exported.scores), bool)
        lowest = reference.scores.min() * (1 + 1e-3) if len(reference.scores) == most else -1.0
        for box, score, label in zip(reference.boxes, reference.scores, reference.labels, strict=True):
            partners = np.flatnonzero(free & (exported.labels == label))
            corner = np.abs(exported.boxes[partners] - box).max(1) if len(partners) else np.zeros(0)
            difference = np.abs(exported.scores[partners] - score)
            if self._least_iou is None:
                fits = (corner <= BOX_TOLERANCE * longest) & (difference <= SCORE_TOLERANCE)
            else:
                fits = _ious(box, exported.boxes[partners]) >= self._least_iou
            if not fits.any():
                self._boxes += bool(score > lowest)
                continue
            chosen = int(np.argmin(np.where(fits, difference, np.inf)))
            free[partners[chosen]] = False
            self._boxes += 1
            self._paired += 1
            self._corners.append(float(corner[chosen]))
            self._scores.append(float(difference[chosen]))
        if self._least_iou is None:
            self._boxes += int((free & (exported.scores > lowest)).sum())

    def summary(self, num_images: int) -> str:
        """See :meth:`Exportable.compare`."""
        if self._paired < LEAST_PAIRED * self._boxes:
            raise DifferentOutputsError(
                f"{self._boxes - self._paired} of {self._boxes} boxes differ from torch's in class, in "
                f"score by more than {SCORE_TOLERANCE:g}, or in a corner by more than {BOX_TOLERANCE:g} of the "
                "image's longer side"
            )
        return (
            f"{self._paired} of {self._boxes} boxes agree with torch's: scores differ by {max(self._scores):.1e} at "
            f"most, corners by {max(self._corners):.1e} pixels, on {num_images} images"
        )

    def summary_of_int8(self, num_images: int) -> str:
        """Like :meth:`summary`, for int8."""
        if not self._boxes:
            raise DifferentOutputsError(
                f"the detector finds no box with a score above {INT8_SCORE} in the {num_images} images, "
                "so int8 cannot be compared with float32: calibrate with images that show objects of its classes"
            )
        if self._paired < INT8_LEAST_PAIRED * self._boxes:
            raise DifferentOutputsError(
                f"in int8, {self._paired} of the {self._boxes} boxes with a score above {INT8_SCORE} "
                "are found again: calibrate with other images, or export the network in float32"
            )
        return (
            f"{self._paired} of {self._boxes} boxes with a score above {INT8_SCORE} are found again (IoU {INT8_IOU}): "
            f"scores differ by {max(self._scores):.1e} at most, {np.mean(self._scores[1:]):.1e} on average, on "
            f"{num_images} images"
        )


def _ious(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    shared = sides.clip(0).prod(1)
    union = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(1) - shared
    ious: np.ndarray = shared / np.maximum(union, 1e-9)
    return ious
