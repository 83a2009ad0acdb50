"""The runner's adapters to the evaluation: they collect scores and targets over batches and processes."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from torch import Tensor

from tresnet_downstream.bad_images import require_some, tell_unscored
from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation import multilabel_scores, single_label_scores
from tresnet_downstream.registry import METRICS


class ProbabilityMetric(BaseMetric):
    """The base of metrics of probabilities and targets; one of the user's own needs the method :meth:`score`.

    What the last evaluation scored stays in :attr:`images` (names), :attr:`probabilities` (by set of weights, such as
    ``raw``: N x C), and :attr:`targets` (N x C; N class indices with one label per image). Images that cannot be read
    have no part in them; :attr:`unreadable` says why, by name.
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
        """Scores of one set of weights, by name.

        Args:
            probabilities: N x C, float32, 0 to 1.
            targets: N x C, int8: 1 shown, 0 not shown, -1 unknown; with one label per image N class indices.
            weights: which they are of: ``raw`` or ``averaged``.
        """

    def process(self, data_batch: Mapping[str, Any], data_samples: Sequence[Mapping[str, Tensor]]) -> None:
        """Keeps each picture's name, probabilities and targets, or why it cannot be read."""
        images = data_batch["image"]
        reasons = data_batch.get("unreadable") or [""] * len(images)
        for image, target, sample, reason in zip(images, data_batch["targets"], data_samples, reasons, strict=True):
            row = {name: probabilities.numpy() for name, probabilities in sample.items()}
            # Those left out stay until all processes' rows are together, which MMEngine interleaves by position.
            self.results.append((image, row, target.cpu().numpy(), reason))

    def compute_metrics(self, results: list[tuple[str, dict[str, np.ndarray], np.ndarray, str]]) -> dict[str, Any]:
        """``NAME/KEY`` for each set of weights ``NAME`` and each ``KEY`` that :meth:`score` gives.

        Raises:
            UserError: if a probability is NaN, no picture could be read, or :meth:`score` gives no numbers by name.
        """
        self.unreadable = {image: reason for image, _, _, reason in results if reason}
        require_some(self.unreadable, len(results))
        results = [result for result in results if not result[3]]
        self.images = [image for image, _, _, _ in results]
        self.targets = np.stack([target for _, _, target, _ in results])
        self.probabilities = {name: np.stack([row[name] for _, row, _, _ in results]) for name in results[0][1]}
        for name, probabilities in self.probabilities.items():
            if len(wrong := np.flatnonzero(~np.isfinite(probabilities).all(1))):
                raise UserError(f"the {name} weights give probabilities that are NaN for {self.images[wrong[0]]!r}")
        return {
            f"{name}/{key}": value
            for name, probabilities in self.probabilities.items()
            for key, value in self._scores_of(name, probabilities).items()
        }

    def _scores_of(self, weights: str, probabilities: np.ndarray) -> dict[str, float]:
        scores = self.score(probabilities, self.targets, weights)
        if not isinstance(scores, Mapping):
            raise UserError(f"{type(self).__name__}.score gives {type(scores).__name__}, not a dict of numbers by name")
        for key, value in scores.items():
            if not isinstance(value, Real):
                raise UserError(f"{type(self).__name__}.score gives {key}={value!r:.40}, which is not a number")
            if not isinstance(self, TaskMetric) and (taken := [k for k in TASK_METRICS if key in k.keys]):
                raise UserError(f"{type(self).__name__}.score gives {key}, {taken[0].__name__}'s name; choose another")
        return {str(key): float(value) for key, value in scores.items()}


class TaskMetric(ProbabilityMetric):
    """The base of the two metrics whose scores are written by scoring and choose the better weights in training.

    ``evaluate`` gives ``NAME/KEY`` for each set of weights and each of :attr:`keys`, and the first key and
    ``weights`` for the better set; the whole scores stay in :attr:`scores`.
    """

    keys: tuple[str, ...]

    def __init__(self) -> None:
        super().__init__()
        self.scores: dict[str, Any] = {}

    def compute_metrics(self, results: list[tuple[str, dict[str, np.ndarray], np.ndarray, str]]) -> dict[str, Any]:
        """Scores each set of weights over all pictures that could be read, and tells how many could not."""
        before, self.scores = self.unreadable, {}
        each = super().compute_metrics(results)
        if self.unreadable and self.unreadable != before:  # once, not in every epoch
            tell_unscored(self.unreadable, len(results))
        first = self.keys[0]
        best = max(self.scores, key=lambda name: each[f"{name}/{first}"])
        return {**each, first: each[f"{best}/{first}"], "weights": best}


@METRICS.register_module()
class MultilabelMetric(TaskMetric):
    """mAP of one or more sets of weights over the same pictures.

    Args:
        threshold: probability above which a class counts as predicted.
        top_k: number of labels per picture for the scores at a fixed number of labels.
    """

    keys = ("mAP",)

    def __init__(self, threshold: float = 0.5, top_k: int = 3) -> None:
        super().__init__()
        if not 0 <= threshold <= 1 or top_k < 1:
            raise UserError(f"MultilabelMetric: threshold={threshold}, top_k={top_k}: from 0 to 1, and at least 1")
        self.threshold, self.top_k = threshold, top_k

    def score(self, probabilities: np.ndarray, targets: np.ndarray, weights: str) -> dict[str, float]:
        """The mAP; all scores stay in :attr:`scores`."""
        classes = self.dataset_meta["classes"]
        self.scores[weights] = multilabel_scores(probabilities, targets, classes, self.threshold, self.top_k)
        return {"mAP": self.scores[weights].mAP}


@METRICS.register_module()
class SingleLabelMetric(TaskMetric):
    """Top-1, top-5 and the mean per class of one or more sets of weights over the same pictures, in percent."""

    keys = ("top1", "top5", "mean_per_class")

    def score(self, probabilities: np.ndarray, targets: np.ndarray, weights: str) -> dict[str, float]:
        """The three; all scores stay in :attr:`scores`."""
        self.scores[weights] = single_label_scores(probabilities, targets, self.dataset_meta["classes"])
        return {key: getattr(self.scores[weights], key) for key in self.keys}


def task_metric(metrics: Sequence[BaseMetric], kind: type[TaskMetric]) -> TaskMetric:
    """The metric of a task among those of an evaluator.

    Raises:
        UserError: if there is none, or there are several.
    """
    ours = [metric for metric in metrics if isinstance(metric, kind)]
    if len(ours) != 1:
        kinds = ", ".join(type(metric).__name__ for metric in metrics)
        raise UserError(
            f"val_evaluator: has {len(ours)} {kind.__name__}, whose scores are written and choose the better weights; "
            f"list exactly one, beside others: [dict(type='{kind.__name__}'), ...] ({kinds})"
        )
    return ours[0]


TASK_METRICS: tuple[type[TaskMetric], ...] = (MultilabelMetric, SingleLabelMetric)
