"""The provenance of the scores: model, weights, data and command of each run."""

from collections.abc import Mapping, Sequence

from tresnet_downstream.evaluation.outcomes import DetectionRun, Run
from tresnet_downstream.evaluation.report.data import ReportData
from tresnet_downstream.evaluation.report.headline import Analysis
from tresnet_downstream.evaluation.report.parts import Column, Section, Table, some_of
from tresnet_downstream.evaluation.report.registry import section

_TITLES = {
    "model": "model",
    "checkpoint": "checkpoint",
    "weights": "its weights",
    "checkpoint_sha256": "its SHA-256",
    "config": "config",
    "split": "split",
    "data": "data",
    "data_sha256": "its SHA-256",
    "images": "images",
    "unreadable": "unreadable, left out",
    "left_out": "names of all left out",
    "image_size": "size of images",
    "pipeline": "pipeline",
    "tta": "test-time augmentation",
    "date": "scored",
    "versions": "versions",
    "command": "command",
    "thresholds": "thresholds",
}


@section("multilabel", "single_label", "detection", place=100)
def provenance(data: ReportData[Analysis]) -> Section:
    """Computes a table with a row for each property that at least one run states, and a column for each run."""
    texts_of = [_texts(analysis.run) for analysis in data.analyses]
    thresholds = data.options.thresholds
    for analysis, texts in zip(data.analyses, texts_of, strict=True):
        if thresholds is not None:
            caveats = thresholds.caveats(analysis.run.about)
            texts["thresholds"] = "; ".join([f"{thresholds.source}: {thresholds}", *caveats])
    keys = [key for key in _TITLES if any(key in texts for texts in texts_of)]
    keys += sorted({key for texts in texts_of for key in texts} - set(keys))
    columns = [Column("key", "", "text"), *(Column(f"run_{i}", name, "text") for i, name in enumerate(data.names))]
    rows = [[_TITLES.get(key, key), *(texts.get(key) for texts in texts_of)] for key in keys]
    return Section("Where the scores come from", tables=[Table(columns, rows)], folded=True)


def _texts(run: Run) -> dict[str, str]:
    texts = {str(key): _text(key, value) for key, value in run.about.items() if key != "unreadable" or value}
    images = len(run.image_ids) if isinstance(run, DetectionRun) else len(run.images)
    texts["data"] = ", ".join(filter(None, [texts.get("data", ""), f"{images:,} images in {run.image_folder}"]))
    return texts


def _text(key: str, value: object) -> str:
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


def _components(model: Mapping[str, object]) -> Sequence[Mapping[str, object]]:
    """The model and the parts that determine its output."""
    parts = [model.get(key) for key in ("backbone", "neck", "rpn_head", "bbox_head", "roi_head", "head")]
    return [{"type": model.get("type")}, *(part for part in parts if isinstance(part, Mapping))]


def _component(part: Mapping[str, object]) -> str:
    plain = {key: value for key, value in part.items() if key != "type" and isinstance(value, str | int | float | list)}
    # Nested values would fill the page; run.json has them.
    shown = [f"{key}={value}" for key, value in plain.items() if len(str(value)) <= 24][:6]
    return f"{part.get('type')}({', '.join(shown)})" if shown else str(part.get("type"))
