"""The metric of detectors: converts MMDetection's predictions to COCO's results format, and scores them."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from mmdet.evaluation.metrics import CocoMetric
from mmengine.logging import print_log

from tresnet_downstream.bad_images import require_some, tell_unscored
from tresnet_downstream.coco_records import CocoDetection, CocoInstances, RunLengths
from tresnet_downstream.detection.box_files import read_boxes
from tresnet_downstream.detection.datasets import OrderedCOCO
from tresnet_downstream.detection.loading import UNREADABLE
from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation import DetectionScores, detection_scores, format_detection_table
from tresnet_downstream.evaluation.voc_scores import RULES, VocScores, voc_scores
from tresnet_downstream.files import Earlier, whole_file
from tresnet_downstream.notices import tell
from tresnet_downstream.registry import METRICS

# MMDetection's names of the first six scores of COCO.
KEYS = {"mAP": "AP", "mAP_50": "AP50", "mAP_75": "AP75", "mAP_s": "AP_small", "mAP_m": "AP_medium", "mAP_l": "AP_large"}


class Prediction(TypedDict, total=False):
    """The prediction for an image, as MMDetection's ``CocoMetric`` stores it.

    Attributes:
        img_id: id of the image.
        bboxes: K x 4, left, top, right and bottom in pixels.
        scores: K scores of the boxes.
        labels: K class indices.
        masks: K masks by run lengths.
        mask_scores: K scores of the masks, if they differ from those of the boxes.
        unreadable: JSON of the reason why the image cannot be read; empty if it can.
    """

    img_id: int
    bboxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: Sequence[RunLengths]
    mask_scores: np.ndarray
    unreadable: str


@METRICS.register_module()
class DetectionMetric(CocoMetric):
    """MMDetection's ``CocoMetric``, computed by :func:`detection_scores`: not rounded, and with the AP of each class.

    ``evaluate`` returns ``coco/bbox_mAP`` and so on like MMDetection, from 0 to 1, or -1. All scores are kept in
    :attr:`scores`, the predictions in :attr:`predictions`, the ids of scored images in :attr:`image_ids`, and the
    reasons for unreadable images in :attr:`unreadable`, by file name.

    Args:
        ann_file: the COCO file or VOC image list of the images.
        metric: ``bbox``, ``segm`` or both.
        backend: package that computes the scores, see :func:`detection_scores`.
        outfile_prefix: prefix of the files for predictions, ``PREFIX.bbox.json`` and ``PREFIX.segm.json``.
        format_only: whether to write these files without scoring.
        trust_boxes: see `CocoBoxes`.
        voc_rules: ``2007`` or ``2010`` also computes PASCAL VOC's mAP as ``voc_mAP``, see :func:`voc_scores`; its
            details are kept in :attr:`voc`.
        **kwargs: other arguments of ``CocoMetric``.

    Raises:
        UserError: if the file is missing or malformed, or an argument would change COCO's metric.
    """

    def __init__(
        self,
        ann_file: str | None = None,
        metric: str | Sequence[str] = "bbox",
        backend: str = "pycocotools",
        outfile_prefix: str | None = None,
        format_only: bool = False,
        trust_boxes: bool = False,
        voc_rules: str | int | None = None,
        **kwargs: Any,
    ) -> None:
        if ann_file is None:
            raise UserError(
                "ann_file of DetectionMetric: is not set; give the COCO file or VOC list of the scored images"
            )
        if changed := [name for name in ("iou_thrs", "metric_items") if kwargs.get(name) is not None]:
            raise UserError(f"val_evaluator.{changed[0]}: COCO's metric cannot be changed here; leave it out")
        kinds = [metric] if isinstance(metric, str) else list(metric)
        super().__init__(metric=kinds, outfile_prefix=outfile_prefix, format_only=format_only, **kwargs)
        if unknown := set(kinds) - {"bbox", "segm"}:
            raise UserError(f"val_evaluator.metric={sorted(unknown)}: choose bbox or segm")
        file, _, _ = read_boxes(ann_file, not format_only, "segm" in kinds and not format_only, trust_boxes)
        self._coco_api = OrderedCOCO.of(file.content)
        if not format_only and all(annotation["iscrowd"] for annotation in file.content["annotations"]):
            tell(f"warning: {ann_file}: has no box of a single object (`iscrowd` 0), so nothing can be scored")
        self.backend, self.voc_rules = backend, None if voc_rules is None else str(voc_rules)
        if self.voc_rules is not None and self.voc_rules not in RULES:
            raise UserError(f"val_evaluator.voc_rules={voc_rules!r}: choose {' or '.join(RULES)}, or None")
        self.voc: VocScores | None = None
        self.scores: dict[str, DetectionScores] = {}
        self.predictions: dict[str, list[CocoDetection]] = {}
        self.image_ids: list[int] = []
        self.unreadable: dict[str, str] = {}
        self._written: set[Path] = set()

    @property
    def ground_truth(self) -> CocoInstances:
        """The content of the annotation file, without boxes that have no area."""
        content: CocoInstances = self._coco_api.dataset
        return content

    def process(self, data_batch: Mapping[str, object], data_samples: Sequence[Mapping[str, object]]) -> None:
        """Stores the predictions of each image, or the reason why it cannot be read."""
        super().process(data_batch, data_samples)
        for (_, prediction), sample in zip(self.results[-len(data_samples) :], data_samples, strict=True):
            # Samples that are left out must stay until MMEngine has interleaved the results of all processes by
            # position.
            prediction[UNREADABLE] = sample.get(UNREADABLE, "")

    def compute_metrics(self, results: Sequence[tuple[object, Prediction]]) -> dict[str, float]:
        """Scores the boxes and masks of all readable images, and prints the number of unreadable ones.

        Raises:
            UserError: if no image could be read.
        """
        before, self.unreadable = self.unreadable, {}
        for _, prediction in results:
            self.unreadable |= json.loads(prediction[UNREADABLE] or "{}")
        require_some(self.unreadable, len(results))
        if self.unreadable and self.unreadable != before:  # reported once, not in every epoch
            tell_unscored(self.unreadable, len(results))
        predictions = [prediction for _, prediction in results if not prediction[UNREADABLE]]
        classes = self.dataset_meta["classes"]
        self._add_classes(classes)
        category_ids = self._coco_api.get_cat_ids(cat_names=classes)
        self.predictions = {kind: _in_coco_format(predictions, category_ids, kind) for kind in self.metrics}
        if self.outfile_prefix is not None:
            for kind, rows in self.predictions.items():
                self._write_predictions(Path(f"{self.outfile_prefix}.{kind}.json"), json.dumps(rows))
        if self.format_only:
            return {}
        self.image_ids = [prediction["img_id"] for prediction in predictions]
        values: dict[str, float] = {}
        for kind, rows in self.predictions.items():
            scores = detection_scores(self._coco_api.dataset, rows, classes, self.image_ids, kind, self.backend)
            self.scores[kind] = scores
            print_log(f"{kind}\n{format_detection_table(scores)}", logger="current")
            values |= {f"{kind}_{name}": _fraction(scores.headline[key]) for name, key in KEYS.items()}
        if self.voc_rules is not None and "bbox" in self.predictions:
            self.voc = voc_scores(self._scored_content(), self.predictions["bbox"], self.voc_rules)
            tell(f"VOC {self.voc_rules} metric: mAP {self.voc.mAP:.2f} (IoU 0.5)")
            values["voc_mAP"] = _fraction(self.voc.mAP)
        return values

    def _add_classes(self, classes: Sequence[str]) -> None:
        """Adds classes without objects, which a VOC image list does not contain."""
        categories = self._coco_api.dataset["categories"]
        known = {category["name"] for category in categories}
        for name in classes:
            if name not in known:
                categories.append({"id": 1 + max(category["id"] for category in categories), "name": name})

    def _scored_content(self) -> CocoInstances:
        """The ground truth of the scored images and classes."""
        content, images, classes = self._coco_api.dataset, set(self.image_ids), set(self.dataset_meta["classes"])
        return {
            "annotations": [each for each in content["annotations"] if each["image_id"] in images],
            "categories": [category for category in content["categories"] if category["name"] in classes],
        }

    def _write_predictions(self, path: Path, text: str) -> None:
        """Writes a file; replaces the file of an earlier epoch of this training, and moves other files aside."""
        with whole_file(path) as partial:
            partial.write_text(text)
            if path not in self._written:
                Earlier(path.parent).keep_unless_same((partial, path.name))
        self._written.add(path)


def _fraction(percent: float) -> float:
    """A score as in MMDetection: from 0 to 1, and -1 if there is no object of that size."""
    return -1.0 if math.isnan(percent) else percent / 100


def _in_coco_format(predictions: Sequence[Prediction], category_ids: Sequence[int], kind: str) -> list[CocoDetection]:
    rows: list[CocoDetection] = []
    for prediction in predictions:
        boxes, labels = prediction["bboxes"].tolist(), prediction["labels"].tolist()
        scores = prediction["scores"] if kind == "bbox" else prediction.get("mask_scores", prediction["scores"])
        for index, ((left, top, right, bottom), label, score) in enumerate(
            zip(boxes, labels, scores.tolist(), strict=True)
        ):
            row: CocoDetection = {
                "image_id": prediction["img_id"],
                "category_id": category_ids[label],
                "bbox": [left, top, right - left, bottom - top],
                "score": score,
            }
            if kind == "segm":
                mask = prediction["masks"][index]
                counts = mask["counts"].decode() if isinstance(mask["counts"], bytes) else mask["counts"]
                row["segmentation"] = {"size": list(mask["size"]), "counts": counts}
            rows.append(row)
    return rows
