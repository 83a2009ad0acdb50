"""AP of detectors by the size of the objects and by IoU threshold."""

from tresnet_downstream.evaluation.detection_scores import SIZES
from tresnet_downstream.evaluation.report.data import ReportData
from tresnet_downstream.evaluation.report.parts import Column, Section, Table
from tresnet_downstream.evaluation.report.registry import section
from tresnet_downstream.evaluation.report.tasks.detection import DetectionAnalysis


@section("detection", place=25)
def detection_sizes(data: ReportData[DetectionAnalysis]) -> list[Section]:
    """Computes a table for each kind of prediction: a row for each size, a column for each IoU threshold."""
    sections = []
    for kind, analyses in data.kinds.items():
        thresholds = analyses[0].scores.iou_thresholds
        columns = [
            Column("size", "size", "text"),
            Column("mean", "mean"),
            *(Column(f"iou_{t:.2f}", f"{t:.2f}") for t in thresholds),
        ]
        rows = []
        for place, analysis in enumerate(analyses):
            for size, values in zip(SIZES, analysis.scores.ap_by_size_and_iou(), strict=True):
                rows.append([f"{size}{data.of_run(place)}", float(values.mean()), *values.tolist()])
        sections.append(
            Section(
                f"AP{data.of_kind(kind)} by size and IoU",
                tables=[Table(columns, rows)],
                footnotes=["COCO's sizes: small below 32 x 32 pixels, large above 96 x 96."],
                numbers={"sizes": SIZES, "iou_thresholds": thresholds},
                run_numbers=[{"ap_by_size_and_iou": {kind: a.scores.ap_by_size_and_iou()}} for a in analyses],
            )
        )
    return sections
