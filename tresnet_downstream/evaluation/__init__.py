"""Scores from predictions and labels, in plain numpy: nothing here knows a model."""

from tresnet_downstream.evaluation.detection_scores import DetectionScores, detection_scores
from tresnet_downstream.evaluation.detection_tables import format_detection_table, write_detection_scores
from tresnet_downstream.evaluation.multilabel_scores import (
    MultilabelScores,
    OperatingPoint,
    average_precision,
    multilabel_scores,
)
from tresnet_downstream.evaluation.multilabel_tables import format_table, write_scores

__all__ = [
    "DetectionScores",
    "MultilabelScores",
    "OperatingPoint",
    "average_precision",
    "detection_scores",
    "format_detection_table",
    "format_table",
    "multilabel_scores",
    "write_detection_scores",
    "write_scores",
]
