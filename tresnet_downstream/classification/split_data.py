"""From a config to the data sets of its splits, and what is said of them."""

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
from tresnet_downstream.notices import tell
from tresnet_downstream.registry import DATASETS, takes_argument
from tresnet_downstream.running.config_checks import unset_keys
from tresnet_downstream.running.left_out import left_out_file
from tresnet_downstream.running.split_overlap import is_small, paths_of, require_split, tell_overlap

# What training reads of a data set, and what scoring writes of it besides; see interfaces.LabelledPictures.
_TRAINING = ("classes", "metainfo", "__len__")
_SCORING = ("annotation_file", "image_folder")


def take_split(config: Config, split: str, set_here: Set[str]) -> Set[str]:
    """Puts the data that is to be scored in the place of the validation data.

    Args:
        config: with references resolved; is changed in place.
        split: ``val``, or ``test`` for ``test_dataloader``.
        set_here: the places of the config that options set, from :func:`places_set_by`.

    Returns:
        the places, those of the test data as ones of the validation data.

    Raises:
        UserError: for another split, and if the config has no test data.
    """
    require_split(split)
    if split == "val":
        return set_here
    dataset = (config.get("test_dataloader") or {}).get("dataset") or {}
    unset = [*unset_keys(config, ("test",)), *(["test_split"] if dataset.get("split", "") is None else [])]
    if not dataset or unset:
        keys = ", ".join(unset) or "test_dataloader"
        raise UserError(f"`split` test: the config has no test data: set {keys}; split val scores the validation data")
    if dataset == config.val_dataloader.dataset:
        tell("note: the test data of the config is its validation data, by which the best epoch was chosen")
    config.val_dataloader = copy.deepcopy(config.test_dataloader)
    others = {place for place in set_here if not place.startswith("val_dataloader.")}
    return {place.replace("test_dataloader.", "val_dataloader.", 1) for place in others}


def build_datasets(
    config: Config, train: bool, classes: Sequence[str] | None, split_name: str = "val"
) -> dict[str, Any]:
    """The splits; validation has the classes of the training data or of the checkpoint, so that columns agree.

    Args:
        config: with references resolved.
        train: whether the training data is built too.
        classes: those of the checkpoint, if there is one.
        split_name: what the data that stands in the place of the validation data is called in messages.

    Raises:
        UserError: for a data set that cannot be built, lacks what is read of it, or joins others for validation.
    """
    datasets: dict[str, Any] = {}
    splits = ("train", "val") if train else ("val",)
    for split in splits:
        _refuse_joined(split, config[f"{split}_dataloader"].dataset)
    for split in splits:
        place = f"{split}_dataloader.dataset"
        node = dict(config[f"{split}_dataloader"].dataset)
        if split == "val" and node.get("on_bad_image") == "skip":
            # A neighbour in its place would be scored twice.
            node["on_bad_image"] = "leave_out"
        node = _with_cache(node, str(Path(config.work_dir).absolute().parent / ".cache"))
        if classes is not None:
            kind = DATASETS.get(str(node.get("type")))  # None raises below, by the registry
            if kind is not None and not takes_argument(kind, "classes"):
                raise UserError(f"{place}: {node.get('type')} takes no argument `classes`, the order of the columns")
            node["classes"] = tuple(classes)
        try:
            dataset = datasets[split] = DATASETS.build(node)
        except UserError as error:
            # In the words of the config, where the two keys have the split's name.
            name = split_name if split == "val" else split
            message = str(error).replace("annotation_file", f"{name}_annotations")
            raise UserError(message.replace("image_folder", f"{name}_images")) from error
        needed = _TRAINING if train else (*_TRAINING, *_SCORING)
        if lacking := [name for name in needed if not hasattr(dataset, name)]:
            raise UserError(
                f"{place}: {type(dataset).__name__} has no `{lacking[0]}`; tresnet_downstream/interfaces.py says what "
                "a data set must have"
            )
        if classes is not None and tuple(dataset.classes) != tuple(classes):
            raise UserError(f"{place}: {type(dataset).__name__} has other `classes` than it was given")
        classes = dataset.classes
    return datasets


def tell_shared_images(config: Config, datasets: Mapping[str, Any], train: bool, split_name: str = "val") -> None:
    """Says how many images of the splits that are scored are training data too, where the data says its images.

    A training looks at the test data of the config too. Files that are not there are not looked at.

    Args:
        config: with references resolved.
        datasets: from :func:`build_datasets`.
        train: whether a training begins; otherwise the training data is that of the config.
        split_name: as of :func:`build_datasets`.
    """
    training = paths_of(datasets["train"]) if train else _paths_by_config(config, "train")
    tell_overlap(split_name, training, paths_of(datasets["val"]))
    if train and (config.get("test_dataloader") or {}).get("dataset") != config.val_dataloader.dataset:
        tell_overlap("test", training, _paths_by_config(config, "test"))


def _paths_by_config(config: Config, split: str) -> list[str] | None:
    """The paths of the images of a split that is not used; None if it is not set, not there, or does not say them."""
    node = (config.get(f"{split}_dataloader") or {}).get("dataset")
    if not node or unset_keys(config, (split,)) or node.get("split", "") is None:
        return None
    for part in _leaves(node):
        if not hasattr(DATASETS.get(str(part.get("type"))), "image_paths"):
            return None
        file = part.get("annotation_file")
        if file is not None and not is_small(os.path.join(part.get("data_root") or "", file)):
            return None
    # What is not there is not fetched for this.
    quiet = {**node, "download": False} if "download" in node else node
    try:
        return paths_of(DATASETS.build(_with_cache(quiet, str(Path(config.work_dir).absolute().parent / ".cache"))))
    except (UserError, TypeError, KeyError, OSError):
        return None


def _leaves(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The configs of data sets that join no others."""
    parts = [node["dataset"]] if "dataset" in node else node.get("datasets")
    if not parts:
        yield node
    for part in parts or ():
        yield from _leaves(part)


def summaries(config: Config, datasets: Mapping[str, Any], train: bool, split_name: str = "val") -> list[str]:
    """Lines on the data sets whose labels can be counted; none on the user's own."""
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
    """A config whose data sets of ours keep large annotation files beside the folder of the run, for other runs."""
    node = dict(dataset)
    if isinstance(node.get("dataset"), Mapping):
        node["dataset"] = _with_cache(node["dataset"], folder)
    if isinstance(node.get("datasets"), list | tuple):
        node["datasets"] = [_with_cache(part, folder) for part in node["datasets"]]
    if node.get("type") in (MultiLabelDataset.__name__, SingleLabelDataset.__name__):
        node.setdefault("cache_dir", folder)
    return node


def _pipeline_of(dataset: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The transforms of the first data set, also within one that joins others."""
    parts = [dataset["dataset"]] if "dataset" in dataset else dataset.get("datasets")
    return _pipeline_of(parts[0]) if parts else dataset.get("pipeline") or ()
