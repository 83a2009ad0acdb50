"""What a checkpoint says of its classifier: written in training, read before prediction and scoring.

The description is ``meta["model"]`` of a checkpoint, plain values alone:

- ``classifier``: the model's config, as :class:`ImageClassifier` or a class of the user's own is built from, with its
  ``num_classes``, and without loss, classes and the files that training started from;
- ``pipeline``: the transforms of the validation data, with their sizes;
- ``labels``: ``threshold`` and ``top_k`` of the validation's scores, where the config has them;
- ``dataset`` and ``metrics``: the config of a validation data set of another class than
  :class:`MultiLabelDataset`, with references such as ``$val_annotations`` and without absolute paths, and those of
  metrics besides :class:`MultilabelMetric`.

A description is a stranger's: nothing is built before :func:`check_stored` has seen it.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from tresnet_downstream.classification.classifier import ImageClassifier
from tresnet_downstream.classification.datasets import MultiLabelDataset
from tresnet_downstream.classification.metrics import MultilabelMetric
from tresnet_downstream.classification.transforms import build_pipeline, names_for_checkpoints
from tresnet_downstream.errors import UserError
from tresnet_downstream.registry import MODELS, TRANSFORMS
from tresnet_downstream.running.checkpoints import plain
from tresnet_downstream.running.provenance import without_start
from tresnet_downstream.running.references import with_references
from tresnet_downstream.running.stored_config import check_stored

# Of the model's config, what only training wants; the classes have a place of their own in a checkpoint.
_OF_TRAINING = ("loss", "classes")
_LABELS = ("threshold", "top_k")
# What a stored data set may refer to: keys of every scoring config.
_REFERENCES = (*("data_root", "val_annotations", "val_images", "data_source", "keep_empty", "seed", "val_pipeline"),)
_METRIC, _DATASET = MultilabelMetric.__name__, MultiLabelDataset.__name__
_PIPELINE = "val_dataloader.dataset.pipeline"
_NOT_SET = "not set"


@dataclass(frozen=True)
class Description:
    """What a checkpoint says of its classifier.

    Attributes:
        classifier: the model's config; None if the checkpoint does not say.
        pipeline: the transforms that bring a picture to the network; empty if the checkpoint does not say.
        labels: ``threshold`` and ``top_k``, those that the checkpoint says.
        dataset: config of the validation data set, if it is one of the user's.
        metrics: configs of the user's metrics.
    """

    classifier: dict[str, Any] | None = None
    pipeline: tuple[dict[str, Any], ...] = ()
    labels: dict[str, Any] = field(default_factory=dict)
    dataset: dict[str, Any] | None = None
    metrics: tuple[dict[str, Any], ...] = ()


def describe_training(config: Config, num_classes: int) -> dict[str, Any]:
    """The description of what a config trains, see the module.

    Args:
        config: with references resolved.
        num_classes: of the data, where the config leaves the head's to it.
    """
    classifier = {key: value for key, value in without_start(config.model).items() if key not in _OF_TRAINING}
    if classifier.get("head") is not None:
        head = classifier["head"]
        classifier["head"] = {**head, "num_classes": head.get("num_classes") or num_classes}
    metrics = [metric for metric in _as_list(config.val_evaluator) if metric.get("type") != _METRIC]
    ours: Mapping[str, Any] = next(
        (metric for metric in _as_list(config.val_evaluator) if metric.get("type") == _METRIC), {}
    )
    labels = {key: ours[key] for key in _LABELS if key in ours}
    dataset = config.val_dataloader["dataset"]
    described = {"classifier": classifier, "pipeline": list(dataset.get("pipeline") or []), "labels": labels}
    if dataset.get("type") != _DATASET:
        described["dataset"] = without_paths(_referring_dataset(config))
    if metrics:
        described["metrics"] = without_paths(metrics)
    of_plain_values: dict[str, Any] = plain(described)
    return of_plain_values


def _as_list(node: Any) -> list[Any]:
    return list(node) if isinstance(node, list | tuple) else [node]


def _referring_dataset(config: Config) -> dict[str, Any]:
    """The validation data set's config, with references to the keys that a scoring config has too."""
    resolved = dict(config.val_dataloader["dataset"])
    referring = with_references(config)
    before = {} if referring is None else referring.val_dataloader["dataset"]
    known = {f"${key}" for key in _REFERENCES}
    return {key: before[key] if before.get(key) in known else value for key, value in resolved.items()}


def without_paths(node: Any) -> Any:
    """A config's node without paths that are absolute or lead upwards: they are of the machine that trained."""
    if isinstance(node, Mapping):
        parts = {key: without_paths(value) for key, value in node.items()}
        return {key: value for key, value in parts.items() if not (isinstance(value, str) and _leads_away(value))}
    return [without_paths(item) for item in node] if isinstance(node, list | tuple) else node


def _leads_away(path: str) -> bool:
    return Path(path).is_absolute() or ".." in Path(path).parts


def read_description(path: Path, checkpoint: Mapping[str, Any]) -> Description:
    """The description in a checkpoint, checked; an empty one if there is none.

    Raises:
        UserError: if it names what is not registered, or what a checkpoint may not name.
    """
    meta = checkpoint.get("meta")
    told = meta.get("model") if isinstance(meta, Mapping) else None
    if not isinstance(told, Mapping):
        return Description()
    pipeline, labels = told.get("pipeline") or (), told.get("labels") or {}
    if not isinstance(pipeline, list | tuple) or not all(isinstance(step, Mapping) for step in pipeline):
        raise UserError(f"{path}: its pipeline is no list of transforms")
    check_stored(path, pipeline, (TRANSFORMS,), names_for_checkpoints())
    numbers = {key: labels[key] for key in _LABELS if isinstance(labels, Mapping) and _is_number(labels.get(key))}
    steps = tuple(dict(step) for step in pipeline)
    classifier = _classifier(path, told.get("classifier"))
    dataset = _parts_of_ones_own(path, [told["dataset"]] if told.get("dataset") else [])
    metrics = _parts_of_ones_own(path, told.get("metrics") or [])
    return Description(classifier, steps, numbers, dataset[0] if dataset else None, metrics)


def _parts_of_ones_own(path: Path, told: Any) -> tuple[dict[str, Any], ...]:
    """Configs of data sets or metrics, checked where they are built, in :mod:`.scoring_config`."""
    if not isinstance(told, list | tuple) or not all(isinstance(part, Mapping) and "type" in part for part in told):
        raise UserError(f"{path}: describes its validation by {str(told)[:80]!r}, which are no configs with a type")
    return tuple(dict(part) for part in told)


def _classifier(path: Path, told: Any) -> dict[str, Any] | None:
    if told is None:
        return None
    parts = [told, *(told.get(key) for key in ("backbone", "head"))] if isinstance(told, Mapping) else [told]
    for part in parts:
        if part is not None and not (isinstance(part, Mapping) and "type" in part):
            raise UserError(f"{path}: describes its model by {str(part)[:80]!r}, which is no config with a type")
    if told.get("backbone") is None:
        raise UserError(f"{path}: describes a model without backbone")
    classifier: dict[str, Any] = without_start(told)
    check_stored(path, classifier, (MODELS,), ())
    kind = MODELS.get(classifier["type"])
    if not isinstance(kind, type) or not issubclass(kind, ImageClassifier):
        raise UserError(f"{path}: describes {classifier['type']!r}, which is no ImageClassifier")
    return {"head": None, **{key: value for key, value in classifier.items() if key not in _OF_TRAINING}}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def input_size(pipeline: Sequence[Mapping[str, Any]]) -> int:
    """Height of the pictures that a pipeline gives, in pixels.

    Raises:
        UserError: if it cannot be built, or gives no picture of a small one.
    """
    built = build_pipeline(pipeline)
    try:
        return int(built(image=np.zeros((64, 64, 3), np.uint8))["image"].shape[0])
    except Exception as error:
        # Whatever a transform raises at a picture: the arguments are the pipeline's.
        raise UserError(f"pipeline: gives no picture ({' '.join(str(error).split())[:80]})") from error


def resized(pipeline: Sequence[Mapping[str, Any]], size: Any) -> tuple[dict[str, Any], ...]:
    """The pipeline with another size, in pixels, where its transforms name that of the pictures it gives."""
    before = input_size(pipeline)
    sides = {"size": [([before, before], [size, size])], "height": [], "width": []}

    def swapped(key: str, value: Any) -> Any:
        if key not in sides:
            return value
        pairs = [(before, size), *sides[key]]
        return next((after for old, after in pairs if _as_lists(value) == old), value)

    return tuple({key: swapped(key, value) for key, value in step.items()} for step in pipeline)


def settle(config: Config, description: Description, set_here: Set[str]) -> list[str]:
    """Puts a checkpoint's model and pipeline into a config, except for what the user set explicitly.

    Args:
        config: with references resolved; is changed in place.
        description: the checkpoint's.
        set_here: the places of the config that options set, from :func:`places_set_by`.

    Returns:
        at most two lines: where the config differed from the checkpoint, and where an option did.
    """
    merge = _Merge(set_here)
    if description.classifier is not None:
        given = {"head": None, **without_start(config.model)}
        model = merge.of(description.classifier, {k: v for k, v in given.items() if k not in _OF_TRAINING}, "model")
        config.model = {**model, **({"loss": config.model.loss} if config.model.get("loss") else {})}
    dataset = config.val_dataloader.dataset
    if description.pipeline and "pipeline" in dataset:
        stored, steps = list(description.pipeline), list(plain(dataset.pipeline))
        again = list(resized(stored, config.image_size)) if "image_size" in set_here else stored
        if _types(stored) != _types(steps) and _differ(again, stored):
            dataset.pipeline = again
            merge.overrides.append(("image_size", input_size(stored), config.image_size))
        else:
            dataset.pipeline = merge.of(stored, steps, _PIPELINE)
    notes = []
    if merge.differences:
        each = _listed(
            f"{place} is {_shown(stored)} ({_shown(given)} in the config)" for place, stored, given in merge.differences
        )
        notes.append(f"note: the checkpoint decides where the config differs: {each}")
    if merge.overrides:
        each = _listed(
            f"{place} is {_shown(given)} ({_shown(stored)} in the checkpoint)"
            for place, stored, given in merge.overrides
        )
        notes.append(f"note: the options decide where the checkpoint differs: {each}")
    return notes


class _Merge:
    """Stored values, and those of the config where an option set them; remembers what differed."""

    def __init__(self, set_here: Set[str]) -> None:
        self.set_here = set_here
        self.differences: list[tuple[str, Any, Any]] = []
        self.overrides: list[tuple[str, Any, Any]] = []

    def of(self, stored: Any, given: Any, place: str) -> Any:
        """The value that counts at a place."""
        below = any(other.startswith(f"{place}.") for other in self.set_here)
        if place in self.set_here or f"{place}.type" in self.set_here:
            return self._option(stored, given, place)
        if isinstance(stored, Mapping) and isinstance(given, Mapping):
            return self._of_mapping(stored, given, place)
        alike = isinstance(stored, list | tuple) and isinstance(given, list | tuple) and len(stored) == len(given)
        if alike and _types(stored) == _types(given) and (below or any(_types(stored))):
            pairs = enumerate(zip(stored, given, strict=True))
            return [self.of(*pair, f"{place}.{number}") for number, pair in pairs]
        if below:
            return self._option(stored, given, place)
        # A config may leave the number of classes to the data.
        if _differ(stored, given) and not (place.endswith(".num_classes") and given in (None, _NOT_SET)):
            self.differences.append((place, stored, given))
        return stored

    def _of_mapping(self, stored: Mapping[str, Any], given: Mapping[str, Any], place: str) -> dict[str, Any]:
        keys = dict.fromkeys([*stored, *given])
        if stored.get("type") != given.get("type"):
            # Of another part, only what was set explicitly counts.
            self.differences.append((place, stored, given))
            keys = dict.fromkeys([*stored, *(key for key in given if f"{place}.{key}" in self.set_here)])
            given = {key: given[key] if f"{place}.{key}" in self.set_here else stored.get(key) for key in keys}
        merged = {key: self.of(stored.get(key, _NOT_SET), given.get(key, _NOT_SET), f"{place}.{key}") for key in keys}
        return {key: value for key, value in merged.items() if value is not _NOT_SET}

    def _option(self, stored: Any, given: Any, place: str) -> Any:
        if _differ(stored, given):
            self.overrides.append((place, stored, given))
        return given


def _types(steps: Sequence[Any]) -> list[Any]:
    return [step.get("type") if isinstance(step, Mapping) else None for step in steps]


def _differ(one: Any, other: Any) -> bool:
    """Whether two plain values differ; a list is as good as a tuple."""
    return bool(_as_lists(one) != _as_lists(other))


def _as_lists(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _as_lists(item) for key, item in value.items()}
    return [_as_lists(item) for item in value] if isinstance(value, list | tuple) else value


def _shown(value: Any) -> str:
    if isinstance(value, Mapping) and "type" in value:
        return str(value["type"])
    if isinstance(value, list | tuple) and value and all(_types(value)):
        return f"({', '.join(map(str, _types(value)))})"
    return value if value is _NOT_SET else repr(value)


def _listed(texts: Iterable[str], most: int = 4) -> str:
    several = [text.replace(_PIPELINE, "val_pipeline") for text in texts]
    more = f"; and {len(several) - most} more" if len(several) > most else ""
    return "; ".join(several[:most]) + more
