"""What a checkpoint says of its classifier: written in training, read before prediction and scoring.

The description is ``meta["model"]`` of a checkpoint, plain values alone:

- ``classifier``: the model's config, as :class:`ImageClassifier` or a class of the user's own is built from, with its
  ``num_classes``, and without loss, classes and the files that training started from;
- ``pipeline``: the transforms of the validation data, with their sizes;
- ``labels``: ``threshold`` and ``top_k`` of the validation's scores, where the config has them;
- ``training``: what the training did about rare classes, and how many images show each class, see
  :class:`ClassBalance`;
- ``dataset`` and ``metrics``: the config of a validation data set whose class is the user's own, with references such
  as ``$val_annotations`` and without absolute paths, and those of metrics besides the task's own.

A checkpoint may come from anyone: :func:`check_stored` checks a description before anything is built from it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from tresnet_downstream.classification.classifier import ImageClassifier
from tresnet_downstream.classification.tasks import task_of
from tresnet_downstream.classification.transforms import build_pipeline, names_for_checkpoints
from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.frequency_groups import TrainingCounts, counts_from_json
from tresnet_downstream.registry import DATASETS, MODELS, SCOPE, TRANSFORMS
from tresnet_downstream.running.checkpoints import plain
from tresnet_downstream.running.provenance import without_start
from tresnet_downstream.running.references import with_references
from tresnet_downstream.running.stored_config import check_stored
from tresnet_downstream.weights.reading import class_names, stored_at

# Keys of the model's config that no description has: those of training, and the classes, which are in `dataset_meta`.
NOT_DESCRIBED = ("loss", "batch_transforms", "classes")
_LABELS = ("threshold", "top_k")
# What a stored data set may refer to: keys of every scoring config.
_REFERENCES = (
    "data_root",
    "val_annotations",
    "val_images",
    "data_source",
    "keep_empty",
    "difficult",
    "on_bad_image",
    "outside_paths",
    "seed",
    "val_pipeline",
)


@dataclass(frozen=True)
class Description:
    """What a checkpoint says of its classifier.

    Attributes:
        classifier: the model's config; None if the checkpoint does not say.
        pipeline: the transforms that bring a picture to the network; empty if the checkpoint does not say.
        labels: ``threshold`` and ``top_k``, those that the checkpoint says.
        dataset: config of the validation data set, if it is one of the user's.
        metrics: configs of the user's metrics.
        training: how many training images show each class; None if the checkpoint does not say.
    """

    classifier: dict[str, Any] | None = None
    pipeline: tuple[dict[str, Any], ...] = ()
    labels: dict[str, Any] = field(default_factory=dict)
    dataset: dict[str, Any] | None = None
    metrics: tuple[dict[str, Any], ...] = ()
    training: TrainingCounts | None = None


def describe_training(config: Config, num_classes: int) -> dict[str, Any]:
    """The description of the classifier that a config trains, as plain data for ``meta["model"]``.

    Args:
        config: with references resolved.
        num_classes: of the data; taken for the head where the config does not set its ``num_classes``.
    """
    classifier = {key: value for key, value in without_start(config.model).items() if key not in NOT_DESCRIBED}
    if classifier.get("head") is not None:
        head = classifier["head"]
        classifier["head"] = {**head, "num_classes": head.get("num_classes") or num_classes}
    task, evaluators = task_of(config), _as_list(config.val_evaluator)
    metrics = [metric for metric in evaluators if metric.get("type") != task.metric.__name__]
    ours: Mapping[str, Any] = next((each for each in evaluators if each.get("type") == task.metric.__name__), {})
    labels = {key: ours[key] for key in _LABELS if key in ours}
    dataset = config.val_dataloader["dataset"]
    described = {"classifier": classifier, "pipeline": list(dataset.get("pipeline") or []), "labels": labels}
    if not _is_ours(dataset.get("type")):
        described["dataset"] = without_paths(_referring_dataset(config))
    if metrics:
        described["metrics"] = without_paths(metrics)
    of_plain_values: dict[str, Any] = plain(described)
    return of_plain_values


def _is_ours(kind: Any) -> bool:
    """Whether the name of a data set is of a class of this toolkit."""
    found = DATASETS.get(str(kind))
    return getattr(found, "__module__", "").startswith(f"{SCOPE}.")


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
    return type(node)(without_paths(item) for item in node) if isinstance(node, list | tuple) else node


def _leads_away(path: str) -> bool:
    return Path(path).is_absolute() or ".." in Path(path).parts


def read_description(path: Path, checkpoint: Mapping[str, Any]) -> Description:
    """The description in a checkpoint, checked; an empty one if there is none.

    Raises:
        UserError: if it names what is not registered, or what a checkpoint may not name.
    """
    content = stored_at(checkpoint, "meta", "model")
    if not isinstance(content, Mapping) or "detector" in content:
        return Description()
    pipeline, labels = content.get("pipeline") or (), content.get("labels") or {}
    if not isinstance(pipeline, list | tuple) or not all(isinstance(step, Mapping) for step in pipeline):
        raise UserError(f"{path}: its pipeline is no list of transforms")
    check_stored(path, pipeline, (TRANSFORMS,), names_for_checkpoints())
    if not isinstance(labels, Mapping):
        labels = {}
    dataset = _parts_of_ones_own(path, [content["dataset"]] if content.get("dataset") else [])
    return Description(
        classifier=_classifier(path, content.get("classifier")),
        pipeline=tuple(dict(step) for step in pipeline),
        labels={key: labels[key] for key in _LABELS if _is_number(labels.get(key))},
        dataset=dataset[0] if dataset else None,
        metrics=_parts_of_ones_own(path, content.get("metrics") or []),
        training=_training_counts(content.get("training"), class_names(checkpoint, path)),
    )


def _training_counts(training: Any, classes: Sequence[str] | None) -> TrainingCounts | None:
    """How many training images show each class, if a checkpoint says so in a form that can be read."""
    counts = training.get("class_images") if isinstance(training, Mapping) else None
    if classes is None or not isinstance(counts, list | tuple) or len(counts) != len(classes):
        return None
    cutoffs = training.get("frequency_cutoffs")
    return counts_from_json({"images": dict(zip(classes, counts, strict=True)), "cutoffs": cutoffs})


def _parts_of_ones_own(path: Path, parts: Any) -> tuple[dict[str, Any], ...]:
    """Configs of data sets or metrics, checked where they are built, in :mod:`.scoring_config`."""
    if not isinstance(parts, list | tuple) or not all(isinstance(part, Mapping) and "type" in part for part in parts):
        raise UserError(f"{path}: describes its validation by {str(parts)[:80]!r}, which are no configs with a type")
    return tuple(dict(part) for part in parts)


def _classifier(path: Path, config: Any) -> dict[str, Any] | None:
    """The checked config of the model; its head is None where the checkpoint holds a backbone alone."""
    if config is None:
        return None
    parts = [config, config.get("backbone"), config.get("head")] if isinstance(config, Mapping) else [config]
    for part in parts:
        if part is not None and not (isinstance(part, Mapping) and "type" in part):
            raise UserError(f"{path}: describes its model by {str(part)[:80]!r}, which is no config with a type")
    if config.get("backbone") is None:
        raise UserError(f"{path}: describes a model without backbone")
    classifier: dict[str, Any] = without_start(config)
    check_stored(path, classifier, (MODELS,), ())
    kind = MODELS.get(classifier["type"])
    if not isinstance(kind, type) or not issubclass(kind, ImageClassifier):
        raise UserError(f"{path}: describes {classifier['type']!r}, which is no ImageClassifier")
    return {"head": None, **{key: value for key, value in classifier.items() if key not in NOT_DESCRIBED}}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def input_size(pipeline: Sequence[Mapping[str, Any]]) -> int:
    """Height of the pictures that a pipeline gives, in pixels.

    Raises:
        UserError: if it cannot be built, or fails on a picture of 64 x 64 pixels.
    """
    built = build_pipeline(pipeline)
    try:
        return int(built(image=np.zeros((64, 64, 3), np.uint8))["image"].shape[0])
    except Exception as error:
        # A transform may raise anything for the arguments that the pipeline has.
        raise UserError(f"pipeline: gives no picture ({' '.join(str(error).split())[:80]})") from error


def resized(pipeline: Sequence[Mapping[str, Any]], size: Any) -> tuple[dict[str, Any], ...]:
    """The pipeline for another input size.

    Replaces every ``size``, ``height`` and ``width`` that equals the present input size; others stay.

    Args:
        pipeline: the transforms.
        size: in pixels, or a reference to a key of a config, such as ``$image_size``.
    """
    before = input_size(pipeline)

    def replaced(key: str, value: Any) -> Any:
        if key in ("size", "height", "width") and value == before:
            return size
        return [size, size] if key == "size" and value in ([before, before], (before, before)) else value

    return tuple({key: replaced(key, value) for key, value in step.items()} for step in pipeline)
