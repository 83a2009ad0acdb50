"""Reads the log of a training from its work dir: loss, learning rate and validation scores by epoch."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeGuard

from tresnet_downstream.errors import UserError
from tresnet_downstream.text_files import read_text

# The main scores among those that a validation logs. The scores of detectors are from 0 to 1.
_MAIN = ("mAP", "top1", "bbox_mAP", "segm_mAP")
_LARGEST = 1e30
Points = list[tuple[float, float]]


@dataclass
class TrainingLog:
    """The logged values of a training, as pairs of an epoch and a value.

    Attributes:
        loss: the loss at each logged step.
        learning_rate: the learning rate at the same steps.
        scores: by name, the score after each validation, in percent.
    """

    loss: Points = field(default_factory=list)
    learning_rate: Points = field(default_factory=list)
    scores: dict[str, Points] = field(default_factory=dict)

    def curves(self, what: str) -> dict[str, Points]:
        """The curves of ``loss``, ``learning_rate`` or ``score``, by name; the only curve has an empty name."""
        return self.scores if what == "score" else {"": self.loss if what == "loss" else self.learning_rate}


def read_training_log(folder: Path) -> TrainingLog | None:
    """Reads the logs that MMEngine wrote in a work dir. A resumed training has several, and later ones take precedence.

    Args:
        folder: the work dir; its folders named by date hold ``vis_data/scalars.json``, with a JSON object in each line.

    Returns:
        the log; None if there is none.
    """
    records: list[dict[str, float]] = []
    for file in sorted(folder.glob("*/vis_data/scalars.json")):
        added = _records(file)
        first = next((record["step"] for record in added if "loss" in record), math.inf)
        # Points that a killed training logged after the checkpoint from which it was resumed.
        records = [record for record in records if "loss" not in record or record["step"] < first]
        records += added
    steps_per_epoch = _steps_per_epoch(records)
    log = TrainingLog()
    last_epoch = 0.0
    for record in records:
        if "loss" in record:
            last_epoch = record["step"] / steps_per_epoch
            log.loss.append((last_epoch, record["loss"]))
            if "lr" in record:
                log.learning_rate.append((last_epoch, record["lr"]))
            continue
        for key, value in record.items():
            *_, name = key.split("/")
            if name in _MAIN:
                # A training that validates by steps logs the step; one by epochs logs the epoch.
                step = record["step"]
                epoch = step if step <= math.ceil(last_epoch + 1e-9) + 1 else step / steps_per_epoch
                log.scores.setdefault(key, []).append((epoch, 100 * value if "_" in name else value))
    _leave_out_copies(log.scores)
    log.scores = {key: _last_of_each_epoch(points) for key, points in log.scores.items()}
    return log if log.loss or log.scores else None


def _records(file: Path) -> list[dict[str, float]]:
    """The records of a log; a killed training may leave an incomplete line."""
    try:
        lines = read_text(file).splitlines()
    except UserError:
        return []
    records = []
    for line in lines:
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(content, dict):
            numbers = {key: value for key, value in content.items() if _is_number(value)}
            if numbers.get("step", 0) > 0:
                records.append(numbers)
    return records


def _is_number(value: object) -> TypeGuard[float]:
    return (type(value) is int or type(value) is float) and -_LARGEST < value < _LARGEST


def _steps_per_epoch(records: list[dict[str, float]]) -> float:
    """The number of steps of an epoch: the greatest that fits the logged steps and epochs; 1 if unknown."""
    steps = [r["step"] / r["epoch"] for r in records if "loss" in r and r.get("epoch", 0) > 0]
    return max(steps, default=1.0)


def _leave_out_copies(scores: dict[str, Points]) -> None:
    """Leaves out a score that is a copy of the better of the scores of raw and averaged weights."""
    for key in list(scores):
        if f"raw/{key}" in scores and f"averaged/{key}" in scores:
            del scores[key]


def _last_of_each_epoch(points: Points) -> Points:
    """The last point of each epoch; a resumed training may validate an epoch again."""
    return sorted(dict(points).items())
