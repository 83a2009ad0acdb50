"""The comparison of runs: differences of all scores from the first run, with paired intervals."""

import numpy as np

from tresnet_downstream.evaluation.bootstrap import Interval
from tresnet_downstream.evaluation.outcomes import DetectionRun
from tresnet_downstream.evaluation.report.data import ReportData
from tresnet_downstream.evaluation.report.headline import Analysis, Difference, differences
from tresnet_downstream.evaluation.report.parts import Column, Section, Table, text_of
from tresnet_downstream.evaluation.report.registry import section

_PAIRED = "Differences are paired: both runs are scored on the same resamples of the images."


@section("multilabel", "single_label", "detection", place=15)
def comparison(data: ReportData[Analysis]) -> list[Section]:
    """Computes the differences for each kind of prediction, and a sentence on each main score."""
    if len(data.analyses) == 1:
        return []
    run = data.analyses[0].run
    num_images = len(run.image_ids) if isinstance(run, DetectionRun) else len(run.images)
    sections = []
    for kind, analyses in data.kinds.items():
        of_kind = list(differences(analyses))
        notes = [
            verdict(each.title, (data.names[0], each.run), each.value, each.interval, num_images)
            for each in of_kind
            if each.key in data.main
        ]
        paired = any(each.interval is not None for each in of_kind)
        columns = [
            Column("score", "score", "text"),
            Column("run", "run", "text"),
            Column("difference", f"minus {data.names[0]}", "difference"),
            Column("interval", "95% interval", "interval"),
        ]
        entries = [_as_json(each, data.names[0]) for each in of_kind]
        rows = [[each.title, each.run, each.value, each.interval] for each in of_kind]
        sections.append(
            Section(
                f"Which run is better?{data.of_kind(kind)}",
                notes=notes,
                tables=[Table(columns, rows)],
                footnotes=[_PAIRED] if paired else [],
                numbers={"differences": {kind: entries} if kind else entries},
            )
        )
    return sections


def _as_json(difference: Difference, first: str) -> dict[str, object]:
    interval = {} if difference.interval is None else {"interval": difference.interval}
    return {
        "run": difference.run,
        "minus": first,
        "score": difference.key,
        "difference": difference.value,
        **interval,
    }


def verdict(score: str, names: tuple[str, str], difference: float, interval: Interval | None, images: int) -> str:
    """The conclusion that a difference between two runs allows, in one or two sentences.

    Args:
        score: name of the score.
        names: names of the first run and the other run.
        difference: score of the other run minus that of the first, in points.
        interval: its paired 95% interval; None without resamples.
        images: number of images.
    """
    if np.isnan(difference):
        return f"{score} of {names[0]} and {names[1]} cannot be compared: one of them is undefined on these images."
    if abs(difference) < 0.005:
        return f"{score} of {names[1]} is the same as that of {names[0]} on these {images:,} images, to two decimals."
    side = "above" if difference > 0 else "below"
    start = (
        f"{score} of {names[1]} is {abs(difference):.2f} points {side} that of {names[0]} on these {images:,} images"
    )
    if interval is None or np.isnan(interval.low):
        return f"{start}. There is no interval, so nothing is known about other images."
    span = f"95% interval of the difference over images of this kind: {text_of(interval, 'interval')}"
    if interval.low <= 0 <= interval.high:
        return f"{start} ({span}). The interval contains 0: these images do not show which of the two is better."
    winner = names[1] if difference > 0 else names[0]
    return (
        f"{start} ({span}). The interval does not contain 0: on images of this kind {winner} is likely the better of "
        "these two sets of weights. It says nothing about another training, or about images of another kind."
    )
