"""The runner's adapter to the evaluation: MMDetection's predictions in COCO's results format, and their scores."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmdet.evaluation.metrics import CocoMetric
from mmengine.logging import print_log

from tresnet_downstream.bad_images import require_some, tell_unscored
from tresnet_downstream.detection.box_files import read_boxes
from tresnet_downstream.detection.datasets import OrderedCOCO
from tresnet_downstream.detection.loading import UNREADABLE
from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation import DetectionScores, detection_scores, format_detection_table
from tresnet_downstream.evaluation.voc_scores import RULES, VocScores, voc_scores
from tresnet_downstream.files import Earlier, whole_file
from tresnet_downstream.notices import tell
from tresnet_downstream.registry import METRICS

# MMDetection's names for the first six of COCO's numbers.
KEYS = {"mAP": "AP", "mAP_50": "AP50", "mAP_75": "AP75", "mAP_s": "AP_small", "mAP_m": "AP_medium", "mAP_l": "AP_large"}


@METRICS.register_module()
class DetectionMetric(CocoMetric):
    """MMDetection's ``CocoMetric``, scored by :func:`detection_scores`: not rounded, with every class's AP.

    ``evaluate`` gives ``coco/bbox_mAP`` and so on as MMDetection does, from 0 to 1 or -1; the whole scores and the
    predictions stay in :attr:`scores` and :attr:`predictions`, the pictures that were scored in :attr:`image_ids`, and
    why others could not be read in :attr:`unreadable`, by file name.

    Args:
        ann_file: the COCO file, or list of VOC, that the pictures are of.
        metric: ``bbox``, ``segm`` or both.
        backend: what computes, see :func:`detection_scores`.
        outfile_prefix: writes the predictions to ``PREFIX.bbox.json`` and ``PREFIX.segm.json``.
        format_only: writes them and scores nothing.
        trust_boxes: as of `CocoBoxes`.
        voc_rules: ``2007`` or ``2010`` also scores the boxes by VOC's rules, see :func:`voc_scores`, as ``voc_mAP``;
            what they give stays in :attr:`voc`.
        **kwargs: other arguments of ``CocoMetric``.

    Raises:
        UserError: for a file that is missing or malformed, and for arguments that would change COCO's rules.
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
            raise UserError("val_evaluator.ann_file: name the COCO file of the validation data")
        if changed := [name for name in ("iou_thrs", "metric_items") if kwargs.get(name) is not None]:
            raise UserError(f"val_evaluator.{changed[0]}: scores follow COCO's own rules here; leave it out")
        kinds = [metric] if isinstance(metric, str) else list(metric)
        super().__init__(metric=kinds, outfile_prefix=outfile_prefix, format_only=format_only, **kwargs)
        if unknown := set(kinds) - {"bbox", "segm"}:
            raise UserError(f"val_evaluator.metric={sorted(unknown)}: choose bbox or segm")
        file, _, _ = read_boxes(ann_file, not format_only, "segm" in kinds and not format_only, trust_boxes)
        self._coco_api = OrderedCOCO.of(file.content)
        if not format_only and all(annotation["iscrowd"] for annotation in file.content["annotations"]):
            tell(f"warning: {ann_file}: has no box of a single object (`iscrowd` 0), so nothing can be scored with it")
        self.backend, self.voc_rules = backend, None if voc_rules is None else str(voc_rules)
        if self.voc_rules is not None and self.voc_rules not in RULES:
            raise UserError(f"val_evaluator.voc_rules={voc_rules!r}: choose {' or '.join(RULES)}, or None")
        self.voc: VocScores | None = None
        self.scores: dict[str, DetectionScores] = {}
        self.predictions: dict[str, list[dict[str, Any]]] = {}
        self.image_ids: list[int] = []
        self.unreadable: dict[str, str] = {}
        self._written: set[Path] = set()

    @property
    def ground_truth(self) -> dict[str, Any]:
        """What the annotation file holds, boxes without area left out."""
        content: dict[str, Any] = self._coco_api.dataset
        return content

    def process(self, data_batch: Mapping[str, Any], data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Keeps what was found in each picture, or why it cannot be read."""
        super().process(data_batch, data_samples)
        for (_, prediction), sample in zip(self.results[-len(data_samples) :], data_samples, strict=True):
            # Those left out stay until all processes' rows are together, which MMEngine interleaves by position.
            prediction[UNREADABLE] = sample.get(UNREADABLE, "")

    def compute_metrics(self, results: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, float]:
        """Scores the boxes and masks of all pictures that could be read, and tells how many could not.

        Raises:
            UserError: if none could be read.
        """
        before, self.unreadable = self.unreadable, {}
        for _, prediction in results:
            self.unreadable |= json.loads(prediction[UNREADABLE] or "{}")
        require_some(self.unreadable, len(results))
        if self.unreadable and self.unreadable != before:  # once, not in every epoch
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
            tell(f"VOC's rules of {self.voc_rules}: mAP {self.voc.mAP:.2f} (IoU 0.5)")
            values["voc_mAP"] = _fraction(self.voc.mAP)
        return values

    def _add_classes(self, classes: Sequence[str]) -> None:
        """Adds classes of which VOC's list has no object, and which it therefore does not know."""
        categories = self._coco_api.dataset["categories"]
        known = {category["name"] for category in categories}
        for name in classes:
            if name not in known:
                categories.append({"id": 1 + max(category["id"] for category in categories), "name": name})

    def _scored_content(self) -> dict[str, Any]:
        """The ground truth of the pictures and classes that were scored."""
        content, images, classes = self._coco_api.dataset, set(self.image_ids), set(self.dataset_meta["classes"])
        return {
            "annotations": [each for each in content["annotations"] if each["image_id"] in images],
            "categories": [category for category in content["categories"] if category["name"] in classes],
        }

    def _write_predictions(self, path: Path, text: str) -> None:
        """Writes a file, over one of this training's earlier epochs; another's is moved aside."""
        with whole_file(path) as partial:
            partial.write_text(text)
            if path not in self._written:
                Earlier(path.parent).keep_unless_same((partial, path.name))
        self._written.add(path)


def _fraction(percent: float) -> float:
    """As MMDetection has it: 0 to 1, and -1 where there is no object of that size."""
    return -1.0 if math.isnan(percent) else percent / 100


def _in_coco_format(
    predictions: Sequence[dict[str, Any]], category_ids: Sequence[int], kind: str
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for prediction in predictions:
        boxes, labels = prediction["bboxes"].tolist(), prediction["labels"].tolist()
        scores = prediction["scores"] if kind == "bbox" else prediction.get("mask_scores", prediction["scores"])
        for index, ((left, top, right, bottom), label, score) in enumerate(
            zip(boxes, labels, scores.tolist(), strict=True)
        ):
            row = {
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
