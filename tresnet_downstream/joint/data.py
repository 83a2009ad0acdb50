"""Data sets of images with labels, some of which also have boxes, and batches of one kind of image."""

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import Sampler

from tresnet_downstream.bad_images import require_images
from tresnet_downstream.classification.annotations import MultilabelAnnotations, of_labelled_images
from tresnet_downstream.detection.datasets import CocoBoxes
from tresnet_downstream.detection.loading import ImageRecord
from tresnet_downstream.errors import UserError
from tresnet_downstream.formats import read_file
from tresnet_downstream.image_paths import missing_images
from tresnet_downstream.joint.runner import require_classes
from tresnet_downstream.notices import tell
from tresnet_downstream.registry import DATA_SAMPLERS, DATASETS


@DATASETS.register_module()
class LabelledBoxes(CocoBoxes):
    """Images with boxes, and a label file for these and further images.

    The labels of an image are those in the label file. They do not depend on its boxes or on the augmentation. The
    labels of an image that is not in the label file are the classes of its boxes. Images that are only in the label
    file follow the others; they have no boxes and train only the labels. The number of both kinds is printed.

    Args:
        *args: see :class:`CocoBoxes`.
        labels: ``ann_file``, a label file (COCO, table or VOC) with the classes of the boxes; ``images``, the folder of
            its images, by default that of the images with boxes; ``keep_empty`` and ``difficult``, see
            :class:`MultiLabelDataset`.
        **kwargs: see :class:`CocoBoxes`.

    Raises:
        UserError: if the classes of the two files differ, an image is missing, or the pipeline mixes images.
    """

    def __init__(self, *args: Any, labels: Mapping[str, Any], **kwargs: Any) -> None:
        if unknown := set(labels) - {"ann_file", "images", "keep_empty", "difficult"}:
            raise UserError(f"labels.train.{sorted(unknown)[0]}: is not a key; there are ann_file, images, keep_empty")
        if not labels.get("ann_file"):
            raise UserError("labels.train.ann_file: name the label file, or leave `labels.train` out")
        self.label_options = dict(labels)
        self.labels: MultilabelAnnotations | None = None
        self.paths_alone: list[str] = []
        self.columns: list[int] = []  # columns of the label file, in the order of the classes of boxes
        super().__init__(*args, **kwargs)
        if mixing := next(_mixing(self.pipeline), None):
            raise UserError(
                f"train_dataloader.dataset.pipeline: {mixing} mixes images, but the label file has labels of whole "
                "images: leave it out, or use the labels of the boxes (no `labels.train`)"
            )

    def full_init(self) -> None:
        """Reads the data as MMEngine does, and finds the images with boxes, also if ``indices`` selects images."""
        if self._fully_initialized:
            return
        super().full_init()
        records = map(self.get_data_info, range(len(self)))
        self.with_boxes = np.array([record.get("has_boxes", True) for record in records])

    def prepare_data(self, idx: int) -> object:
        """As :class:`CocoBoxes`, but an image that the pipeline leaves out is replaced by one of the same kind.

        The two kinds are images with boxes and images without.
        """
        sample = super().prepare_data(idx)
        for _ in range(self.max_refetch):
            if sample is not None:
                break
            # A step of the pipeline left the image out. MMEngine would replace it by an image of any kind.
            sample = super().prepare_data(int(np.random.choice(self._alike(idx)[0])))  # noqa: NPY002 - as MMEngine
        return sample

    def image_paths(self) -> list[str]:
        """The paths of the images with boxes and of those with only labels."""
        return [*super().image_paths(), *self.paths_alone]

    def _alike(self, idx: int) -> tuple[Sequence[int] | np.ndarray, int]:
        places = np.flatnonzero(self.with_boxes == self.with_boxes[idx])
        return places, int(np.searchsorted(places, idx))

    def filter_data(self) -> list[ImageRecord]:
        """Leaves out images as :class:`CocoBoxes` does, and adds those that have only labels."""
        with_boxes = super().filter_data()
        self.labels = labels = self._read_labels()
        self.columns = [labels.classes.index(name) for name in self._metainfo["classes"]]
        folder = self.label_options.get("images") or self._image_folder
        # Compared by path, since the two files may name images in different folders.
        paths = [os.path.abspath(os.path.join(folder, name)) for name in labels.paths()]
        places = {path: place for place, path in enumerate(paths)}
        without_labels = []
        for record in with_boxes:
            record["label_row"] = places.get(os.path.abspath(record["img_path"]), -1)
            if record["label_row"] < 0:
                without_labels.append(self._name_of(record))
        listed = {os.path.abspath(record["img_path"]) for record in with_boxes}
        added = [name for name, path in zip(labels.paths(), paths, strict=True) if path not in listed]
        names = {os.path.normpath(self._name_of(record)) for record in with_boxes}
        if ambiguous := next((name for name in added if os.path.normpath(name) in names), None):
            # The same name in two folders may stand for two images.
            raise UserError(
                f"{self.label_options['ann_file']}: {ambiguous} is in {folder} and in {self._image_folder}; name one "
                "folder that has the images of both files"
            )
        missing = missing_images(folder, added, self.label_options["ann_file"], self.outside_paths)
        require_images("labels.train.images", folder, missing, len(added), self.on_bad_image)
        self.paths_alone = [os.path.join(folder, name) for name in added]
        next_id = 1 + max((int(record["img_id"]) for record in self.data_list), default=0)
        alone: list[ImageRecord] = [
            {
                "img_id": next_id + number,
                "img_path": os.path.join(folder, name),
                "instances": [],
                "label_row": places[os.path.abspath(os.path.join(folder, name))],
                "has_boxes": False,
                # Unknown until the image is read.
                "height": None,
                "width": None,
            }
            for number, name in enumerate(added)
        ]
        tell(
            f"{self.label_options['ann_file']}: {len(with_boxes):,} images train boxes and labels, {len(alone):,} "
            "only labels"
        )
        if without_labels:
            tell(
                f"{self.label_options['ann_file']}: does not list {len(without_labels):,} of the images with boxes, "
                f"such as {without_labels[0]}; their labels are the classes of their boxes"
            )
        return [*with_boxes, *alone]

    def _read_labels(self) -> MultilabelAnnotations:
        file = self.label_options["ann_file"]
        images = read_file(file)
        classes = tuple(self._metainfo["classes"])
        if set(images.classes) != set(classes):
            require_classes(str(file), images.classes, classes)
        options = {key: self.label_options[key] for key in ("keep_empty", "difficult") if key in self.label_options}
        return of_labelled_images(file, images, **options)

    def _prepared(self, record: ImageRecord) -> object:
        sample = super()._prepared(record)
        if sample is None and not record.get("has_boxes", True):
            raise UserError(
                "train_dataloader.dataset.pipeline: a step leaves out images without boxes, such as FilterAnnotations; "
                "images with only labels need a pipeline without it"
            )
        packed = sample.get("data_samples") if isinstance(sample, Mapping) else None
        if packed is None:
            return sample
        packed.set_metainfo({"has_boxes": record.get("has_boxes", True)})
        if self.labels is not None and record["label_row"] >= 0:
            packed.image_labels = torch.from_numpy(self.labels.target(record["label_row"])[self.columns])
        return sample


@DATA_SAMPLERS.register_module()
class AlternatingBatchSampler(Sampler[list[int]]):
    """Batches of images with boxes and batches of images without, in the order of a sampler.

    A batch is yielded when it is full. Incomplete batches are yielded at the end.

    Args:
        sampler: a ``DefaultSampler`` or ``InfiniteSampler`` of a :class:`LabelledBoxes`.
        batch_size: number of images in a batch.
        drop_last: whether incomplete batches are left out.
        by_shape: whether images with boxes that are wider than high are in separate batches, as in MMDetection's
            ``AspectRatioBatchSampler``.

    Raises:
        UserError: if the sampler has another class.
    """

    def __init__(
        self,
        sampler: DefaultSampler | InfiniteSampler,
        batch_size: int,
        drop_last: bool = False,
        by_shape: bool = False,
    ) -> None:
        if not isinstance(sampler, DefaultSampler | InfiniteSampler):
            raise UserError(
                f"train_dataloader.sampler: with `labels.train` it must be DefaultSampler or InfiniteSampler, not "
                f"{type(sampler).__name__}"
            )
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last
        dataset = sampler.dataset
        # 0: only labels; 1 and 2: with boxes.
        self.kinds = dataset.with_boxes.astype(int)
        if by_shape:
            for index in np.flatnonzero(dataset.with_boxes):
                record = dataset.get_data_info(int(index))
                self.kinds[index] += record["width"] > record["height"]

    def __iter__(self) -> Iterator[list[int]]:
        # Every process draws the batches of all processes, so that all have the same number and kind of batches.
        waiting: dict[int, list[int]] = {}
        rank, count = self.sampler.rank, self.sampler.world_size
        for index in self._order():
            batch = waiting.setdefault(int(self.kinds[index]), [])
            batch.append(index)
            if len(batch) == self.batch_size * count:
                yield batch[rank::count]
                batch.clear()
        if not self.drop_last:
            for batch in waiting.values():
                if batch:
                    yield (batch * count)[: max(len(batch), count)][rank::count]

    def __len__(self) -> int:
        global_batch_size = self.batch_size * self.sampler.world_size
        counts = np.bincount(self.kinds)
        batches = counts // global_batch_size if self.drop_last else -(-counts // global_batch_size)
        return int(batches.sum())

    def _order(self) -> Iterator[int]:
        """The images of all processes in the order of the sampler: those of an epoch, or an infinite sequence."""
        of_all = copy.copy(self.sampler)
        of_all.rank, of_all.world_size = 0, 1
        if isinstance(of_all, InfiniteSampler):
            of_all.indices = of_all._indices_of_rank()
        else:
            of_all.num_samples = of_all.total_size = len(self.kinds)
        return map(int, of_all)


def _mixing(step: object) -> Iterator[str]:
    """The names of the steps of a pipeline, also nested ones, that combine several images."""
    if isinstance(step, list | tuple):
        for nested in step:
            yield from _mixing(nested)
        return
    # MMDetection's Mosaic, MixUp and CopyPaste get further images; CachedMosaic and CachedMixUp have a cache of them.
    if any(hasattr(step, name) for name in ("results_cache", "get_indexes", "get_indices")):
        yield type(step).__name__
    yield from _mixing(getattr(step, "transforms", ()))
