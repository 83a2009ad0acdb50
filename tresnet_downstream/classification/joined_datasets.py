"""Data sets that repeat or join others, with the arguments of MMEngine's classes of the same names.

MMEngine's own ask for samples by index alone. These pass the pair (epoch, index) on, so that every draw stays a
function of seed, epoch and index, and they have the classes and labels that training reads.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from tresnet_downstream.classification.annotations import joined
from tresnet_downstream.classification.class_labels import ClassLabels, class_labels_of, joined_labels
from tresnet_downstream.classification.datasets import MultiLabelDataset
from tresnet_downstream.errors import UserError
from tresnet_downstream.registry import DATASETS, takes_argument


class _Joined(Dataset[dict[str, Any]]):
    """The parts of a data set, and what training reads of them.

    Attributes:
        parts: the data sets.
        classes: the class names, the same in all parts.
        metainfo: dictionary of ``classes``, where MMEngine looks for it.
        annotations: the labels of all parts, each once; None if a part is not a data set of ours.
        annotation_file: the parts' files, for messages.
        image_folder: the parts' folders, for messages.
        num_missing: images whose files are not there.
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = list(parts)
        self.classes = tuple(self.parts[0].classes)
        self.metainfo = {"classes": self.classes}
        labels: list[Any] = [None]
        if all(isinstance(part, MultiLabelDataset | _Joined) for part in self.parts):
            labels = [part.annotations for part in self.parts]
        self.annotations = None if None in labels else joined(labels)
        self.annotation_file = _listed(part.annotation_file for part in self.parts)
        self.image_folder = _listed(part.image_folder for part in self.parts)
        self.num_missing = sum(getattr(part, "num_missing", 0) for part in self.parts)

    def class_labels(self, key: str) -> ClassLabels:
        """The classes that each sample shows, of all parts; ``key`` is of the config, for messages."""
        return joined_labels([class_labels_of(part, key) for part in self.parts])

    @property
    def left_out(self) -> dict[str, str]:
        """Why images are left out, by their names, of all parts."""
        return {image: reason for part in self.parts for image, reason in getattr(part, "left_out", {}).items()}

    def picture_size(self) -> tuple[int, int] | None:
        """Height and width of the pictures that all pipelines give, in pixels; None if they differ."""
        sizes = {part.picture_size() for part in self.parts}
        return sizes.pop() if len(sizes) == 1 else None


@DATASETS.register_module()
class RepeatDataset(_Joined):
    """A data set whose images are visited several times in an epoch, each time with other draws.

    The k-th visit in epoch e has the draws of epoch ``e * times + k`` of the data set alone.

    Args:
        dataset: config of the data set.
        times: visits of each image in an epoch, at least 1.

    Raises:
        UserError: if ``times`` is less than 1.
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
        """The classes that each sample shows: the images of the data set, ``times`` times."""
        return joined_labels([class_labels_of(self.parts[0], key)], self.times)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """The sample for ``(epoch, index)``; an index alone is of epoch 0."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        visit, index = divmod(index, len(self.parts[0]))
        sample: dict[str, Any] = self.parts[0][epoch * self.times + visit, index]
        return sample


@DATASETS.register_module()
class ConcatDataset(_Joined):
    """Several data sets of the same classes, one after the other.

    The first decides on the classes, which the others must have in the same order; a CSV file may lack some. Where a
    config has a ``seed``, each part after the first gets one of its own, a function of it and of the part's number.

    Args:
        datasets: their configs.

    Raises:
        UserError: if there is no data set, or the classes of one differ from the first's.
    """

    def __init__(self, datasets: Sequence[Mapping[str, Any]]) -> None:
        if not datasets:
            raise UserError("ConcatDataset: datasets is empty; list at least one")
        parts: list[Any] = [DATASETS.build(dict(datasets[0]))]
        for number, config in enumerate(datasets[1:], 1):
            part = DATASETS.build(_like_first(config, number, parts[0].classes))
            if tuple(part.classes) != tuple(parts[0].classes):
                files = f"{part.annotation_file} are not those of {parts[0].annotation_file}"
                raise UserError(f"ConcatDataset: the classes of {files}, in the same order; give both `classes`")
            parts.append(part)
        super().__init__(parts)
        self.ends = list(accumulate(len(part) for part in parts))

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """The sample for ``(epoch, index)``; an index alone is of epoch 0."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        number = bisect_right(self.ends, index)
        part = self.parts[number]
        sample: dict[str, Any] = part[epoch, index - self.ends[number] + len(part)]
        return sample


def _like_first(config: Mapping[str, Any], number: int, classes: Sequence[str]) -> dict[str, Any]:
    """The config of a further part, with the first one's classes and draws of its own."""
    part = dict(config)
    kind = DATASETS.get(str(part.get("type")))
    if kind is not None and takes_argument(kind, "classes"):
        part.setdefault("classes", tuple(classes))
    if isinstance(part.get("seed"), int):
        part["seed"] = int(np.random.SeedSequence([part["seed"], number]).generate_state(1)[0])
    return part


def _listed(names: Any) -> str:
    return " and ".join(dict.fromkeys(map(str, names)))
