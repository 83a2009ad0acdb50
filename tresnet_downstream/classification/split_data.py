"""Builds the data sets of the splits of a config, and the lines that describe them."""

import copy
import os
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dataset import ClassBalancedDataset

from tresnet_downstream.classification.data_summary import summary
from tresnet_downstream.classification.datasets import MultiLabelDataset
from tresnet_downstream.classification.joined_datasets import ConcatDataset, RepeatDataset
from tresnet_downstream.classification.single_label_datasets import SingleLabelDataset
from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.runs import LEFT_OUT
from tresnet_downstream.interfaces import LabelledImages
from tresnet_downstream.notices import tell
from tresnet_downstream.registry import DATASETS, takes_argument
from tresnet_downstream.running.config_checks import unset_keys
from tresnet_downstream.running.left_out import left_out_file
from tresnet_downstream.running.split_overlap import is_small, paths_of, require_split, tell_overlap

# Attributes of a data set that training reads, and those that scoring also reads; see interfaces.LabelledImages.
_TRAINING = ("classes", "metainfo", "__len__")
_SCORING = ("annotation_file", "image_folder")


def take_split(config: Config, split: str, set_here: Set[str]) -> Set[str]:
    """Replaces the validation data of a config by the split to score.

    Args:
        config: a config with resolved references, which is changed in place.
        split: ``val``, or ``test`` for ``test_dataloader``.
        set_here: keys of the config that options set, from :func:`places_set_by`.

    Returns:
        The keys that options set, with those of the test data renamed to those of the validation data.

    Raises:
        UserError: for another split, or if the config has no test data.
    """
    require_split(split)
    if split == "val":
        return set_here
    dataset = (config.get("test_dataloader") or {}).get("dataset") or {}
    unset = [*unset_keys(config, ("test",)), *(["test_split"] if dataset.get("split", "") is None else [])]
    if not dataset or unset:
        keys = ", ".join(unset) or "test_dataloader"
        raise UserError(
            f"`split` test: the config has no test data: set {keys}; `split` val scores the validation data"
        )
    if dataset == config.val_dataloader.dataset:
        tell("note: the test data of the config is its validation data, which the best epoch was chosen by")
    config.val_dataloader = copy.deepcopy(config.test_dataloader)
    remaining = {key for key in set_here if not key.startswith("val_dataloader.")}
    return {key.replace("test_dataloader.", "val_dataloader.", 1) for key in remaining}


def build_datasets(
    config: Config, train: bool, classes: Sequence[str] | None, split_name: str = "val"
) -> dict[str, LabelledImages]:
    """Builds the data sets of the splits. Validation data has the classes of the training data or of the checkpoint.

    Args:
        config: a config with resolved references.
        train: whether the training data is built too.
        classes: class names of the checkpoint; None if there is none.
        split_name: name of the validation data in messages, such as ``test`` after :func:`take_split`.

    Returns:
        From ``train`` and ``val`` to the data sets.

    Raises:
        UserError: if a data set cannot be built or lacks an attribute, or if validation data concatenates or repeats
            data sets.
    """
    datasets: dict[str, LabelledImages] = {}
    splits = ("train", "val") if train else ("val",)
    for split in splits:
        _refuse_joined(split, config[f"{split}_dataloader"].dataset)
    for split in splits:
        place = f"{split}_dataloader.dataset"
        node = dict(config[f"{split}_dataloader"].dataset)
        if split == "val" and node.get("on_bad_image") == "skip":
            # With "skip", the next image would be scored twice.
            node["on_bad_image"] = "leave_out"
        node = _with_cache(node, str(Path(config.work_dir).absolute().parent / ".cache"))
        if classes is not None:
            kind = DATASETS.get(str(node.get("type")))  # if None, `build` raises an error below
            if kind is not None and not takes_argument(kind, "classes"):
                raise UserError(f"{place}: {node.get('type')} has no argument `classes`, the order of the columns")
            node["classes"] = tuple(classes)
        try:
            dataset = datasets[split] = DATASETS.build(node)
        except UserError as error:
            # In configs, the names of these keys contain the name of the split.
            name = split_name if split == "val" else split
            message = str(error).replace("annotation_file", f"{name}_annotations")
            raise UserError(message.replace("image_folder", f"{name}_images")) from error
        needed = _TRAINING if train else (*_TRAINING, *_SCORING)
        if missing := [name for name in needed if not hasattr(dataset, name)]:
            raise UserError(
                f"{place}: {type(dataset).__name__} has no `{missing[0]}`; tresnet_downstream/interfaces.py says what "
                "a data set must have"
            )
        if classes is not None and tuple(dataset.classes) != tuple(classes):
            raise UserError(
                f"{place}: the attribute `classes` of {type(dataset).__name__} differs from the argument `classes`; "
                "store the argument unchanged"
            )
        classes = dataset.classes
    return datasets


def tell_shared_images(config: Config, datasets: Mapping[str, object], train: bool, split_name: str = "val") -> None:
    """Prints how many images of the scored splits are training data too, if the data sets provide their images.

    Before a training, the test data of the config is compared too. Missing files are ignored.

    Args:
        config: a config with resolved references.
        datasets: the result of :func:`build_datasets`.
        train: whether ``datasets`` has the training data; otherwise it is taken from the config.
        split_name: see :func:`build_datasets`.
    """
    training = paths_of(datasets["train"]) if train else _paths_by_config(config, "train")
    tell_overlap(split_name, training, paths_of(datasets["val"]))
    if train and (config.get("test_dataloader") or {}).get("dataset") != config.val_dataloader.dataset:
        tell_overlap("test", training, _paths_by_config(config, "test"))


def _paths_by_config(config: Config, split: str) -> list[str] | None:
    """The paths of the images of a split that was not built; None if it is not set, missing or without paths."""
    node = (config.get(f"{split}_dataloader") or {}).get("dataset")
    if not node or unset_keys(config, (split,)) or node.get("split", "") is None:
        return None
    for part in _leaves(node):
        if not hasattr(DATASETS.get(str(part.get("type"))), "image_paths"):
            return None
        file = part.get("annotation_file")
        if file is not None and not is_small(os.path.join(part.get("data_root") or "", file)):
            return None
    # Nothing is downloaded for this comparison.
    without_download = {**node, "download": False} if "download" in node else node
    try:
        return paths_of(
            DATASETS.build(_with_cache(without_download, str(Path(config.work_dir).absolute().parent / ".cache")))
        )
    except (UserError, TypeError, KeyError, OSError):
        return None


def _leaves(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The configs of data sets that do not concatenate or repeat others."""
    parts = [node["dataset"]] if "dataset" in node else node.get("datasets")
    if not parts:
        yield node
    for part in parts or ():
        yield from _leaves(part)


def summaries(config: Config, datasets: Mapping[str, object], train: bool, split_name: str = "val") -> list[str]:
    """Lines that describe the data sets of this package. A user's data sets are not described."""
    lines = []
    for split, dataset in datasets.items():
        if isinstance(dataset, MultiLabelDataset | ConcatDataset | RepeatDataset) and dataset.annotations is not None:
            labelled: Any = dataset
            names_file = Path(config.work_dir) / (left_out_file(split) if train else LEFT_OUT)
            name = split_name if split == "val" else split
            lines += summary(name, labelled, _pipeline_of(config[f"{split}_dataloader"].dataset), names_file)
    return lines


def _refuse_joined(split: str, dataset: Mapping[str, Any]) -> None:
    kind = DATASETS.get(str(dataset.get("type")))
    if not isinstance(kind, type):
        return
    if issubclass(kind, ClassBalancedDataset):
        raise UserError(
            f"{split}_dataloader.dataset: {kind.__name__} is for detectors; sampling='repeat_factor' repeats images of "
            "rare classes here"
        )
    if split == "val" and issubclass(kind, ConcatDataset | RepeatDataset):
        raise UserError(
            f"val_dataloader.dataset: {kind.__name__} is for training; list the images to score in one annotation file"
        )


def _with_cache(dataset: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """A config in which data sets of this package cache large annotation files beside the folder of the run."""
    node = dict(dataset)
    if isinstance(node.get("dataset"), Mapping):
        node["dataset"] = _with_cache(node["dataset"], folder)
    if isinstance(node.get("datasets"), list | tuple):
        node["datasets"] = [_with_cache(part, folder) for part in node["datasets"]]
    if node.get("type") in (MultiLabelDataset.__name__, SingleLabelDataset.__name__):
        node.setdefault("cache_dir", folder)
    return node


def _pipeline_of(dataset: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The transforms of a data set; of the first one if it concatenates or repeats others."""
    parts = [dataset["dataset"]] if "dataset" in dataset else dataset.get("datasets")
    return _pipeline_of(parts[0]) if parts else dataset.get("pipeline") or ()
