"""Data sets with one label per image, from class folders, annotation files and torchvision."""

import inspect
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Protocol

import numpy as np
import torch
from filelock import BaseFileLock, FileLock
from PIL import Image
from torch.utils.data import Dataset

from tresnet_downstream.classification.annotations import MultilabelAnnotations, of_class_folders
from tresnet_downstream.classification.class_labels import ClassLabels, single_labels
from tresnet_downstream.classification.datasets import MultiLabelDataset, Sample, augment
from tresnet_downstream.classification.transforms import build_pipeline
from tresnet_downstream.errors import UserError
from tresnet_downstream.registry import DATASETS

# torchvision has the argument `download` for these data sets but raises an error, since their servers are gone.
_NO_LONGER_FETCHED = ("StanfordCars",)
ALL = "all"  # the split of a data set that torchvision does not split


@DATASETS.register_module()
class SingleLabelDataset(MultiLabelDataset):
    """Images with one label each, from a folder for each class or from an annotation file.

    Samples are those of `MultiLabelDataset`, with an int64 class index as the target.

    Args:
        image_folder: folder of the images, which names in the annotations are relative to. Without an annotation file,
            it has a subfolder of images for each class.
        pipeline: see `MultiLabelDataset`.
        annotation_file: COCO ``.json`` file, ``.csv`` table or PASCAL VOC's ``.txt`` list with one label per image.
        data_root: folder of the data set.
        classes: class names in the order of the class indices; None for those of the file, or for the sorted names of
            the subfolders.
        source: where the data can be downloaded, for the message if ``data_root`` does not exist.
        **options: ``on_bad_image``, ``reduced_decoding``, ``cache_dir``, ``outside_paths`` and ``seed``, see
            `MultiLabelDataset`.

    Raises:
        UserError: as `MultiLabelDataset`, and if an image has several labels, a subfolder has no images, or a subfolder
            is not one of ``classes``.

    Examples:
        >>> import cv2
        >>> for name in ("cat", "dog"):
        ...     os.makedirs(f"images/{name}")
        ...     _ = cv2.imwrite(f"images/{name}/1.png", np.zeros((32, 32, 3), np.uint8))
        >>> dataset = SingleLabelDataset("images", [{"type": "SquashResize", "size": 16}])
        >>> dataset.classes, dataset[1]["targets"], dataset[1]["image"]
        (('cat', 'dog'), 1, 'dog/1.png')
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
        """Reads the subfolders or the annotation file, and checks that each image has exactly one label."""
        if self.annotation_file == self.image_folder:
            return of_class_folders(self.image_folder, classes)
        annotations = super().read_annotations(classes, keep_empty, cache_dir, difficult)
        # A single label may be unknown, which does not count as a label.
        wrong = np.flatnonzero(np.diff(annotations.indptr) != 1)
        if not len(wrong):
            wrong = np.flatnonzero(annotations.values != 1)
        if len(wrong):
            raise UserError(
                f"{self.annotation_file}: {len(wrong):,} of {len(annotations):,} images do not have exactly one label, "
                f"such as {annotations.path(int(wrong[0]))!r}; MultiLabelDataset takes images with several"
            )
        return annotations

    def target(self, index: int) -> int:
        """The class index of a sample."""
        return int(self.annotations.indices[index])


@DATASETS.register_module()
class TorchvisionDataset(Dataset[Sample]):
    """A data set of torchvision with one label per image, such as ``CIFAR10`` or ``Flowers102``.

    Samples are those of `SingleLabelDataset`. The name of an image is its path below ``data_root``, or its number if
    the data set has many images in one file.

    Args:
        name: name of the data set in torchvision.
        pipeline: configs of the transforms, see `build_pipeline`.
        split: ``train``, ``test`` or another split of the data set; several splits are joined by ``+``, such as
            ``train+val``; ``all`` for a data set without splits.
        data_root: folder in which torchvision stores the data.
        download: whether torchvision may download missing data.
        classes: expected class names, in this order; None for those of the data set.
        seed: seed of the random draws of the pipeline, 0 to 2**32 - 1.
        options: further arguments of torchvision's class, by name.

    Attributes:
        classes: the class names; numbers if torchvision has no names.
        metainfo: dictionary of ``classes``, which MMEngine reads.
        labels: int64 of shape (N,).
        annotation_file: name of the data set in messages.
        image_folder: ``data_root``.
        names: N names of images.

    Raises:
        UserError: if torchvision has no such data set, split or option, or if the data is missing.
    """

    left_out: dict[str, str] = {}  # noqa: RUF012 - always empty

    def __init__(
        self,
        name: str,
        pipeline: Sequence[Mapping[str, Any]],
        split: str = "train",
        data_root: str = "data",
        download: bool = False,
        classes: Sequence[str] | None = None,
        seed: int = 0,
        options: Mapping[str, object] | None = None,
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
                f"{self.annotation_file}: its {len(self.classes)} classes are not the {len(classes)} of `classes`"
            )

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
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
        """The paths of all images. Images that are not files get unique names of the form of a path."""
        paths = []
        for part, name, end in zip(self.parts, self.split.split("+"), self.ends.tolist(), strict=True):
            stored = _stored_paths(part, self.image_folder)
            numbers = (f"torchvision/{self.name}/{name}/{number}" for number in range(len(part)))
            paths += stored or list(numbers)
            assert len(paths) == end
        return [os.path.join(self.image_folder, path) for path in paths]

    def class_labels(self, key: str) -> ClassLabels:
        """The class of each image. ``key`` is the config key that needs them; it is not used."""
        return single_labels(self.classes, self.labels)

    def image(self, index: int) -> np.ndarray:
        """An image before the pipeline: uint8 of shape (height, width, 3), RGB."""
        part = int(np.searchsorted(self.ends, index, side="right"))
        image, _ = self.parts[part][index - (int(self.ends[part - 1]) if part else 0)]
        return np.asarray(image.convert("RGB"))


class _LabelledImages(Protocol):
    """What this module uses of a data set of torchvision, besides attributes that not all of them have."""

    def __len__(self) -> int:
        """Number of images."""

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """An image and its class index."""


def _torchvision(name: str, root: str, split: str, download: bool, options: dict[str, object]) -> _LabelledImages:
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
        raise UserError(f"download: torchvision cannot download {name}; copy it to {root}")
    if not {"train", "split"} & set(parameters) and split != ALL:
        # Scoring the training images would give scores that are too good.
        raise UserError(f"split={split!r}: torchvision does not split {name}; {ALL!r} uses all of its images")
    try:
        with _alone(root, name) if download else nullcontext():
            dataset: _LabelledImages = kind(root=root, **options)
            return dataset
    except (OSError, RuntimeError, TypeError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        can_fetch = "download" in parameters and name not in _NO_LONGER_FETCHED
        advice = "; download=True fetches it" if can_fetch and not download else ""
        raise UserError(f"{root}: {name} cannot be read there ({reason}){advice}") from error


def _alone(root: str, name: str) -> BaseFileLock:
    """A lock for the processes of a training, whose downloads would otherwise overwrite each other."""
    os.makedirs(root, exist_ok=True)
    return FileLock(os.path.join(root, f".{name}.lock"))


def _labels(dataset: _LabelledImages, name: str) -> np.ndarray:
    """The labels. Images are read only if the data set does not store its labels."""
    try:
        labels = np.asarray(_stored_labels(dataset), np.int64)
    except (NotImplementedError, TypeError, ValueError):
        labels = np.zeros(0, np.int64)
    if labels.ndim != 1 or not len(labels) or labels.min() < 0:
        raise UserError(f"name={name!r}: is not a data set with one label per image")
    return labels


def _stored_labels(dataset: _LabelledImages) -> object:
    for attribute in ("targets", "_labels", "labels"):
        labels = getattr(dataset, attribute, None)
        if labels is not None and len(labels) == len(dataset):
            return labels
    samples = getattr(dataset, "_samples", None)
    return [label for _, label in samples or (dataset[index] for index in range(len(dataset)))]


def _stored_paths(dataset: _LabelledImages, root: str) -> list[str]:
    """The paths of the images relative to ``root``; empty if they are not files."""
    for attribute in ("_image_files", "_images", "_samples", "samples"):
        stored = getattr(dataset, attribute, None)
        if isinstance(stored, Sequence) and len(stored) == len(dataset):
            files = [entry[0] if isinstance(entry, tuple | list) else entry for entry in stored]
            if all(isinstance(file, str | os.PathLike) for file in files):
                return [os.path.relpath(file, root).replace(os.sep, "/") for file in files]
    return []


def _class_names(dataset: object, at_least: int) -> tuple[str, ...]:
    names = getattr(dataset, "classes", None)
    return tuple(map(str, names)) if names is not None and len(names) >= at_least else tuple(map(str, range(at_least)))
