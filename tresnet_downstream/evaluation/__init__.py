"""Scores from predictions and labels, in plain numpy: nothing here knows a model."""

from tresnet_downstream.evaluation.multilabel_scores import (
    MultilabelScores,
    OperatingPoint,
    average_precision,
    multilabel_scores,
)
from tresnet_downstream.evaluation.tables import format_table, write_scores

__all__ = [
    "MultilabelScores",
    "OperatingPoint",
    "average_precision",
    "format_table",
    "multilabel_scores",
    "write_scores",
]
