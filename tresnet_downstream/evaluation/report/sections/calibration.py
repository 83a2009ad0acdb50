"""The calibration of classifiers: predicted probabilities and the frequencies of positives."""

import numpy as np

from tresnet_downstream.evaluation.report import plots
from tresnet_downstream.evaluation.report.data import ReportData
from tresnet_downstream.evaluation.report.headline import Analysis
from tresnet_downstream.evaluation.report.parts import Figure, Section, text_of
from tresnet_downstream.evaluation.report.registry import section
from tresnet_downstream.evaluation.report.tasks.multilabel import MultilabelAnalysis
from tresnet_downstream.evaluation.report.tasks.single_label import SingleLabelAnalysis
from tresnet_downstream.evaluation.single_label_scores import confidence_bins

_NOT_CALIBRATED = (
    "Losses that weight positives and negatives differently, such as the asymmetric loss, give probabilities that are "
    "not calibrated, so 0.5 is not a natural threshold."
)


@section("multilabel", "single_label", place=40)
def calibration(data: ReportData[Analysis]) -> Section:
    """Computes a reliability diagram for each run."""
    figures, numbers = [], []
    for place, analysis in enumerate(data.analyses):
        if isinstance(analysis, MultilabelAnalysis):
            bins = analysis.reliability
            text = (
                f"Of the entries with a probability of 0.8, 80% should be present. The expected calibration error is "
                f"{text_of(bins.error, 'percent')}% over all entries and {text_of(bins.class_error, 'percent')}% as "
                "the mean over the classes; lower is better."
            )
            drawing = plots.reliability_diagram(bins.probability, bins.frequency, bins.count)
            numbers.append({"calibration": dict(vars(bins))})
        else:
            assert isinstance(analysis, SingleLabelAnalysis)
            scores = analysis.scores
            text = (
                "Of the images with a confidence of 0.8, 80% should be right. The expected calibration error is "
                f"{text_of(scores.calibration_error, 'percent')}%; lower is better. The log loss is "
                f"{scores.log_loss:.4f}."
            )
            count, confidences, rights = confidence_bins(scores.confidence, scores.rank == 0)
            filled = np.where(count > 0, count, np.nan)
            confidence, accuracy = confidences / filled, rights / filled
            labels = ("share right", "confidence", "images")
            drawing = plots.reliability_diagram(confidence, accuracy, count, labels)
            numbers.append({"calibration": {"confidence": confidence, "accuracy": accuracy, "count": count}})
        figures.append(
            Figure(f"reliability{data.run_suffix(place)}", f"Reliability{data.of_run(place)}", text, drawing)
        )
    notes = [_NOT_CALIBRATED] if data.task == "multilabel" else []
    return Section("Calibration", figures=figures, footnotes=notes, run_numbers=numbers)
