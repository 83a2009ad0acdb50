"""Predicts the probabilities of labels in batches of images, with a network in torch or an exported file."""

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from PIL import Image

from tresnet_downstream.errors import UserError, is_out_of_memory
from tresnet_downstream.images import BadImageError, ImageInput, pixels_of
from tresnet_downstream.prediction.preparation import Preparation

Item = TypeVar("Item")
Result = TypeVar("Result")


class Predictor(Protocol):
    """A classifier: an ``ImageClassifier``, fused or not, or an ``ExportedClassifier``.

    Attributes:
        classes: class names, in the order of the probabilities.
        pipeline: configs of the transforms that prepare an image.
        multi_label: whether probabilities are a sigmoid for each class, or a softmax over all.
        training: whether it is in training mode.
    """

    pipeline: tuple[dict[str, Any], ...]
    multi_label: bool
    training: bool

    @property
    def classes(self) -> tuple[str, ...] | None:
        """See above."""
        ...

    def preparation(self) -> Preparation:
        """A function that prepares an image by the pipeline."""
        ...

    def predict_batch(self, images: np.ndarray) -> np.ndarray:
        """Probabilities, N x C in float32, of prepared uint8 images N x H x W x 3."""
        ...


@dataclass(frozen=True)
class Prediction:
    """The probabilities of the classes in one image.

    Attributes:
        image: the image that was passed to the function.
        probabilities: C values in [0, 1]; None if the image cannot be read.
        error: the reason why it cannot be read, in one line.
    """

    image: ImageInput
    probabilities: np.ndarray | None
    error: str = ""


def predict(model: Predictor, images: ImageInput | Iterable[ImageInput], batch_size: int = 16) -> np.ndarray:
    """Predicts the probability of every class in every image, with the pipeline of the model.

    Args:
        model: a classifier from :func:`load_model`, or an exported one. It runs on its device, in its precision.
        images: an image or several images: files, Pillow images, or uint8 arrays of shape (height, width, 3) in RGB. A
            Pillow image is processed as its file: it is rotated by its EXIF orientation, and 16 bits are scaled to 8.
        batch_size: number of images in a batch.

    Returns:
        float32 of shape (N, C): a sigmoid for each class of a multi-label model, otherwise a softmax.

    Raises:
        UserError: if an image cannot be read, the model has no pipeline or no head, or a batch does not fit in memory.
            For the latter, the message names a batch size that fits.

    Examples:
        >>> from tresnet_downstream.classification import ImageClassifier
        >>> backbone = {"type": "TResNet", "layers": (1, 1, 1, 1), "width": 0.25}
        >>> model = ImageClassifier(backbone, {"type": "LinearHead", "num_classes": 3}, classes=("a", "b", "c")).eval()
        >>> model.pipeline = ({"type": "SquashResize", "size": 32},)
        >>> predict(model, [np.zeros((40, 60, 3), np.uint8)]).shape
        (1, 3)
    """
    image_list = [images] if isinstance(images, str | os.PathLike | Image.Image | np.ndarray) else images
    rows = []
    for prediction in predict_each(model, image_list, batch_size):
        if prediction.probabilities is None:
            raise BadImageError(prediction.error)
        rows.append(prediction.probabilities)
    width = len(model.classes or ())
    return np.stack(rows) if rows else np.zeros((0, width), np.float32)


def predict_each(model: Predictor, images: Iterable[ImageInput], batch_size: int = 16) -> Iterator[Prediction]:
    """As :func:`predict`, but yields a :class:`Prediction` for each image, also for images that cannot be read."""
    if not model.pipeline:
        raise UserError("the model has no pipeline to prepare images: load it with load_model")
    if model.classes == ():
        raise UserError("the model has no head, so it predicts no labels; call it for pooled features")
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size}: give a whole number, at least 1")
    if model.training:
        raise UserError("the model is in training mode: call model.eval() first")
    prepare = model.preparation()

    def prepared(image: ImageInput) -> np.ndarray | str:
        try:
            return prepare(pixels_of(image))
        except BadImageError as error:
            return str(error)

    for batch in _batches(_ahead(prepared, images, 2 * batch_size), batch_size):
        readable = [pixels for _, pixels in batch if isinstance(pixels, np.ndarray)]
        rows = iter(_probabilities(model, np.stack(readable)) if readable else ())
        for image, pixels in batch:
            if isinstance(pixels, str):
                yield Prediction(image, None, pixels)
            else:
                yield Prediction(image, next(rows))


def _ahead(
    work: Callable[[ImageInput], Result], items: Iterable[ImageInput], count: int
) -> Iterator[tuple[ImageInput, Result]]:
    """Yields items with their results, in order. Up to ``count`` results are computed ahead, while the network runs."""
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        waiting: deque[tuple[ImageInput, Future[Result]]] = deque()
        try:
            for item in items:
                waiting.append((item, pool.submit(work, item)))
                if len(waiting) > count:
                    done, future = waiting.popleft()
                    yield done, future.result()
            while waiting:
                done, future = waiting.popleft()
                yield done, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def _batches(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    while batch := list(itertools.islice(items, size)):
        yield batch


def _probabilities(model: Predictor, images: np.ndarray) -> np.ndarray:
    try:
        return model.predict_batch(images)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        size = len(images)
    fitting = _largest_that_fits(model, images)
    advice = f"{fitting} fit: give `batch_size` {fitting}" if fitting else "nor does a single image; use smaller images"
    raise UserError(
        f"a batch of {size} images of {images.shape[1]} x {images.shape[2]} does not fit in memory; {advice}"
    )


def _largest_that_fits(model: Predictor, images: np.ndarray) -> int:
    """The largest of a half, a quarter and so on of a batch that fits in memory; 0 if a single image does not."""
    size = len(images) // 2
    while size:
        try:
            model.predict_batch(images[:size])
            return size
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        size //= 2
    return 0


def labels_of(
    probabilities: np.ndarray, classes: Sequence[str], threshold: float | np.ndarray | None, top_k: int | None
) -> list[tuple[str, float]]:
    """The labels of an image with their probabilities, most probable first.

    Args:
        probabilities: C values.
        classes: C names.
        threshold: labels with a probability above it are returned; (C,) for a threshold for each class; None for all.
        top_k: largest number of labels; None for all.

    Examples:
        >>> labels_of(np.array([0.25, 0.75, 0.5]), ("cat", "dog", "eel"), threshold=0.3, top_k=None)
        [('dog', 0.75), ('eel', 0.5)]
    """
    chosen = chosen_classes(probabilities, threshold, top_k)
    return [(classes[index], float(probabilities[index])) for index in chosen]


def chosen_classes(probabilities: np.ndarray, threshold: float | np.ndarray | None, top_k: int | None) -> list[int]:
    """The class indices of the labels that :func:`labels_of` returns."""
    above = probabilities > np.asarray(-np.inf if threshold is None else threshold, np.float64)
    return [int(index) for index in np.argsort(-probabilities, kind="stable") if above[index]][:top_k]
