"""The config that scores a checkpoint without a config file: made from what the checkpoint says of its classifier."""

import copy
import sys
from pathlib import Path
from typing import Any

from mmengine.config import Config

from tresnet_downstream.classification.descriptions import Description, input_size, resized
from tresnet_downstream.errors import UserError
from tresnet_downstream.registry import SCOPE


def scoring_config(description: Description, path: str | Path) -> Config:
    """A config that scores a checkpoint which describes itself, before options are merged and references resolved.

    Options such as ``val_annotations=val.json val_images=val`` name the data; ``image_size``, ``batch_size``,
    ``threshold`` and the arguments of ``model`` can be set too.

    Args:
        description: the checkpoint's.
        path: the checkpoint, for messages.

    Raises:
        UserError: if the checkpoint does not describe its model and pipeline.
    """
    if description.classifier is None or not description.pipeline:
        raise UserError(f"{path}: does not describe its model; name its config too: CONFIG {path}")
    pipeline = resized(description.pipeline, "$image_size")
    # A pipeline may not name its size, as one that ends in padding to a multiple; then no option can change it.
    size = {"image_size": input_size(description.pipeline)} if pipeline != description.pipeline else {}
    own = {**description.labels, **size, "model": description.classifier, "val_pipeline": list(pipeline)}
    return Config(copy.deepcopy({**_SCORING, **own}), cfg_text="# of the checkpoint", filename=str(path))


# The validation part of configs/_base_. The keys of training are None, since the check of configs looks at them.
_SCORING: dict[str, Any] = {
    "default_scope": SCOPE,
    "seed": 0,
    "data_root": "",
    "val_annotations": None,
    "val_images": None,
    "data_source": "the data is yours",
    "keep_empty": False,
    "batch_size": 32,
    "num_workers": 2,
    "amp": None,
    "threshold": 0.5,
    "top_k": 3,
    "val_dataloader": {
        "batch_size": "$batch_size",
        "num_workers": "$num_workers",
        "persistent_workers": True,
        "sampler": {"type": "EpochSampler", "shuffle": False},
        "collate_fn": {"type": f"{SCOPE}.collate_pictures"},
        "dataset": {
            "type": "MultiLabelDataset",
            "data_root": "$data_root",
            "annotation_file": "$val_annotations",
            "image_folder": "$val_images",
            "keep_empty": "$keep_empty",
            "source": "$data_source",
            "pipeline": "$val_pipeline",
        },
    },
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
