"""Verifies published scores of public weights on the same data."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tresnet_downstream.classification.classifier import ImageClassifier
from tresnet_downstream.classification.datasets import MultiLabelDataset
from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation import multilabel_scores
from tresnet_downstream.formats.imagenet_labels import read_imagenet_labels
from tresnet_downstream.images import SUFFIXES
from tresnet_downstream.prediction.labels import predict_each
from tresnet_downstream.weights.catalogue import CATALOGUE, MAP, TOP_1
from tresnet_downstream.weights.public_files import catalogue_name

COCO_VAL = ("annotations/instances_val{year}.json", "val{year}")
VOC_TEST = ("ImageSets/Main/test.txt", "JPEGImages")


@dataclass(frozen=True)
class Verification:
    """A measured score.

    Attributes:
        metric: ``mAP`` or ``top-1``.
        percent: the score.
        num_images: number of images.
    """

    metric: str
    percent: float
    num_images: int


def published_score(source: str) -> float | None:
    """The published score of a name of the catalogue, in percent; None if there is none."""
    name = catalogue_name(source)
    return CATALOGUE[name].score if name else None


def count_images(model: ImageClassifier, data: str | Path, year: int = 2014, labels: str | Path | None = None) -> int:
    """The number of images that :func:`verify` scores."""
    return len(_samples(model, Path(data), year, labels)[0])


def verify(
    model: ImageClassifier,
    data: str | Path,
    year: int = 2014,
    batch_size: int = 16,
    labels: str | Path | None = None,
) -> Iterator[Verification | None]:
    """Scores a network on MS-COCO or PASCAL VOC (mAP), or on ImageNet (top-1), with its own pipeline.

    Args:
        model: a classifier from :func:`load_model`; multi-label with the 80 classes of COCO or the 20 of VOC, or
            single-label with the 1000 of ImageNet.
        data: for COCO, a folder with ``annotations/instances_val2014.json`` and ``val2014/``; for VOC, a folder with
            ``ImageSets/``, ``JPEGImages/`` and ``Annotations/``, with the test list; for ImageNet, a folder with
            ``val/``, or the folder with a subfolder for each class, named by its WordNet number.
        year: year of COCO. Published scores are for 2014.
        batch_size: number of images in a batch.
        labels: the ground truth of ImageNet if its images are in one folder, see `read_imagenet_labels`.

    Yields:
        None after each image, and the score at the end.

    Raises:
        UserError: if the folder does not have this layout, an image cannot be read, or the classes differ.
    """
    images, targets = _samples(model, Path(data), year, labels)
    rows = []
    for prediction in predict_each(model, images, batch_size):
        if prediction.probabilities is None:
            raise UserError(prediction.error)
        rows.append(prediction.probabilities)
        yield None
    probabilities = np.stack(rows)
    if model.multi_label:
        percent = multilabel_scores(probabilities, targets, classes=model.classes).mAP
        yield Verification(MAP, percent, len(images))
    else:
        yield Verification(TOP_1, 100 * float(np.mean(probabilities.argmax(1) == targets)), len(images))


def _samples(model: ImageClassifier, data: Path, year: int, labels: str | Path | None) -> tuple[list[str], np.ndarray]:
    """The paths of images, and the targets or the class index of each."""
    if not data.is_dir():
        raise UserError(f"{data}: no such folder; give the folder of MS-COCO, PASCAL VOC or ImageNet")
    if not model.multi_label:
        return _imagenet(model, data) if labels is None else _flat_imagenet(data, labels)
    return _multi_label(model, data, *(VOC_TEST if (data / "ImageSets").is_dir() else COCO_VAL), year)


def _flat_imagenet(data: Path, labels: str | Path) -> tuple[list[str], np.ndarray]:
    root = data / "val" if (data / "val").is_dir() else data
    names = sorted(path.name for path in root.iterdir() if path.suffix.lower() in SUFFIXES)
    if not names:
        raise UserError(f"{root}: has no image")
    return [str(root / name) for name in names], np.array(read_imagenet_labels(labels, names))


def _multi_label(
    model: ImageClassifier, data: Path, annotations: str, folder: str, year: int
) -> tuple[list[str], np.ndarray]:
    annotations, folder = annotations.format(year=year), folder.format(year=year)
    dataset = MultiLabelDataset(annotations, folder, [], str(data))
    names = tuple(model.classes or ())
    if len(names) != len(dataset.classes):
        raise UserError(f"{data}: has {len(dataset.classes)} classes, but the weights have {len(names)}")
    targets = dataset.annotations.targets()
    if set(names) == set(dataset.classes):
        targets = targets[:, [dataset.classes.index(name) for name in names]]
    elif not all(name.isdigit() for name in names):
        other = sorted(set(names) - set(dataset.classes))[0]
        raise UserError(f"{data}: has no class {other!r}, which the weights have")
    return [str(data / folder / dataset.annotations.path(index)) for index in range(len(dataset))], targets


def _imagenet(model: ImageClassifier, data: Path) -> tuple[list[str], np.ndarray]:
    root = data / "val" if (data / "val").is_dir() else data
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    if len(folders) != len(model.classes or ()):
        raise UserError(
            f"{root}: has {len(folders)} folders of classes, but the weights have {len(model.classes or ())} classes"
        )
    images, numbers = [], []
    for number, folder in enumerate(folders):
        paths = sorted(str(path) for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
        images += paths
        numbers += [number] * len(paths)
    if not images:
        raise UserError(f"{root}: has no image in its folders")
    return images, np.array(numbers)
