"""Builds a scoring config from the description in a checkpoint, with the validation settings of configs/_base_."""

import copy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry

from tresnet_downstream.classification.descriptions import Description, input_size, resized, without_paths
from tresnet_downstream.errors import UserError
from tresnet_downstream.registry import DATASETS, METRICS, SCOPE
from tresnet_downstream.running.stored_config import check_stored


def scoring_config(description: Description, path: str | Path) -> Config:
    """Builds a config that scores a checkpoint with a description, with unresolved references.

    :func:`with_options` applies options and resolves references. ``val_annotations`` and ``val_images`` must be set;
    ``image_size``, ``batch_size``, ``threshold`` and the keys of ``model`` may be set.

    Args:
        description: the description in the checkpoint.
        path: the checkpoint, for messages.

    Raises:
        UserError: if the checkpoint does not describe its model and pipeline, or names a data set or metric that is
            not registered.
    """
    if description.classifier is None or not description.pipeline:
        raise UserError(f"{path}: does not describe its model; give its config too: CONFIG {path}")
    pipeline = resized(description.pipeline, "$image_size")
    size = {"image_size": input_size(description.pipeline)} if pipeline != description.pipeline else {}
    own = {**description.labels, **size, "model": description.classifier, "val_pipeline": list(pipeline)}
    content = copy.deepcopy({**_SCORING, **_LABEL_DEFAULTS, **own})
    if not description.classifier.get("multi_label", True):
        _for_one_label(content)
    if description.dataset is not None:
        for loader in _LOADERS:
            content[loader]["dataset"] = _checked_own_part(path, description.dataset, DATASETS)
    if description.metrics:
        metrics = [_checked_own_part(path, metric, METRICS) for metric in description.metrics]
        content["val_evaluator"] = [content["val_evaluator"], *metrics]
    return Config(content, cfg_text="# of the checkpoint", filename=str(path))


def _for_one_label(content: dict[str, Any]) -> None:
    """Changes a scoring config to one label per image, from class folders or, if it is set, `val_annotations`."""
    for key in ("keep_empty", "difficult", "threshold", "top_k"):
        content.pop(key, None)
    for loader in _LOADERS:
        dataset = content[loader]["dataset"]
        content[loader]["dataset"] = {
            **{key: value for key, value in dataset.items() if key not in ("keep_empty", "difficult")},
            "type": "SingleLabelDataset",
        }
    content["val_evaluator"] = {"type": "SingleLabelMetric"}


def _checked_own_part(path: str | Path, part: Mapping[str, Any], registry: Registry) -> dict[str, Any]:
    """A stored config of a data set or metric without paths, after a check that its class is a user's."""
    check_stored(path, part, (registry,), ())
    kind = registry.get(part["type"])
    if kind.__module__.startswith(f"{SCOPE}."):
        raise UserError(
            f"{path}: names {part['type']!r} for its validation, but only a class of your own is allowed there"
        )
    # Only the user, not the checkpoint, may allow images outside of the folder.
    result: dict[str, Any] = without_paths(
        {key: value for key, value in part.items() if (key, value) != ("outside_paths", True)}
    )
    return result


def _loader(split: str) -> dict[str, Any]:
    """The config of the data loader of a split, ``val`` or ``test``, as in configs/_base_."""
    return {
        "batch_size": "$batch_size",
        "num_workers": "$num_workers",
        "persistent_workers": True,
        "sampler": {"type": "EpochSampler", "shuffle": False},
        "collate_fn": {"type": f"{SCOPE}.collate_images"},
        "dataset": {
            "type": "MultiLabelDataset",
            "data_root": "$data_root",
            "annotation_file": f"${split}_annotations",
            "image_folder": f"${split}_images",
            "keep_empty": "$keep_empty",
            "difficult": "$difficult",
            "on_bad_image": "$on_bad_image",
            "outside_paths": "$outside_paths",
            "source": "$data_source",
            "pipeline": "$val_pipeline",
        },
    }


_LOADERS = ("val_dataloader", "test_dataloader")
_LABEL_DEFAULTS = {"threshold": 0.5, "top_k": 3}
# The validation settings of configs/_base_. The check of configs requires the keys for training.
_SCORING: dict[str, Any] = {
    "default_scope": SCOPE,
    "seed": 0,
    "data_root": "",
    "val_annotations": None,
    "val_images": None,
    "test_annotations": None,
    "test_images": None,
    "data_source": "it holds your own data",
    "keep_empty": False,
    "difficult": "unknown",
    "on_bad_image": "error",
    "outside_paths": False,
    "batch_size": 32,
    "num_workers": 2,
    "amp": None,
    "frequency_cutoffs": None,
    "val_dataloader": _loader("val"),
    "test_dataloader": _loader("test"),
    "val_evaluator": {"type": "MultilabelMetric", "threshold": "$threshold", "top_k": "$top_k"},
    "val_cfg": {"type": "ScoreLoop", "amp": "$amp"},
    "randomness": {"seed": "$seed", "deterministic": False},
    "env_cfg": {
        "cudnn_benchmark": True,
        "mp_cfg": {"mp_start_method": "fork" if sys.platform == "linux" else "spawn", "opencv_num_threads": 0},
    },
    "log_level": "INFO",
    "default_hooks": {"checkpoint": None, "logger": {"type": "LoggerHook", "interval": 50}},
    "visualizer": {"type": "Visualizer", "vis_backends": [{"type": "LocalVisBackend"}]},
    "train_dataloader": None,
    "optim_wrapper": None,
    "param_scheduler": None,
    "train_cfg": None,
    "custom_hooks": [],
}
