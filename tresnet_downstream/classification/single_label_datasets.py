"""Images with one label each: from class folders, annotation files, and torchvision's data sets."""

import inspect
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from filelock import BaseFileLock, FileLock
from torch.utils.data import Dataset

from tresnet_downstream.classification.annotations import MultilabelAnnotations, of_class_folders
from tresnet_downstream.classification.class_labels import ClassLabels, single_labels
from tresnet_downstream.classification.datasets import MultiLabelDataset, augment
from tresnet_downstream.classification.transforms import build_pipeline
from tresnet_downstream.errors import UserError
from tresnet_downstream.registry import DATASETS

# torchvision takes `download` for these, and refuses it: their servers are gone.
_NO_LONGER_FETCHED = ("StanfordCars",)
ALL = "all"  # images of a data set that torchvision does not split


@DATASETS.register_module()
class SingleLabelDataset(MultiLabelDataset):
    """Images with one label each, from a folder for each class or from an annotation file.

    A sample is that of `MultiLabelDataset`, with an int64 class index as its target.

    Args:
        image_folder: what the names of images are relative to; without an annotation file it holds a folder of images
            for each class.
        pipeline: see `MultiLabelDataset`.
        annotation_file: COCO ``.json`` file, ``.csv`` table or VOC's ``.txt`` list with one label for each image.
        data_root: folder of the data set.
        classes: class names, whose order numbers the classes; None takes those of the file, or the folders' sorted
            names.
        source: where the data comes from, told if ``data_root`` is not there.
        **options: ``on_bad_image``, ``reduced_decoding``, ``cache_dir``, ``outside_paths`` and ``seed``, see
            `MultiLabelDataset`.

    Raises:
        UserError: as `MultiLabelDataset`, and for an image with several labels, a class folder without images, and
            folders that are none of ``classes``.
    """

    def __init__(
        self,
        image_folder: str,
        pipeline: Sequence[Mapping[str, Any]],
        annotation_file: str | None = None,
        data_root: str = "",
        classes: Sequence[str] | None = None,
        source: str = "it holds your own data",
        **options: Any,
    ) -> None:
        super().__init__(annotation_file, image_folder, pipeline, data_root, classes, source=source, **options)

    def read_annotations(
        self, classes: Sequence[str] | None, keep_empty: bool, cache_dir: str | None, difficult: str
    ) -> MultilabelAnnotations:
        """What the folders or the file say; each image has exactly one label."""
        if self.annotation_file == self.image_folder:
            return of_class_folders(self.image_folder, classes)
        annotations = super().read_annotations(classes, keep_empty, cache_dir, difficult)
        # An image may also have a label that is unknown, which is none.
        wrong = np.flatnonzero(np.diff(annotations.indptr) != 1)
        if not len(wrong):
            wrong = np.flatnonzero(annotations.values != 1)
        if len(wrong):
            raise UserError(
                f"{self.annotation_file}: {len(wrong):,} of {len(annotations):,} images do not have exactly one label, "
                f"such as {annotations.path(int(wrong[0]))!r}; MultiLabelDataset takes images with several"
            )
        return annotations

    def target(self, index: int) -> Any:
        """The class index of a sample."""
        return int(self.annotations.indices[index])


@DATASETS.register_module()
class TorchvisionDataset(Dataset[dict[str, Any]]):
    """One of torchvision's data sets of images with one label, such as ``CIFAR10`` or ``Flowers102``.

    A sample is that of `SingleLabelDataset`; its image's name is its path below ``data_root``, or its number where the
    data set keeps many images in one file.

    Args:
        name: torchvision's name of the data set.
        pipeline: the transforms, see `build_pipeline`.
        split: ``train``, ``test`` or another that the data set has; several joined by ``+``, such as ``train+val``;
            ``all`` for a data set without splits.
        data_root: folder that torchvision keeps it in.
        download: whether torchvision may download it there if it is not there.
        classes: class names that it must have, in this order; None takes its own.
        seed: of the pipeline's draws, 0 to 2**32 - 1.
        options: further arguments of torchvision's class, by name.

    Attributes:
        classes: the class names; numbers where torchvision has none.
        metainfo: dictionary of ``classes``, where MMEngine looks for it.
        labels: int64 of shape (N,).
        annotation_file: what messages call the data set.
        image_folder: ``data_root``.
        names: N names of images.

    Raises:
        UserError: if torchvision has no such data set, split or option, or the data is not there.
    """

    left_out: dict[str, str] = {}  # noqa: RUF012 - there is never any

    def __init__(
        self,
        name: str,
        pipeline: Sequence[Mapping[str, Any]],
        split: str = "train",
        data_root: str = "data",
        download: bool = False,
        classes: Sequence[str] | None = None,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.pipeline = build_pipeline(pipeline)
        self.seed, self.name, self.split = seed, name, split
        self.parts = [_torchvision(name, data_root, part, download, dict(options or {})) for part in split.split("+")]
        labels = [_labels(part, name) for part in self.parts]
        self.ends = np.cumsum([len(part) for part in labels])
        self.annotation_file, self.image_folder = f"torchvision's {name} ({split})", data_root
        self.labels = np.concatenate(labels)
        paths = [path for part in self.parts for path in _stored_paths(part, data_root)]
        self.names = paths if len(set(paths)) == len(self) else [str(number) for number in range(len(self))]
        self.classes = _class_names(self.parts[0], int(self.labels.max()) + 1)
        self.metainfo = {"classes": self.classes}
        if classes is not None and tuple(classes) != self.classes:
            raise UserError(
                f"{self.annotation_file}: its {len(self.classes)} classes are not the {len(classes)} wanted"
            )

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        image = augment(self.pipeline, self.image(index), self.seed, epoch, index)
        return {
            "inputs": torch.from_numpy(image).permute(2, 0, 1),
            "targets": int(self.labels[index]),
            "image": self.names[index],
            "skipped": 0,
            "passed_over": "",
            "unreadable": "",
        }

    def image_paths(self) -> list[str]:
        """The paths of all images; where they are no files of their own, what names each one in its part."""
        paths = []
        for part, name, end in zip(self.parts, self.split.split("+"), self.ends.tolist(), strict=True):
            stored = _stored_paths(part, self.image_folder)
            numbers = (f"torchvision/{self.name}/{name}/{number}" for number in range(len(part)))
            paths += stored or list(numbers)
            assert len(paths) == end
        return [os.path.join(self.image_folder, path) for path in paths]

    def class_labels(self, key: str) -> ClassLabels:
        """The class of each image; ``key`` is of the config, for messages."""
        return single_labels(self.classes, self.labels)

    def image(self, index: int) -> np.ndarray:
        """An image as it is, before the pipeline: uint8 of shape (height, width, 3), RGB."""
        part = int(np.searchsorted(self.ends, index, side="right"))
        image, _ = self.parts[part][index - (int(self.ends[part - 1]) if part else 0)]
        return np.asarray(image.convert("RGB"))


def _torchvision(name: str, root: str, split: str, download: bool, options: dict[str, Any]) -> Any:
    from torchvision import datasets

    kind = getattr(datasets, name, None) if name in datasets.__all__ else None
    if kind is None:
        raise UserError(
            f"name={name!r}: torchvision has no such data set; it has CIFAR10, CIFAR100, Flowers102 and more"
        )
    parameters = inspect.signature(kind.__init__).parameters
    if "train" in parameters:
        if split not in ("train", "test"):
            raise UserError(f"split={split!r}: {name} has the splits train and test")
        options["train"] = split == "train"
    elif "split" in parameters:
        options["split"] = split
    if unknown := sorted(set(options) - set(parameters)):
        raise UserError(f"options: {name} takes no argument {unknown[0]!r}")
    if "download" in parameters:
        options["download"] = download
    elif download:
        raise UserError(f"download: torchvision cannot download {name}; put it into {root}")
    if not {"train", "split"} & set(parameters) and split != ALL:
        # Training and scoring on the same images would look like a good network.
        raise UserError(f"split={split!r}: torchvision does not split {name}; {ALL!r} takes all of its images")
    try:
        with _alone(root, name) if download else nullcontext():
            return kind(root=root, **options)
    except (OSError, RuntimeError, TypeError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        can_fetch = "download" in parameters and name not in _NO_LONGER_FETCHED
        advice = "; download=True fetches it" if can_fetch and not download else ""
        raise UserError(f"{root}: {name} cannot be read there ({reason}){advice}") from error


def _alone(root: str, name: str) -> BaseFileLock:
    """A lock that one process of a training holds at a time; torchvision's downloads would overwrite one another."""
    os.makedirs(root, exist_ok=True)
    return FileLock(os.path.join(root, f".{name}.lock"))


def _labels(dataset: Any, name: str) -> np.ndarray:
    """The labels, without reading an image where the data set has them."""
    try:
        labels = np.asarray(_stored_labels(dataset), np.int64)
    except (NotImplementedError, TypeError, ValueError):
        labels = np.zeros(0, np.int64)
    if labels.ndim != 1 or not len(labels) or labels.min() < 0:
        raise UserError(f"name={name!r}: is no data set of images with one label")
    return labels


def _stored_labels(dataset: Any) -> Any:
    for attribute in ("targets", "_labels", "labels"):
        labels = getattr(dataset, attribute, None)
        if labels is not None and len(labels) == len(dataset):
            return labels
    samples = getattr(dataset, "_samples", None)
    return [label for _, label in samples or (dataset[index] for index in range(len(dataset)))]


def _stored_paths(dataset: Any, root: str) -> list[str]:
    """The images' paths relative to ``root``; none if they are no files of their own."""
    for attribute in ("_image_files", "_images", "_samples", "samples"):
        stored = getattr(dataset, attribute, None)
        if isinstance(stored, Sequence) and len(stored) == len(dataset):
            files = [each[0] if isinstance(each, tuple | list) else each for each in stored]
            if all(isinstance(file, str | os.PathLike) for file in files):
                return [os.path.relpath(file, root).replace(os.sep, "/") for file in files]
    return []


def _class_names(dataset: Any, at_least: int) -> tuple[str, ...]:
    names = getattr(dataset, "classes", None)
    return tuple(map(str, names)) if names is not None and len(names) >= at_least else tuple(map(str, range(at_least)))
