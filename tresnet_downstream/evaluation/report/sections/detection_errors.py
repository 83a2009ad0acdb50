"""The errors of detectors: the number of each of six kinds, and the AP that each kind costs."""

from tresnet_downstream.evaluation.detection_errors import KINDS
from tresnet_downstream.evaluation.report import plots
from tresnet_downstream.evaluation.report.data import ReportData
from tresnet_downstream.evaluation.report.parts import Column, Figure, Section, Table
from tresnet_downstream.evaluation.report.registry import section
from tresnet_downstream.evaluation.report.tasks.detection import DetectionAnalysis

_KINDS_TEXT = (
    "The six kinds of TIDE (Bolya et al., 2020) at IoU 0.5. Each wrong detection counts as the first that applies: "
    "localisation (right class, IoU 0.1 to 0.5), classification (wrong class, IoU from 0.5), duplicate, background "
    "(IoU up to 0.1 with every object), both (wrong class and wrong place). Missed are objects without a detection. "
    "The gain is the increase of AP50 if all errors of that kind were corrected; gains do not add up. The 100 highest "
    "scores of each image count."
)


@section("detection", place=50)
def detection_errors(data: ReportData[DetectionAnalysis]) -> list[Section]:
    """Computes a table and a bar chart for each kind of prediction."""
    sections = []
    for kind, analyses in data.kinds.items():
        columns = [Column("kind", "kind", "text")]
        rows: list[list[object]] = [[f"{error} (objects)" if error == "missed" else error] for error in KINDS]
        totals: list[list[object]] = [["all false positives"], ["all false negatives"]]
        for place, analysis in enumerate(analyses):
            of_run = data.of_run(place)
            columns += [
                Column(f"count_{place}", f"all scores{of_run}", "count", "detections; objects for those missed"),
                Column(f"shown_{place}", f"above threshold{of_run}", "count", "the same above the threshold in use"),
                Column(f"gain_{place}", f"gain in AP50{of_run}", "difference"),
            ]
            errors, shown = analysis.errors, analysis.shown_errors
            for row, error in zip(rows, KINDS, strict=True):
                row += [errors.counts[error], shown.counts[error], errors.gain[error]]
            totals[0] += [None, None, errors.false_positive_gain]
            totals[1] += [None, None, errors.false_negative_gain]
        gains = [[a.errors.gain[error] for error in KINDS] for a in analyses]
        figure = Figure(
            f"errors{data.kind_suffix(kind)}",
            "AP50 that each kind of error costs",
            "Points of AP50 gained if all errors of this kind were corrected.",
            plots.bars(KINDS, gains, data.names, "gain in AP50"),
        )
        sections.append(
            Section(
                f"Errors{data.of_kind(kind)}",
                tables=[Table(columns, [*rows, *totals])],
                figures=[figure],
                footnotes=[_KINDS_TEXT],
                run_numbers=[{"errors": {kind: _as_json(analysis)}} for analysis in analyses],
            )
        )
    return sections


def _as_json(analysis: DetectionAnalysis) -> dict[str, object]:
    errors = analysis.errors
    return {
        "counts": errors.counts,
        "gain": errors.gain,
        "false_positive_gain": errors.false_positive_gain,
        "false_negative_gain": errors.false_negative_gain,
        "counts_above_threshold": analysis.shown_errors.counts,
    }
