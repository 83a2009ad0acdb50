"""The course of the training: loss, validation score and learning rate by epoch."""

from pathlib import Path

from tresnet_downstream.evaluation.report import plots
from tresnet_downstream.evaluation.report.data import ReportData
from tresnet_downstream.evaluation.report.headline import Analysis
from tresnet_downstream.evaluation.report.parts import Figure, Section
from tresnet_downstream.evaluation.report.registry import section
from tresnet_downstream.evaluation.training_log import TrainingLog, read_training_log

_NO_LOG = "The folder of {} has no training log. To show the training, write the scores into its work dir."
# Maximum number of logged points of each curve in scores.json.
_POINTS = 200


@section("multilabel", "single_label", "detection", place=80)
def training(data: ReportData[Analysis]) -> Section | None:
    """Computes plots of loss, validation score and learning rate, with a line for each run."""
    if not data.folders:
        return None
    logs = {name: read_training_log(Path(folder)) for name, folder in zip(data.names, data.folders, strict=True)}
    logged = {name: log for name, log in logs.items() if log is not None}
    missing = [name for name in data.names if name not in logged]
    notes = [_NO_LOG.format(" and ".join(missing))] if missing else []
    figures = [
        Figure(name, title, text, plots.lines(lines, "epoch", label))
        for name, title, text, label, lines in (
            ("training_loss", "Training loss", "As it was logged.", "loss", _lines(logged, "loss")),
            (
                "validation_score",
                "Validation score",
                "After each epoch, or as often as the training validated.",
                "score, %",
                _lines(logged, "score"),
            ),
            ("learning_rate", "Learning rate", "As it was logged.", "learning rate", _lines(logged, "learning_rate")),
        )
        if lines
    ]
    return Section("Training", notes=notes, figures=figures, run_numbers=[_as_json(logs[name]) for name in data.names])


def _lines(logs: dict[str, TrainingLog], what: str) -> list[tuple[str, list[float], list[float]]]:
    """The legend, epochs and values of each run and curve."""
    lines = []
    for name, log in logs.items():
        for key, points in log.curves(what).items():
            if points:
                legend = " ".join(dict.fromkeys(filter(None, [key, name if len(logs) > 1 else ""])))
                lines.append((legend, [epoch for epoch, _ in points], [value for _, value in points]))
    return lines


def _as_json(log: TrainingLog | None) -> dict[str, object]:
    if log is None:
        return {}
    step = max(1, len(log.loss) // _POINTS)
    scores = {key: [[epoch, value] for epoch, value in points] for key, points in log.scores.items()}
    loss = [[epoch, value] for epoch, value in log.loss[::step]]
    return {"training": {"loss": loss, "validation": scores}}
