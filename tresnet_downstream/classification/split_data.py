"""From a config to the data sets of its splits, and what is said of them."""

from collections.abc import Mapping, Sequence
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
from tresnet_downstream.registry import DATASETS, takes_argument
from tresnet_downstream.running.left_out import left_out_file

# What training reads of a data set, and what scoring writes of it besides; see interfaces.LabelledPictures.
_TRAINING = ("classes", "metainfo", "__len__")
_SCORING = ("annotation_file", "image_folder")


def build_datasets(config: Config, train: bool, classes: Sequence[str] | None) -> dict[str, Any]:
    """The splits; validation has the classes of the training data or of the checkpoint, so that columns agree.

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
            message = str(error).replace("annotation_file", f"{split}_annotations")
            raise UserError(message.replace("image_folder", f"{split}_images")) from error
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


def summaries(config: Config, datasets: Mapping[str, Any], train: bool) -> list[str]:
    """Lines on the data sets whose labels can be counted; none on the user's own."""
    lines = []
    for split, dataset in datasets.items():
        if isinstance(dataset, MultiLabelDataset | ConcatDataset | RepeatDataset) and dataset.annotations is not None:
            labelled: Any = dataset
            names_file = Path(config.work_dir) / (left_out_file(split) if train else LEFT_OUT)
            lines += summary(split, labelled, _pipeline_of(config[f"{split}_dataloader"].dataset), names_file)
    return lines


def _refuse_joined(split: str, dataset: Mapping[str, Any]) -> None:
    kind = DATASETS.get(str(dataset.get("type")))
    if not isinstance(kind, type):
        return
    if issubclass(kind, ClassBalancedDataset):
        raise UserError(
            f"{split}_dataloader.dataset: {kind.__name__} needs one class for each image; RepeatDataset and "
            "ConcatDataset take images of several"
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
