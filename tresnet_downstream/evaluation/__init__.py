"""Scores and reports from predictions and labels, in NumPy. No module of this folder imports a network."""

from typing import TYPE_CHECKING

from tresnet_downstream.evaluation.detection_scores import DetectionScores, detection_scores
from tresnet_downstream.evaluation.detection_tables import format_detection_table, write_detection_scores
from tresnet_downstream.evaluation.frequency_groups import TrainingCounts
from tresnet_downstream.evaluation.multilabel_scores import (
    MultilabelScores,
    OperatingPoint,
    average_precision,
    multilabel_scores,
)
from tresnet_downstream.evaluation.multilabel_tables import format_table, write_scores
from tresnet_downstream.evaluation.outcomes import DetectionRun, MultilabelRun, SingleLabelRun
from tresnet_downstream.evaluation.runs import (
    read_run,
    write_detection_run,
    write_multilabel_run,
    write_single_label_run,
)
from tresnet_downstream.evaluation.scored import write_scored
from tresnet_downstream.evaluation.single_label_scores import SingleLabelScores, single_label_scores
from tresnet_downstream.evaluation.single_label_tables import (
    format_single_label_table,
    write_single_label_scores,
)
from tresnet_downstream.evaluation.thresholds import Thresholds, read_thresholds
from tresnet_downstream.evaluation.voc_scores import VocScores, voc_scores

if TYPE_CHECKING:
    from tresnet_downstream.evaluation.report import write_report

__all__ = [
    "DetectionRun",
    "DetectionScores",
    "MultilabelRun",
    "MultilabelScores",
    "OperatingPoint",
    "SingleLabelRun",
    "SingleLabelScores",
    "Thresholds",
    "TrainingCounts",
    "VocScores",
    "average_precision",
    "detection_scores",
    "format_detection_table",
    "format_single_label_table",
    "format_table",
    "multilabel_scores",
    "read_run",
    "read_thresholds",
    "single_label_scores",
    "voc_scores",
    "write_detection_run",
    "write_detection_scores",
    "write_multilabel_run",
    "write_report",
    "write_scored",
    "write_scores",
    "write_single_label_run",
    "write_single_label_scores",
]


def __getattr__(name: str) -> object:
    # Imported on first use: matplotlib takes half a second to load, and a training does not need it.
    if name == "write_report":
        from tresnet_downstream.evaluation.report import write_report

        return write_report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
