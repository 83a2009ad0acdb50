"""The metric of the labels of joint models, against the classes of boxes or a label file."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tresnet_downstream.classification.annotations import of_labelled_images
from tresnet_downstream.classification.metrics import MultilabelMetric
from tresnet_downstream.detection.box_files import read_boxes
from tresnet_downstream.detection.loading import UNREADABLE
from tresnet_downstream.errors import UserError
from tresnet_downstream.formats import read_file
from tresnet_downstream.notices import tell
from tresnet_downstream.registry import METRICS

# Name, probabilities, targets (None without labels) and the reason why the image cannot be read, of an image.
Result = tuple[str, dict[str, np.ndarray], np.ndarray | None, str]


@METRICS.register_module()
class LabelsMetric(MultilabelMetric):
    """mAP of the labels that :class:`LabelsAndBoxes` predicts.

    The targets are those of a classifier: the classes of the annotations of an image. Images without annotations are
    left out, unless ``keep_empty`` is set.

    Args:
        ann_file: the annotation file of the images with boxes.
        labels_file: the label file of the images; None for the classes of their boxes.
        keep_empty: whether images without annotations are scored, as images without labels.
        difficult: see :class:`MultiLabelDataset`.
        threshold, top_k: see :class:`MultilabelMetric`.

    Raises:
        UserError: if a file is missing or malformed, or if the files have no image or class in common.
    """

    def __init__(
        self,
        ann_file: str,
        labels_file: str | None = None,
        keep_empty: bool = False,
        difficult: str = "unknown",
        threshold: float = 0.5,
        top_k: int = 3,
    ) -> None:
        super().__init__(threshold, top_k)
        boxes, _, _ = read_boxes(ann_file, labelled=labels_file is None)
        self.ann_file, self.labels_file = ann_file, labels_file or ann_file
        self.names = {image["id"]: image["file_name"] for image in boxes.content["images"]}
        labels = of_labelled_images(self.labels_file, read_file(self.labels_file), keep_empty, difficult)
        self.classes_of_file = labels.classes
        scored_names = set(map(os.path.normpath, self.names.values()))
        self.rows: dict[str, np.ndarray] = {
            name: labels.target(place)
            for place, path in enumerate(labels.paths())
            if (name := os.path.normpath(path)) in scored_names
        }
        if not self.rows:
            raise UserError(f"{self.labels_file}: has no labels of images of {ann_file}")
        if labels_file is not None and len(self.rows) < len(scored_names):
            unlabelled = next(name for name in self.names.values() if os.path.normpath(name) not in self.rows)
            tell(
                f"{labels_file}: has labels of {len(self.rows):,} of the {len(scored_names):,} images of {ann_file}; "
                f"the labels of the others, such as {unlabelled}, are not scored"
            )

    def process(self, data_batch: Mapping[str, object], data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Stores the name, probabilities and targets of each image, or the reason why it cannot be read."""
        columns = self._columns()
        for sample in data_samples:
            name = self.names.get(sample["img_id"])
            path = sample.get("img_path")
            if name is None or (path and not _ends_with(path, name)):
                raise UserError(
                    f"{self.ann_file}: image {sample['img_id']} is {name} in this file, but {path} in the scored data; "
                    "use the same annotation file for the data loader and the evaluator"
                )
            target = self.rows.get(os.path.normpath(name))
            # Images without labels are removed later, when the rows of all processes have been collected.
            row = {"raw": sample["label_probabilities"].cpu().numpy()}
            reason = next(iter(json.loads(sample.get(UNREADABLE) or "{}").values()), "")
            self.results.append((name, row, None if target is None else target[columns], reason))

    def compute_metrics(self, results: Sequence[Result]) -> dict[str, float | str]:
        """Scores the images that have labels."""
        return super().compute_metrics(
            [(name, row, target, reason) for name, row, target, reason in results if target is not None]
        )

    def _columns(self) -> list[int]:
        """The columns of the model's classes in the label file."""
        classes = self.dataset_meta["classes"]
        if missing := [name for name in classes if name not in self.classes_of_file]:
            known = ", ".join(self.classes_of_file[:10])
            raise UserError(
                f"{self.labels_file}: has no class {', '.join(map(repr, missing[:3]))}, which the boxes have; it has "
                f"{known}{', ...' if len(self.classes_of_file) > 10 else ''}"
            )
        return [self.classes_of_file.index(name) for name in classes]


def _ends_with(path: str, name: str) -> bool:
    """Whether a path ends with the name of an image."""
    parts = [part for part in os.path.normpath(name).split(os.sep) if part not in ("", "..")]
    return os.path.normpath(path).split(os.sep)[-len(parts) :] == parts
