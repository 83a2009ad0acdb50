"""Multi-label data sets, and the sampler that determines the order of an epoch.

MMEngine seeds its workers the same way in every epoch, and Albumentations has generators of its own, so that random
draws would repeat. Here every draw is a function of seed, epoch and sample index alone. It does not depend on the
number of workers or processes, or on the order of samples. The sampler therefore yields pairs (epoch, index), which
reach persistent workers too.
"""

import json
import os
import random
from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import torch
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Dataset, Sampler, default_collate

from tresnet_downstream.bad_images import first_readable, require_images, require_on_bad_image
from tresnet_downstream.classification.annotation_cache import cached_annotations
from tresnet_downstream.classification.annotations import MultilabelAnnotations
from tresnet_downstream.classification.class_labels import ClassLabels, class_labels_of
from tresnet_downstream.classification.sampling import visits_by
from tresnet_downstream.classification.transforms import build_pipeline, enough_pixels
from tresnet_downstream.errors import UserError
from tresnet_downstream.image_paths import missing_images
from tresnet_downstream.images import read_image
from tresnet_downstream.registry import DATA_SAMPLERS, DATASETS, FUNCTIONS

if TYPE_CHECKING:
    import albumentations

WHERE_TO_GET_DATA = (
    "MS-COCO is downloaded from cocodataset.org (train2014.zip, val2014.zip, annotations_trainval2014.zip, "
    "or the same of 2017)"
)
# Side of the black image that replaces one that is left out. It is larger than the crops of usual pipelines.
_BLACK_SIDE = 1024


class Sample(TypedDict):
    """A sample of the data sets of this package.

    Attributes:
        inputs: uint8 of shape (3, height, width), RGB, in channels-last memory layout.
        targets: int8 of shape (C,): 1 shown, 0 not shown, -1 unverified; with one label per image, the class index.
        image: the name of the image.
        skipped: number of unreadable images that were skipped before this one.
        passed_over: from the names of these images to the reasons, as the text of a JSON object; empty if there are
            none.
        unreadable: the reason if ``on_bad_image="leave_out"`` and the image cannot be read; otherwise empty.
    """

    inputs: torch.Tensor
    targets: torch.Tensor | int
    image: str
    skipped: int
    passed_over: str
    unreadable: str


class Batch(TypedDict, total=False):
    """N samples, as :func:`collate_images` collates them. Those of a user's data set may have fewer keys.

    Attributes:
        inputs: uint8 of shape (N, 3, height, width); after the data preprocessor, floats in [0, 1].
        targets: int8 of shape (N, C); with one label per image, N class indices.
        image: the names of the images.
        skipped: N numbers, see :class:`Sample`.
        passed_over: see :class:`Sample`.
        unreadable: see :class:`Sample`.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    image: list[str]
    skipped: torch.Tensor
    passed_over: list[str]
    unreadable: list[str]


@DATASETS.register_module()
class MultiLabelDataset(Dataset[Sample]):
    """Images with a target for each class.

    A sample is accessed by an index (epoch 0) or a pair (epoch, index), and is a dictionary, see `Sample`.

    The EXIF orientation is applied, unlike in the published code.

    Args:
        annotation_file: COCO ``.json`` file, ``.csv`` table or PASCAL VOC's ``.txt`` list, see `read_annotations`;
            relative to ``data_root``.
        image_folder: folder of the images, which the names in the annotations are relative to; relative to
            ``data_root``.
        pipeline: configs of the transforms, see `build_pipeline`. Their results must be uint8 images of one size.
        data_root: folder of the data set.
        classes: class names of the targets, in this order; None for those of the file.
        keep_empty: whether images without annotation are kept.
        difficult: the target of a class of which an image shows only objects that PASCAL VOC marks as difficult:
            ``unknown`` or ``positive``.
        on_bad_image: what to do if an image cannot be read. ``error`` raises an error. ``skip`` takes the next readable
            image in the order of the annotations, with the random draws of the original sample. ``leave_out`` is for
            scoring: it returns a black image with the reason in ``unreadable``, and `MultilabelMetric` leaves it out.
        reduced_decoding: whether large JPEG files are decoded at 1/2, 1/4 or 1/8 of their size, if this is at least the
            size to which the pipeline first squashes images. This is much faster, but changes pixels slightly, so it
            should be used for training only.
        cache_dir: folder for the parsed content of large annotation files, see `cached_annotations`; None for no cache.
        outside_paths: whether images may be outside of ``image_folder``, by ``..``, absolute paths or symbolic links
            below it. The folder itself may always be a link.
        seed: seed of the random draws of the pipeline, 0 to 2**32 - 1.
        source: where the data can be downloaded, for the message if ``data_root`` does not exist.

    Attributes:
        annotations: the `MultilabelAnnotations`.
        annotation_file: path of the annotation file.
        image_folder: path of the folder of images.
        classes: the class names.
        num_missing: number of missing image files, if ``on_bad_image`` is not ``error``.
        metainfo: dictionary of ``classes``, which MMEngine reads.

    Raises:
        UserError: if a file, folder or image is missing, an image is outside of the folder, the annotations or the
            pipeline are invalid, or an argument has an invalid value.

    Examples:
        >>> import pathlib, cv2
        >>> _ = cv2.imwrite("cat.png", np.zeros((32, 32, 3), np.uint8))
        >>> _ = pathlib.Path("labels.csv").write_text("cat.png,cat;dog")
        >>> dataset = MultiLabelDataset("labels.csv", ".", [{"type": "SquashResize", "size": 16}])
        >>> dataset.classes, dataset[0]["targets"].tolist(), dataset[0]["inputs"].shape
        (('cat', 'dog'), [1, 1], torch.Size([3, 16, 16]))
    """

    def __init__(
        self,
        annotation_file: str | None,
        image_folder: str,
        pipeline: Sequence[Mapping[str, Any]],
        data_root: str = "",
        classes: Sequence[str] | None = None,
        keep_empty: bool = False,
        difficult: str = "unknown",
        on_bad_image: str = "error",
        reduced_decoding: bool = False,
        cache_dir: str | None = None,
        outside_paths: bool = False,
        seed: int = 0,
        source: str = WHERE_TO_GET_DATA,
    ) -> None:
        require_on_bad_image(on_bad_image)
        if not 0 <= seed < 2**32:
            raise UserError(f"seed: {seed} is not between 0 and 2**32 - 1")
        self.pipeline = build_pipeline(pipeline)
        self.enough_pixels = enough_pixels(self.pipeline) if reduced_decoding else None
        self.image_folder = locate(data_root, "image_folder", image_folder, source)
        # Without an annotation file, the subfolders of the folder are the classes.
        self.annotation_file = self.image_folder
        if annotation_file is not None:
            self.annotation_file = locate(data_root, "annotation_file", annotation_file, source)
        self.annotations = self.read_annotations(classes, keep_empty, cache_dir, difficult)
        self.on_bad_image = on_bad_image
        self.num_missing = self._count_missing_images(outside_paths)
        self.classes = self.annotations.classes
        self.metainfo = {"classes": self.classes}
        self.seed = seed

    def read_annotations(
        self, classes: Sequence[str] | None, keep_empty: bool, cache_dir: str | None, difficult: str
    ) -> MultilabelAnnotations:
        """Reads the annotation file."""
        return cached_annotations(self.annotation_file, classes, keep_empty, cache_dir, difficult)

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        image, passed_over, unreadable = first_readable(
            self._read, self.annotations.path, index, len(self), self.on_bad_image
        )
        if image is None:
            image = np.zeros((_BLACK_SIDE, _BLACK_SIDE, 3), np.uint8)
        index_of_image = (index + len(passed_over)) % len(self)
        return {
            "inputs": torch.from_numpy(self._augment(image, epoch, index)).permute(2, 0, 1),
            "targets": self.target(index_of_image),
            "image": self.annotations.path(index_of_image),
            "skipped": len(passed_over),
            "passed_over": json.dumps(passed_over) if passed_over else "",
            "unreadable": unreadable,
        }

    def target(self, index: int) -> torch.Tensor | int:
        """The target of a sample: int8 of shape (C,), 1 shown, 0 not shown, -1 unverified."""
        return torch.from_numpy(self.annotations.target(index))

    def class_labels(self, key: str) -> ClassLabels:
        """The classes that each image shows. ``key`` is the config key that needs them, for messages."""
        annotations = self.annotations
        is_positive = annotations.values == 1
        positives_before = np.concatenate([[0], np.cumsum(is_positive)])
        return ClassLabels(
            classes=annotations.classes,
            indptr=positives_before[annotations.indptr].astype(np.int64),
            indices=annotations.indices[is_positive],
            unknown=annotations.unknown_per_class(),
            images=annotations.positives_per_class(),
        )

    @property
    def left_out(self) -> dict[str, str]:
        """From the names of images of the annotation file that are not samples to the reasons."""
        return dict.fromkeys(self.annotations.unlabelled(), "has no label")

    def image_paths(self) -> list[str]:
        """The paths of all images."""
        return [os.path.join(self.image_folder, path) for path in self.annotations.paths()]

    def image_size(self) -> tuple[int, int] | None:
        """Height and width of images after the pipeline, in pixels; None if they depend on the size of the file."""
        sides = ((_BLACK_SIDE, _BLACK_SIDE), (_BLACK_SIDE * 3 // 4, _BLACK_SIDE))
        try:
            sizes = {self._augment(np.zeros((*side, 3), np.uint8), 0, 0).shape[:2] for side in sides}
        except UserError:
            raise
        except Exception:
            return None  # such as a crop that is larger than these images; Albumentations raises errors of any type
        return sizes.pop() if len(sizes) == 1 else None

    def _count_missing_images(self, outside_paths: bool) -> int:
        missing = missing_images(self.image_folder, self.annotations.paths(), self.annotation_file, outside_paths)
        require_images("image_folder", self.image_folder, missing, len(self), self.on_bad_image)
        return len(missing)

    def _read(self, place: int) -> np.ndarray:
        return read_image(os.path.join(self.image_folder, self.annotations.path(place)), self.enough_pixels)

    def _augment(self, image: np.ndarray, epoch: int, index: int) -> np.ndarray:
        return augment(self.pipeline, image, self.seed, epoch, index)


def augment(pipeline: "albumentations.Compose", image: np.ndarray, seed: int, epoch: int, index: int) -> np.ndarray:
    """Applies a pipeline with random draws that are a function of seed, epoch and index alone.

    Args:
        pipeline: the result of `build_pipeline`.
        image: uint8 of shape (height, width, 3), RGB.
        seed: seed of the run.
        epoch: number of the epoch, counted from 0.
        index: index of the sample in its data set.

    Returns:
        The transformed image, uint8 of shape (height, width, 3).

    Raises:
        UserError: if the pipeline returns something else.
    """
    # One pair of generators for the whole pipeline. `set_random_seed` would give every transform the same seed.
    generator = np.random.default_rng([seed, epoch, index])
    pipeline.set_random_state(generator, random.Random(generator.bytes(32)))
    image = pipeline(image=image)["image"]
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape[2:] != (3,):
        raise UserError(
            "pipeline: does not return a uint8 image with 3 channels; leave out Normalize, ToFloat and ToTensorV2, "
            "since the model scales images"
        )
    return np.require(image, requirements=["C", "W"])


@FUNCTIONS.register_module()  # type: ignore[untyped-decorator]
def collate_images(samples: Sequence[Sample]) -> Batch:
    """Collates samples of `MultiLabelDataset` into a batch, as torch's ``default_collate``.

    ``inputs`` becomes uint8 of shape (N, 3, height, width) in channels-last layout, which is the layout of samples and
    of the networks. Each image is therefore copied once, as one block.
    """
    channels_last = [{**sample, "inputs": sample["inputs"].permute(1, 2, 0)} for sample in samples]
    batch: Batch = default_collate(channels_last)
    batch["inputs"] = batch["inputs"].permute(0, 3, 1, 2)
    return batch


@DATA_SAMPLERS.register_module()
class EpochSampler(Sampler[tuple[int, int]]):
    """Yields the samples of an epoch as pairs (epoch, index), which tell workers the epoch.

    The order is a function of seed and epoch. With w processes, rank r takes the samples r, r + w, ... of this order.
    If their number is not divisible by w, the first samples are visited again.

    Every sample is visited once, unless ``sampling`` is set, see :mod:`.sampling`. The number of visits of each sample
    is then drawn for each epoch. Visit k of a sample in epoch e is the pair (``e * most + k``, index), where ``most``
    is the largest number of visits, so that each visit has random draws of its own.

    Args:
        dataset: an object with a length; with ``sampling``, a data set that provides its labels.
        shuffle: whether to permute the samples.
        seed: seed of the permutation, 0 or more. With None, which MMEngine passes for ``diff_rank_seed``, the processes
            agree on a random one.
        sampling: ``repeat_factor`` or ``class_balanced``; None visits every sample once.
        repeat_threshold: classes with a smaller share of the images are repeated by ``repeat_factor``; None for the
            median frequency of the classes.

    Attributes:
        deals_in_turn: True, which means that the batches of all processes together are those of one process with the
            whole batch. A run may therefore be resumed within an epoch with another number of processes.
        visits: the number of visits of each sample; None if each sample is visited once.

    Raises:
        UserError: as :func:`~.sampling.visits_by`, or if ``sampling`` is set and the data set does not provide its
            labels.

    Examples:
        >>> sampler = EpochSampler(range(3), shuffle=False)
        >>> sampler.set_epoch(1)
        >>> list(sampler)
        [(1, 0), (1, 1), (1, 2)]
    """

    deals_in_turn = True

    def __init__(
        self,
        dataset: Sized,
        shuffle: bool = True,
        seed: int | None = 0,
        sampling: str | None = None,
        repeat_threshold: float | None = None,
    ) -> None:
        self.visits = None
        if sampling is not None:
            self.visits = visits_by(sampling, class_labels_of(dataset, "sampling"), repeat_threshold)
        self.length = len(dataset) if self.visits is None else self.visits.length
        self.samples = len(dataset)
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        self.rank, self.world_size = get_dist_info()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epochs, order = self._visited()
        if self.shuffle:
            # The spawn key makes these draws independent of those of the samples.
            permutation = self._generator(1).permutation(len(order))
            epochs, order = epochs[permutation], order[permutation]
        # If they are too short, np.resize repeats both from the beginning.
        epochs, order = (np.resize(values, len(self) * self.world_size) for values in (epochs, order))
        of_this_rank = slice(self.rank, None, self.world_size)
        yield from zip(epochs[of_this_rank].tolist(), order[of_this_rank].tolist(), strict=True)

    def _visited(self) -> tuple[np.ndarray, np.ndarray]:
        """For each visit, in the order of the samples, the epoch that determines its draws, and the sample."""
        samples = np.arange(self.samples)
        if self.visits is None:
            return np.full(self.samples, self.epoch), samples
        counts = self.visits.draw(self._generator(2))
        order = np.repeat(samples, counts)
        visit_number = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        return self.epoch * self.visits.most + visit_number, order

    def _generator(self, key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence([self.seed, self.epoch], spawn_key=(key,)))

    def __len__(self) -> int:
        result: int = -(-self.length // self.world_size)
        return result

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch. MMEngine's `DistSamplerSeedHook` calls this before each epoch."""
        self.epoch = epoch


def locate(data_root: str, key: str, value: str, source: str) -> str:
    """Joins a path to ``data_root`` and checks that it exists.

    Args:
        data_root: the root folder.
        key: ``image_folder`` or ``annotation_file``.
        value: the path, relative to ``data_root`` or absolute.
        source: where the data can be downloaded, for messages.

    Raises:
        UserError: if the folder or file does not exist.
    """
    path = os.path.join(data_root, value)
    exists = os.path.isdir if key == "image_folder" else os.path.isfile
    if exists(path):
        return path
    if data_root and not os.path.isabs(value) and not os.path.isdir(data_root):
        raise UserError(f"data_root: no folder {data_root}; {source}; `options` data_root=PATH names another place")
    what = "folder" if key == "image_folder" else "file"
    raise UserError(f"{key}: no {what} {path}; set {key}, or data_root if the data set is elsewhere")
