"""Images with multi-label targets, and the order in which an epoch visits them.

MMEngine seeds its workers alike in every epoch, and Albumentations keeps generators of its own, so draws
would repeat. Here every draw is a function of seed, epoch and sample index and of nothing else: not of the
number of workers or processes, not of the order of samples. For that the sampler gives pairs (epoch, index),
which reach persistent workers as well.
"""

import json
import os
import random
from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import Any

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
from tresnet_downstream.pictures import read_image
from tresnet_downstream.registry import DATA_SAMPLERS, DATASETS, FUNCTIONS

WHERE_TO_GET_DATA = (
    "MS-COCO is downloaded from cocodataset.org (train2014.zip, val2014.zip, annotations_trainval2014.zip, "
    "or the same of 2017)"
)
# Of the picture that stands in where one is left out: no less than what a pipeline may crop.
_BLACK_SIDE = 1024


@DATASETS.register_module()
class MultiLabelDataset(Dataset[dict[str, Any]]):
    """Images, each with a target for every class.

    A sample is asked for by index (epoch 0) or by a pair (epoch, index) and is a dictionary:

    - ``inputs``: uint8 tensor of shape (3, height, width), RGB, 0 to 255; the colours of a pixel lie side by side;
    - ``targets``: int8 tensor of shape (C,): 1 shown, 0 not shown, -1 unverified;
    - ``image``: the file's name as the annotations have it;
    - ``skipped``: how many unreadable images were passed over to find this one;
    - ``passed_over``: why those cannot be read, by name, as the text of a JSON object; empty if there are none;
    - ``unreadable``: with ``on_bad_image="leave_out"``, why the image cannot be read; otherwise empty.

    The published code ignores the EXIF orientation; this honours it.

    Args:
        annotation_file: COCO ``.json`` file, ``.csv`` table or VOC's ``.txt`` list, see `read_annotations`; relative to
            ``data_root``.
        image_folder: what the names in the annotations are relative to; relative to ``data_root`` itself.
        pipeline: the transforms, see `build_pipeline`; they end in uint8 pictures of one fixed size.
        data_root: folder of the data set.
        classes: class names that the targets must have, in this order; None takes those of the file.
        keep_empty: whether images without annotation stay.
        difficult: what objects that VOC marks as difficult say of their image: ``unknown`` or ``positive``.
        on_bad_image: at an unreadable image, ``error`` raises and ``skip`` takes the next readable one in the
            order of the annotations, with the draws of the sample that was asked for. ``leave_out`` is for
            scoring: the sample is black and says why in ``unreadable``, and `MultilabelMetric` leaves it out.
        reduced_decoding: whether a JPEG file of at least twice the size that the pipeline begins by squashing to is
            decoded at 1/2, 1/4 or 1/8: much quicker, and for training, since the pixels differ by some levels.
        cache_dir: folder in which what a large annotation file says is kept for later starts, see
            `cached_annotations`; None for no cache.
        outside_paths: whether the names of images may lead out of ``image_folder``, by ``..``, absolute paths or
            symbolic links below it; the folder itself may always be a link.
        seed: of the pipeline's draws, 0 to 2**32 - 1.
        source: where the data comes from, told if ``data_root`` is not there.

    Attributes:
        annotations: the `MultilabelAnnotations`.
        annotation_file: the path of their file.
        image_folder: the path of the folder of images.
        classes: the class names.
        num_missing: images whose files are not there, with ``on_bad_image`` other than ``error``.
        metainfo: dictionary of ``classes``, where MMEngine looks for it.

    Raises:
        UserError: a file, folder or image is missing, an image lies outside the folder, the annotations or the pipeline
            are wrong, or an option has a value that does not exist.
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
        # Where the labels come from: the folder itself where its subfolders are the classes.
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
        """What the annotation file says."""
        return cached_annotations(self.annotation_file, classes, keep_empty, cache_dir, difficult)

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        image, passed_over, unreadable = first_readable(
            self._read, self.annotations.path, index, len(self), self.on_bad_image
        )
        if image is None:
            image = np.zeros((_BLACK_SIDE, _BLACK_SIDE, 3), np.uint8)
        shown = (index + len(passed_over)) % len(self)
        return {
            "inputs": torch.from_numpy(self._augment(image, epoch, index)).permute(2, 0, 1),
            "targets": self.target(shown),
            "image": self.annotations.path(shown),
            "skipped": len(passed_over),
            "passed_over": json.dumps(passed_over) if passed_over else "",
            "unreadable": unreadable,
        }

    def target(self, index: int) -> Any:
        """The target of a sample: int8 of shape (C,), 1 shown, 0 not shown, -1 unverified."""
        return torch.from_numpy(self.annotations.target(index))

    def class_labels(self, key: str) -> ClassLabels:
        """The classes that each image shows; ``key`` is of the config, for messages."""
        annotations = self.annotations
        shown = annotations.values == 1
        before = np.concatenate([[0], np.cumsum(shown)])
        return ClassLabels(
            classes=annotations.classes,
            indptr=before[annotations.indptr].astype(np.int64),
            indices=annotations.indices[shown],
            unknown=annotations.unknown_per_class(),
            images=annotations.positives_per_class(),
        )

    @property
    def left_out(self) -> dict[str, str]:
        """Why images of the annotation file are no samples, by name."""
        return dict.fromkeys(self.annotations.unlabelled(), "has no label")

    def image_paths(self) -> list[str]:
        """The paths of all images."""
        return [os.path.join(self.image_folder, path) for path in self.annotations.paths()]

    def picture_size(self) -> tuple[int, int] | None:
        """Height and width of the pictures that the pipeline gives, in pixels; None if they depend on the file's."""
        sides = ((_BLACK_SIDE, _BLACK_SIDE), (_BLACK_SIDE * 3 // 4, _BLACK_SIDE))
        try:
            sizes = {self._augment(np.zeros((*side, 3), np.uint8), 0, 0).shape[:2] for side in sides}
        except UserError:
            raise
        except Exception:
            return None  # such as a crop larger than these: whatever Albumentations raises
        return sizes.pop() if len(sizes) == 1 else None

    def _count_missing_images(self, outside_paths: bool) -> int:
        missing = missing_images(self.image_folder, self.annotations.paths(), self.annotation_file, outside_paths)
        require_images("image_folder", self.image_folder, missing, len(self), self.on_bad_image)
        return len(missing)

    def _read(self, place: int) -> np.ndarray:
        return read_image(os.path.join(self.image_folder, self.annotations.path(place)), self.enough_pixels)

    def _augment(self, image: np.ndarray, epoch: int, index: int) -> np.ndarray:
        return augment(self.pipeline, image, self.seed, epoch, index)


def augment(pipeline: Any, image: np.ndarray, seed: int, epoch: int, index: int) -> np.ndarray:
    """Runs a pipeline with the draws of one sample, which are a function of seed, epoch and index alone.

    Args:
        pipeline: from `build_pipeline`.
        image: uint8 of shape (height, width, 3), RGB.
        seed: of the run.
        epoch: counted from 0.
        index: of the sample in its data set.

    Returns:
        uint8 of shape (height, width, 3).

    Raises:
        UserError: if the pipeline gives something else.
    """
    # One pair of generators for the whole pipeline: `set_random_seed` would start every transform alike.
    generator = np.random.default_rng([seed, epoch, index])
    pipeline.set_random_state(generator, random.Random(generator.bytes(32)))
    image = pipeline(image=image)["image"]
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape[2:] != (3,):
        raise UserError(
            "pipeline: gives no uint8 picture with 3 channels; leave out Normalize, ToFloat and ToTensorV2: "
            "scaling is the model's part"
        )
    return np.require(image, requirements=["C", "W"])


@FUNCTIONS.register_module()
def collate_pictures(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Makes samples of `MultiLabelDataset` a batch, as torch's ``default_collate`` does.

    ``inputs`` becomes channels-last, uint8 of shape (N, 3, height, width): that is how the samples lie and what the
    networks compute in, so every picture is copied once, whole.
    """
    side_by_side = [{**sample, "inputs": sample["inputs"].permute(1, 2, 0)} for sample in samples]
    batch: dict[str, Any] = default_collate(side_by_side)
    batch["inputs"] = batch["inputs"].permute(0, 3, 1, 2)
    return batch


@DATA_SAMPLERS.register_module()
class EpochSampler(Sampler[tuple[int, int]]):
    """Visits the samples of an epoch and gives pairs (epoch, index), by which workers learn the epoch.

    The order is a function of seed and epoch. Of several processes, rank r of w takes the samples
    r, r + w, ... of it; where they do not come out even, the first samples are visited again.

    Every sample is visited once, unless ``sampling`` says otherwise: see :mod:`.sampling`. The number of visits of each
    sample is then drawn for each epoch. Visit k of a sample in epoch e has the draws of epoch ``e * most + k``, where
    ``most`` is the greatest number of visits: the pair that is given has that number.

    Args:
        dataset: anything with a length.
        shuffle: whether to permute the samples.
        seed: of the permutation, 0 or more; None, which MMEngine passes for ``diff_rank_seed``, has the
            processes agree on one.
        sampling: ``repeat_factor`` or ``class_balanced``; None visits every sample once.
        repeat_threshold: share of the images below which ``repeat_factor`` repeats a class; None takes the median
            frequency of the classes.

    Attributes:
        deals_in_turn: True: the batches of all processes together are those of one process with the whole batch, so a
            run may be resumed with another number of processes within an epoch.
        visits: how often each sample is visited; None if each is once.

    Raises:
        UserError: as :func:`~.sampling.visits_by`, and with ``sampling`` for a data set that does not tell its labels.
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
            # The spawn key keeps these draws apart from those of the samples.
            permutation = self._generator(1).permutation(len(order))
            epochs, order = epochs[permutation], order[permutation]
        # Both repeat alike where they are too short.
        epochs, order = (np.resize(values, len(self) * self.world_size) for values in (epochs, order))
        mine = slice(self.rank, None, self.world_size)
        yield from zip(epochs[mine].tolist(), order[mine].tolist(), strict=True)

    def _visited(self) -> tuple[np.ndarray, np.ndarray]:
        """The epoch whose draws each visit has, and its sample, in the order of the samples."""
        samples = np.arange(self.samples)
        if self.visits is None:
            return np.full(self.samples, self.epoch), samples
        counts = self.visits.draw(self._generator(2))
        order = np.repeat(samples, counts)
        number = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        return self.epoch * self.visits.most + number, order

    def _generator(self, key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence([self.seed, self.epoch], spawn_key=(key,)))

    def __len__(self) -> int:
        return -(-self.length // self.world_size)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next; MMEngine's `DistSamplerSeedHook` does so before each."""
        self.epoch = epoch


def locate(data_root: str, key: str, value: str, source: str) -> str:
    """Join the path that stands under ``key`` to the root, and say what is missing if it is not there."""
    path = os.path.join(data_root, value)
    is_there = os.path.isdir if key == "image_folder" else os.path.isfile
    if is_there(path):
        return path
    if data_root and not os.path.isabs(value) and not os.path.isdir(data_root):
        raise UserError(f"data_root: no folder {data_root}; {source}; `options` data_root=PATH names another place")
    what = "folder" if key == "image_folder" else "file"
    raise UserError(f"{key}: no {what} {path}; set {key}, or data_root if the data set lies elsewhere")
