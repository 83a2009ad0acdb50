"""The description of a classifier in a checkpoint. Training writes it; prediction and scoring read it.

The description is ``meta["model"]`` of a checkpoint and has only plain values:

- ``classifier``: the config of the model, an :class:`ImageClassifier` or a subclass, with its ``num_classes`` and
  without the loss, the class names and the files that training started from;
- ``pipeline``: the transforms of the validation data, with their sizes;
- ``labels``: ``threshold`` and ``top_k`` of the validation scores, if the config has them;
- ``training``: the settings for rare classes, and the number of images that show each class, see
  :class:`ClassBalance`;
- ``dataset``: the config of the validation data set if its class is a user's, with references such as
  ``$val_annotations`` and without absolute paths;
- ``metrics``: configs of metrics other than the metric of the task.

A checkpoint may come from an untrusted source. :func:`check_stored` checks a description before it is built.
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

# Keys of the model's config that are not in a description: those for training, and the classes, which are in
# `dataset_meta`.
NOT_DESCRIBED = ("loss", "batch_transforms", "classes")
_LABELS = ("threshold", "top_k")
# Keys that the config of a stored data set may refer to. Every scoring config has them.
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
    """The description of a classifier.

    Attributes:
        classifier: config of the model; None if the checkpoint has none.
        pipeline: configs of the transforms that prepare an image; empty if the checkpoint has none.
        labels: ``threshold`` and ``top_k``, if the checkpoint has them.
        dataset: config of the validation data set; None unless its class is a user's.
        metrics: configs of a user's metrics.
        training: the number of training images that show each class; None if the checkpoint does not have it.
    """

    classifier: dict[str, Any] | None = None
    pipeline: tuple[dict[str, Any], ...] = ()
    labels: dict[str, float] = field(default_factory=dict)
    dataset: dict[str, Any] | None = None
    metrics: tuple[dict[str, Any], ...] = ()
    training: TrainingCounts | None = None


def describe_training(config: Config, num_classes: int) -> dict[str, object]:
    """The description of the classifier that a config trains, as plain data for ``meta["model"]``.

    Args:
        config: a config with resolved references.
        num_classes: number of classes of the data, for the head if the config does not set its ``num_classes``.
    """
    classifier = {key: value for key, value in without_start(config.model).items() if key not in NOT_DESCRIBED}
    if classifier.get("head") is not None:
        head = classifier["head"]
        classifier["head"] = {**head, "num_classes": head.get("num_classes") or num_classes}
    task, evaluators = task_of(config), _as_list(config.val_evaluator)
    metrics = [metric for metric in evaluators if metric.get("type") != task.metric.__name__]
    task_metrics = (metric for metric in evaluators if metric.get("type") == task.metric.__name__)
    task_metric: Mapping[str, object] = next(task_metrics, {})
    labels = {key: task_metric[key] for key in _LABELS if key in task_metric}
    dataset = config.val_dataloader["dataset"]
    described = {"classifier": classifier, "pipeline": list(dataset.get("pipeline") or []), "labels": labels}
    if not _is_ours(dataset.get("type")):
        described["dataset"] = without_paths(_referring_dataset(config))
    if metrics:
        described["metrics"] = without_paths(metrics)
    of_plain_values: dict[str, object] = plain(described)
    return of_plain_values


def _is_ours(kind: object) -> bool:
    """Whether the name of a data set belongs to a class of this package."""
    dataset_class = DATASETS.get(str(kind))
    return getattr(dataset_class, "__module__", "").startswith(f"{SCOPE}.")


def _as_list(node: object) -> list[Any]:
    return list(node) if isinstance(node, list | tuple) else [node]


def _referring_dataset(config: Config) -> dict[str, Any]:
    """The config of the validation data set, with references to keys that every scoring config has."""
    resolved = dict(config.val_dataloader["dataset"])
    unresolved_config = with_references(config)
    unresolved = {} if unresolved_config is None else unresolved_config.val_dataloader["dataset"]
    allowed = {f"${key}" for key in _REFERENCES}
    return {key: unresolved[key] if unresolved.get(key) in allowed else value for key, value in resolved.items()}


def without_paths(node: Any) -> Any:
    """A node of a config without absolute paths and paths with ``..``, which are valid only where it was trained."""
    if isinstance(node, Mapping):
        parts = {key: without_paths(value) for key, value in node.items()}
        return {key: value for key, value in parts.items() if not (isinstance(value, str) and _leads_away(value))}
    return type(node)(without_paths(item) for item in node) if isinstance(node, list | tuple) else node


def _leads_away(path: str) -> bool:
    return Path(path).is_absolute() or ".." in Path(path).parts


def read_description(path: Path, checkpoint: Mapping[str, object]) -> Description:
    """Reads and checks the description in a checkpoint.

    Args:
        path: the checkpoint, for messages.
        checkpoint: its content.

    Returns:
        The description. It is empty if the checkpoint has none.

    Raises:
        UserError: if it has the wrong form, or names a component that is not registered or not allowed.
    """
    content = stored_at(checkpoint, "meta", "model")
    if not isinstance(content, Mapping) or "detector" in content:
        return Description()
    pipeline, labels = content.get("pipeline") or (), content.get("labels") or {}
    if not isinstance(pipeline, list | tuple) or not all(isinstance(step, Mapping) for step in pipeline):
        raise UserError(f"{path}: its pipeline is not a list of transforms")
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


def _training_counts(training: object, classes: Sequence[str] | None) -> TrainingCounts | None:
    """The number of training images that show each class; None if it is missing or has the wrong form."""
    if classes is None or not isinstance(training, Mapping):
        return None
    counts, cutoffs = training.get("class_images"), training.get("frequency_cutoffs")
    if not isinstance(counts, list | tuple) or len(counts) != len(classes):
        return None
    return counts_from_json({"images": dict(zip(classes, counts, strict=True)), "cutoffs": cutoffs})


def _parts_of_ones_own(path: Path, parts: object) -> tuple[dict[str, Any], ...]:
    """Configs of data sets or metrics. :mod:`.scoring_config` checks them before they are built."""
    if not isinstance(parts, list | tuple) or not all(isinstance(part, Mapping) and "type" in part for part in parts):
        raise UserError(
            f"{path}: describes its validation by {str(parts)[:80]!r}, which is not a list of configs with a type"
        )
    return tuple(dict(part) for part in parts)


def _classifier(path: Path, config: Any) -> dict[str, Any] | None:
    """The checked config of the model. Its head is None if the checkpoint has only a backbone."""
    if config is None:
        return None
    parts = [config, config.get("backbone"), config.get("head")] if isinstance(config, Mapping) else [config]
    for part in parts:
        if part is not None and not (isinstance(part, Mapping) and "type" in part):
            raise UserError(f"{path}: describes its model by {str(part)[:80]!r}, which is not a config with a type")
    if config.get("backbone") is None:
        raise UserError(f"{path}: describes a model without a backbone")
    classifier: dict[str, Any] = without_start(config)
    check_stored(path, classifier, (MODELS,), ())
    kind = MODELS.get(classifier["type"])
    if not isinstance(kind, type) or not issubclass(kind, ImageClassifier):
        raise UserError(f"{path}: describes {classifier['type']!r}, which is not an ImageClassifier")
    return {"head": None, **{key: value for key, value in classifier.items() if key not in NOT_DESCRIBED}}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def input_size(pipeline: Sequence[Mapping[str, Any]]) -> int:
    """Height of images after a pipeline, in pixels.

    Raises:
        UserError: if the pipeline cannot be built, or fails for an image of 64 x 64 pixels.

    Examples:
        >>> input_size([{"type": "SquashResize", "size": 448}])
        448
    """
    built = build_pipeline(pipeline)
    try:
        return int(built(image=np.zeros((64, 64, 3), np.uint8))["image"].shape[0])
    except Exception as error:
        # A transform may raise errors of any type for wrong arguments.
        raise UserError(f"pipeline: does not return an image ({' '.join(str(error).split())[:80]})") from error


def resized(pipeline: Sequence[Mapping[str, Any]], size: object) -> tuple[dict[str, Any], ...]:
    """The pipeline for another input size.

    Every ``size``, ``height`` and ``width`` that equals the current input size is replaced.

    Args:
        pipeline: configs of the transforms.
        size: the new input size in pixels, or a reference to a key of a config, such as ``$image_size``.
    """
    current = input_size(pipeline)

    def replaced(key: str, value: object) -> object:
        if key in ("size", "height", "width") and value == current:
            return size
        return [size, size] if key == "size" and value in ([current, current], (current, current)) else value

    return tuple({key: replaced(key, value) for key, value in step.items()} for step in pipeline)
