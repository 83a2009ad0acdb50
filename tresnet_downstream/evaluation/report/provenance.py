"""Where a figure comes from: what a run folder says about its model, weights, data and command, for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from tresnet_downstream.evaluation.outcomes import DetectionRun, Run
from tresnet_downstream.evaluation.report.parts import Column, Table, some_of
from tresnet_downstream.evaluation.thresholds import Thresholds

_TITLES = {
    "model": "model",
    "checkpoint": "weights",
    "weights": "which of them",
    "checkpoint_sha256": "their SHA-256",
    "config": "config",
    "split": "split",
    "data": "data",
    "data_sha256": "its SHA-256",
    "images": "images",
    "unreadable": "unreadable, left out",
    "left_out": "names of all left out",
    "image_size": "size of pictures",
    "pipeline": "pipeline",
    "tta": "test-time augmentation",
    "date": "scored",
    "versions": "versions",
    "command": "command",
    "thresholds": "thresholds",
}


def provenance_table(names: Sequence[str], runs: Sequence[Run], thresholds: Thresholds | None = None) -> Table:
    """A row for each thing that is known of at least one run, a column for each run.

    Args:
        names: what the runs are called.
        runs: their folders, read.
        thresholds: those that take the place of the runs' own.
    """
    given = [_texts(run) for run in runs]
    for run, texts in zip(runs, given, strict=True):
        if thresholds is not None:
            texts["thresholds"] = "; ".join([f"{thresholds.source}: {thresholds}", *thresholds.caveats(run.about)])
    keys = [key for key in _TITLES if any(key in texts for texts in given)]
    keys += sorted({key for texts in given for key in texts} - set(keys))
    columns = [Column("key", "", "text"), *(Column(f"run_{i}", name, "text") for i, name in enumerate(names))]
    return Table(columns, [[_TITLES.get(key, key), *(texts.get(key) for texts in given)] for key in keys])


def _texts(run: Run) -> dict[str, str]:
    texts = {str(key): _text(key, value) for key, value in run.about.items() if key != "unreadable" or value}
    images = len(run.image_ids) if isinstance(run, DetectionRun) else len(run.images)
    texts["data"] = ", ".join(filter(None, [texts.get("data", ""), f"{images:,} images in {run.image_folder}"]))
    return texts


def _text(key: str, value: Any) -> str:
    if key == "model" and isinstance(value, Mapping):
        return " + ".join(_component(part) for part in _components(value))
    if key == "split":
        return f"{value} split"
    if key == "unreadable" and isinstance(value, Mapping):
        return some_of([str(name) for name in value])
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return str(value)


def _components(model: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The model and its parts that decide what it computes."""
    parts = [model.get(key) for key in ("backbone", "neck", "rpn_head", "bbox_head", "roi_head", "head")]
    return [{"type": model.get("type")}, *(part for part in parts if isinstance(part, Mapping))]


def _component(part: Mapping[str, Any]) -> str:
    plain = {key: value for key, value in part.items() if key != "type" and isinstance(value, str | int | float | list)}
    # Lists of dicts and the like would fill the page; run.json has everything.
    shown = [f"{key}={value}" for key, value in plain.items() if len(str(value)) <= 24][:6]
    return f"{part.get('type')}({', '.join(shown)})" if shown else str(part.get("type"))
