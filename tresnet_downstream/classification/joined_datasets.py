"""Data sets that repeat or concatenate others, with the arguments of MMEngine's classes of the same names.

MMEngine's classes access samples by an index alone. These classes pass the pair (epoch, index) to their parts, so that
every random draw is a function of seed, epoch and index. They also provide the classes and labels that training reads.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from tresnet_downstream.classification.annotations import MultilabelAnnotations, joined
from tresnet_downstream.classification.class_labels import ClassLabels, class_labels_of, joined_labels
from tresnet_downstream.classification.datasets import MultiLabelDataset, Sample
from tresnet_downstream.errors import UserError
from tresnet_downstream.registry import DATASETS, takes_argument


class _Joined(Dataset[Sample]):
    """A data set of several parts, with the attributes that training reads.

    Attributes:
        parts: the data sets.
        classes: the class names, which are the same for all parts.
        metainfo: dictionary of ``classes``, which MMEngine reads.
        annotations: the concatenated annotations of the parts; None if a part is a user's data set.
        annotation_file: the annotation files of the parts, for messages.
        image_folder: the image folders of the parts, for messages.
        num_missing: number of missing image files.
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = list(parts)
        self.classes = tuple(self.parts[0].classes)
        self.metainfo = {"classes": self.classes}
        of_parts = [part.annotations for part in self.parts if isinstance(part, MultiLabelDataset | _Joined)]
        known = [annotations for annotations in of_parts if annotations is not None]
        self.annotations: MultilabelAnnotations | None = joined(known) if len(known) == len(self.parts) else None
        self.annotation_file = _listed(part.annotation_file for part in self.parts)
        self.image_folder = _listed(part.image_folder for part in self.parts)
        self.num_missing = sum(getattr(part, "num_missing", 0) for part in self.parts)

    def class_labels(self, key: str) -> ClassLabels:
        """The classes that each sample shows. ``key`` is the config key that needs them, for messages."""
        return joined_labels([class_labels_of(part, key) for part in self.parts])

    @property
    def left_out(self) -> dict[str, str]:
        """From the names of images that are left out of the parts to the reasons."""
        return {image: reason for part in self.parts for image, reason in getattr(part, "left_out", {}).items()}

    def image_size(self) -> tuple[int, int] | None:
        """Height and width of images after the pipelines, in pixels; None if they differ."""
        sizes = {part.image_size() for part in self.parts}
        return sizes.pop() if len(sizes) == 1 else None


@DATASETS.register_module()
class RepeatDataset(_Joined):
    """Repeats a data set in each epoch, with different random draws for each repetition.

    Repetition k in epoch e has the random draws of epoch ``e * times + k`` of the data set itself.

    Args:
        dataset: config of the data set.
        times: number of repetitions in an epoch, at least 1.

    Raises:
        UserError: if ``times`` is below 1.

    Examples:
        >>> import pathlib, cv2
        >>> _ = cv2.imwrite("cat.png", np.zeros((32, 32, 3), np.uint8))
        >>> _ = pathlib.Path("labels.csv").write_text("cat.png,cat;dog")
        >>> part = dict(type="MultiLabelDataset", annotation_file="labels.csv", image_folder=".", pipeline=[])
        >>> len(RepeatDataset(part, times=3))
        3
    """

    def __init__(self, dataset: Mapping[str, Any], times: int) -> None:
        if times < 1:
            raise UserError(f"RepeatDataset: times={times}: give at least 1")
        super().__init__([DATASETS.build(dict(dataset))])
        self.times = times
        self.annotation_file += f", {times} times in an epoch"

    def __len__(self) -> int:
        return self.times * len(self.parts[0])

    def class_labels(self, key: str) -> ClassLabels:
        """The classes that each sample shows. ``key`` is the config key that needs them, for messages."""
        return joined_labels([class_labels_of(self.parts[0], key)], self.times)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        """The sample for ``(epoch, index)``; an index alone stands for epoch 0."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        visit, index = divmod(index, len(self.parts[0]))
        sample: Sample = self.parts[0][epoch * self.times + visit, index]
        return sample


@DATASETS.register_module()
class ConcatDataset(_Joined):
    """Concatenates data sets with the same classes.

    The classes are those of the first data set. The others must have them in the same order; a CSV file may have fewer.
    If the config of a part has a ``seed``, it is replaced, except for the first part, by a function of this seed and of
    the number of the part.

    Args:
        datasets: configs of the data sets.

    Raises:
        UserError: if there is no data set, or if the classes of a data set differ from those of the first.

    Examples:
        >>> import pathlib, cv2
        >>> _ = cv2.imwrite("cat.png", np.zeros((32, 32, 3), np.uint8))
        >>> _ = pathlib.Path("labels.csv").write_text("cat.png,cat;dog")
        >>> part = dict(type="MultiLabelDataset", annotation_file="labels.csv", image_folder=".", pipeline=[])
        >>> len(ConcatDataset([part, part]))
        2
    """

    def __init__(self, datasets: Sequence[Mapping[str, Any]]) -> None:
        if not datasets:
            raise UserError("ConcatDataset: datasets is empty; list at least one")
        parts = [DATASETS.build(dict(datasets[0]))]
        for number, config in enumerate(datasets[1:], 1):
            part = DATASETS.build(_like_first(config, number, parts[0].classes))
            if tuple(part.classes) != tuple(parts[0].classes):
                files = f"{part.annotation_file} and of {parts[0].annotation_file}"
                raise UserError(f"ConcatDataset: the classes of {files} differ, or their order; give both `classes`")
            parts.append(part)
        super().__init__(parts)
        self.ends = list(accumulate(len(part) for part in parts))

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        """The sample for ``(epoch, index)``; an index alone stands for epoch 0."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        number = bisect_right(self.ends, index)
        part = self.parts[number]
        sample: Sample = part[epoch, index - self.ends[number] + len(part)]
        return sample


def _like_first(config: Mapping[str, Any], number: int, classes: Sequence[str]) -> dict[str, Any]:
    """The config of a later part, with the classes of the first part and a seed of its own."""
    part = dict(config)
    kind = DATASETS.get(str(part.get("type")))
    if kind is not None and takes_argument(kind, "classes"):
        part.setdefault("classes", tuple(classes))
    if isinstance(part.get("seed"), int):
        part["seed"] = int(np.random.SeedSequence([part["seed"], number]).generate_state(1)[0])
    return part


def _listed(names: Iterable[object]) -> str:
    return " and ".join(dict.fromkeys(map(str, names)))
