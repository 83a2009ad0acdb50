"""The runner's adapter to the evaluation: collects scores and targets over batches and processes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from torch import Tensor

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation import MultilabelScores, multilabel_scores
from tresnet_downstream.notices import tell
from tresnet_downstream.registry import METRICS


@METRICS.register_module()
class MultilabelMetric(BaseMetric):
    """mAP of one or more sets of weights over the same pictures.

    ``evaluate`` gives ``NAME/mAP`` for each set, ``mAP`` of the better one and its name as ``weights``; the
    whole scores stay in :attr:`scores`, and what they were computed from in :attr:`images` (names),
    :attr:`probabilities` (by set of weights, pictures x classes) and :attr:`targets`. Images that cannot be read have
    no part in them; :attr:`unreadable` says why, by name.

    Args:
        threshold: probability above which a class counts as predicted.
        top_k: number of labels per picture for the scores at a fixed number of labels.
    """

    default_prefix = ""

    def __init__(self, threshold: float = 0.5, top_k: int = 3) -> None:
        super().__init__(collect_device="cpu")
        if not 0 <= threshold <= 1 or top_k < 1:
            raise UserError(f"MultilabelMetric: threshold={threshold}, top_k={top_k}: from 0 to 1, and at least 1")
        self.threshold, self.top_k = threshold, top_k
        self.scores: dict[str, MultilabelScores] = {}
        self.images: list[str] = []
        self.targets = np.zeros((0, 0), np.int8)
        self.probabilities: dict[str, np.ndarray] = {}
        self.unreadable: dict[str, str] = {}

    def process(self, data_batch: Mapping[str, Any], data_samples: Sequence[Mapping[str, Tensor]]) -> None:
        """Keeps each picture's name, probabilities and targets, or why it cannot be read."""
        images = data_batch["image"]
        reasons = data_batch.get("unreadable") or [""] * len(images)
        for image, target, sample, reason in zip(images, data_batch["targets"], data_samples, reasons, strict=True):
            row = {name: probabilities.numpy() for name, probabilities in sample.items()}
            # Those left out stay until all processes' rows are together, which MMEngine interleaves by position.
            self.results.append((image, row, target.cpu().numpy(), reason))

    def compute_metrics(self, results: list[tuple[str, dict[str, np.ndarray], np.ndarray, str]]) -> dict[str, Any]:
        """Scores each set of weights over all pictures that could be read, and tells how many could not.

        Raises:
            UserError: if a probability is NaN, or no picture could be read.
        """
        unreadable = {image: reason for image, _, _, reason in results if reason}
        if unreadable and unreadable != self.unreadable:  # once, not in every epoch
            first = next(iter(unreadable.values()))
            if len(unreadable) == len(results):
                raise UserError(f"none of the {len(results)} images to score can be read; the first: {first}")
            tell(f"warning: {len(unreadable)} of {len(results)} images cannot be read and are not scored: {first}")
        self.unreadable = unreadable
        results = [result for result in results if not result[3]]
        self.images = [image for image, _, _, _ in results]
        self.targets = np.stack([target for _, _, target, _ in results])
        self.probabilities = {name: np.stack([row[name] for _, row, _, _ in results]) for name in results[0][1]}
        for name, probabilities in self.probabilities.items():
            if len(wrong := np.flatnonzero(~np.isfinite(probabilities).all(1))):
                raise UserError(f"the {name} weights give probabilities that are NaN for {self.images[wrong[0]]!r}")
        classes = self.dataset_meta["classes"]
        self.scores = {
            name: multilabel_scores(probabilities, self.targets, classes, self.threshold, self.top_k)
            for name, probabilities in self.probabilities.items()
        }
        best = max(self.scores, key=lambda name: self.scores[name].mAP)
        each = {f"{name}/mAP": float(scores.mAP) for name, scores in self.scores.items()}
        return {**each, "mAP": float(self.scores[best].mAP), "weights": best}
