"""Metrics of MMEngine's runner, which collect probabilities and targets over batches and processes."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TypeAlias

import numpy as np
from mmengine.evaluator import BaseMetric
from torch import Tensor

from tresnet_downstream.bad_images import require_some, tell_unscored
from tresnet_downstream.classification.datasets import Batch
from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation import (
    MultilabelScores,
    SingleLabelScores,
    multilabel_scores,
    single_label_scores,
)
from tresnet_downstream.registry import METRICS

# Of an image: its name, its probabilities by set of weights, its targets, and the reason if it cannot be read.
Row: TypeAlias = tuple[str, dict[str, np.ndarray], np.ndarray, str]


class ProbabilityMetric(BaseMetric):
    """The base class of metrics of probabilities and targets. A subclass implements :meth:`score`.

    Attributes:
        images: names of the images of the last evaluation, without those that cannot be read.
        probabilities: from each set of weights, such as ``raw``, to N x C probabilities.
        targets: N x C; with one label per image, N class indices.
        unreadable: from the names of images that cannot be read to the reasons.
    """

    default_prefix = ""

    def __init__(self) -> None:
        super().__init__(collect_device="cpu")
        self.images: list[str] = []
        self.targets = np.zeros((0, 0), np.int8)
        self.probabilities: dict[str, np.ndarray] = {}
        self.unreadable: dict[str, str] = {}

    @abstractmethod
    def score(self, probabilities: np.ndarray, targets: np.ndarray, weights: str) -> Mapping[str, float]:
        """Computes the scores of one set of weights, by name.

        Args:
            probabilities: N x C, float32, 0 to 1.
            targets: N x C, int8: 1 shown, 0 not shown, -1 unknown; with one label per image, N class indices.
            weights: the set of weights: ``raw`` or ``averaged``.
        """

    def process(self, data_batch: Batch, data_samples: Sequence[Mapping[str, Tensor]]) -> None:
        """Stores the name, probabilities and targets of each image, or the reason why it cannot be read."""
        images = data_batch["image"]
        reasons = data_batch.get("unreadable") or [""] * len(images)
        for image, target, sample, reason in zip(images, data_batch["targets"], data_samples, reasons, strict=True):
            row = {name: probabilities.numpy() for name, probabilities in sample.items()}
            # Unreadable images are removed later, since MMEngine interleaves the rows of all processes by position.
            self.results.append((image, row, target.cpu().numpy(), reason))

    def compute_metrics(self, results: list[Row]) -> dict[str, float | str]:
        """The scores as ``NAME/KEY``, for each set of weights ``NAME`` and each ``KEY`` of :meth:`score`.

        Raises:
            UserError: if a probability is NaN, no image can be read, or :meth:`score` does not return numbers by name.
        """
        self.unreadable = {image: reason for image, _, _, reason in results if reason}
        require_some(self.unreadable, len(results))
        results = [result for result in results if not result[3]]
        self.images = [image for image, _, _, _ in results]
        self.targets = np.stack([target for _, _, target, _ in results])
        self.probabilities = {name: np.stack([row[name] for _, row, _, _ in results]) for name in results[0][1]}
        for name, probabilities in self.probabilities.items():
            if len(wrong := np.flatnonzero(~np.isfinite(probabilities).all(1))):
                raise UserError(f"the {name} weights predict probabilities that are NaN for {self.images[wrong[0]]!r}")
        return {
            f"{name}/{key}": value
            for name, probabilities in self.probabilities.items()
            for key, value in self._scores_of(name, probabilities).items()
        }

    def _scores_of(self, weights: str, probabilities: np.ndarray) -> dict[str, float]:
        scores: object = self.score(probabilities, self.targets, weights)  # a user's class may return anything
        if not isinstance(scores, Mapping):
            raise UserError(
                f"{type(self).__name__}.score returns {type(scores).__name__}, not a dict of numbers by name"
            )
        for key, value in scores.items():
            if not isinstance(value, Real):
                raise UserError(f"{type(self).__name__}.score returns {key}={value!r:.40}, which is not a number")
            if not isinstance(self, TaskMetric) and (taken := [k for k in TASK_METRICS if key in k.keys]):
                raise UserError(
                    f"{type(self).__name__}.score returns {key}, a name of {taken[0].__name__}; choose another"
                )
        return {str(key): float(value) for key, value in scores.items()}


class TaskMetric(ProbabilityMetric):
    """The base class of the two metrics of the tasks. Scoring writes their scores, and training compares by them.

    ``evaluate`` returns ``NAME/KEY`` for each set of weights and each of :attr:`keys`. It also returns the first key
    for the set with the better score, and the name of this set as ``weights``.

    Attributes:
        scores: from each set of weights to all of its scores.
    """

    keys: tuple[str, ...]
    scores: Mapping[str, MultilabelScores | SingleLabelScores]

    def __init__(self) -> None:
        super().__init__()
        self.scores = {}

    def compute_metrics(self, results: list[Row]) -> dict[str, float | str]:
        """Scores each set of weights over all images that can be read. A message says how many cannot."""
        reported, self.scores = self.unreadable, {}
        of_all_weights = super().compute_metrics(results)
        if self.unreadable and self.unreadable != reported:  # once, not in every epoch
            tell_unscored(self.unreadable, len(results))
        first = self.keys[0]
        best = max(self.scores, key=lambda name: float(of_all_weights[f"{name}/{first}"]))
        return {**of_all_weights, first: of_all_weights[f"{best}/{first}"], "weights": best}


@METRICS.register_module()
class MultilabelMetric(TaskMetric):
    """mAP of one or more sets of weights over the same images.

    Args:
        threshold: a class is predicted if its probability is above this number.
        top_k: number of predicted labels per image, for the scores with a fixed number of labels.

    Examples:
        >>> metric = MultilabelMetric()
        >>> metric.dataset_meta = {"classes": ("cat", "dog")}
        >>> metric.score(np.array([[0.9, 0.2], [0.1, 0.8]]), np.array([[1, 0], [0, 1]], np.int8), "raw")
        {'mAP': 100.0}
    """

    keys = ("mAP",)
    scores: dict[str, MultilabelScores]

    def __init__(self, threshold: float = 0.5, top_k: int = 3) -> None:
        super().__init__()
        if not 0 <= threshold <= 1 or top_k < 1:
            raise UserError(f"MultilabelMetric: threshold={threshold}, top_k={top_k}: give 0 to 1, and at least 1")
        self.threshold, self.top_k = threshold, top_k

    def score(self, probabilities: np.ndarray, targets: np.ndarray, weights: str) -> dict[str, float]:
        """The mAP. All scores are stored in :attr:`scores`."""
        classes = self.dataset_meta["classes"]
        self.scores[weights] = multilabel_scores(probabilities, targets, classes, self.threshold, self.top_k)
        return {"mAP": self.scores[weights].mAP}


@METRICS.register_module()
class SingleLabelMetric(TaskMetric):
    """Top-1, top-5 and mean per-class accuracy of one or more sets of weights over the same images, in percent."""

    keys = ("top1", "top5", "mean_per_class")
    scores: dict[str, SingleLabelScores]

    def score(self, probabilities: np.ndarray, targets: np.ndarray, weights: str) -> dict[str, float]:
        """The three accuracies. All scores are stored in :attr:`scores`."""
        self.scores[weights] = single_label_scores(probabilities, targets, self.dataset_meta["classes"])
        return {key: getattr(self.scores[weights], key) for key in self.keys}


def task_metric(metrics: Sequence[BaseMetric], kind: type[TaskMetric]) -> TaskMetric:
    """The metric of a task among the metrics of an evaluator.

    Raises:
        UserError: if there is none, or several.
    """
    matching = [metric for metric in metrics if isinstance(metric, kind)]
    if len(matching) != 1:
        kinds = ", ".join(type(metric).__name__ for metric in metrics)
        raise UserError(
            f"val_evaluator: must have exactly one {kind.__name__}, because its scores are written and compared; it "
            f"has {len(matching)} (metrics: {kinds}). Other metrics may be added: [dict(type='{kind.__name__}'), ...]"
        )
    return matching[0]


TASK_METRICS: tuple[type[TaskMetric], ...] = (MultilabelMetric, SingleLabelMetric)
