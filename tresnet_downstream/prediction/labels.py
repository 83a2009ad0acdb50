"""Probabilities of labels of pictures, in batches: with a network in torch as with an exported file."""

import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from tresnet_downstream.errors import UserError, is_out_of_memory
from tresnet_downstream.pictures import BadImageError, Picture, pixels_of
from tresnet_downstream.prediction.preparation import Preparation


class Predictor(Protocol):
    """What prediction asks of a network: an ``ImageClassifier``, fused or not, or an ``ExportedClassifier``.

    Attributes:
        classes: names of the classes, in the order of the probabilities.
        pipeline: the transforms that bring a picture to the size wanted.
        multi_label: whether probabilities are one sigmoid for each class, or one softmax over all.
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
        """The pipeline as a function of a picture."""
        ...

    def predict_batch(self, images: np.ndarray) -> np.ndarray:
        """Probabilities, N x C in float32, for uint8 pictures N x H x W x 3."""
        ...


@dataclass(frozen=True)
class Prediction:
    """What a network finds in one picture.

    Attributes:
        image: the picture, as it was given.
        probabilities: C values in [0, 1]; None for a picture that cannot be read.
        error: why it cannot be read, in one line.
    """

    image: Picture
    probabilities: np.ndarray | None
    error: str = ""


def predict(model: Predictor, images: Picture | Iterable[Picture], batch_size: int = 16) -> np.ndarray:
    """Probabilities of every class for every picture, prepared as the model's weights want it.

    Args:
        model: from :func:`load_model`, or an exported one; runs where it is, in its own precision.
        images: a picture or several: files, Pillow images, or uint8 arrays of shape (height, width, 3) in RGB. A Pillow
            image is treated as its file would be: turned upright by its EXIF orientation, 16 bits scaled to 8.
        batch_size: pictures that go through the network together.

    Returns:
        float32 of shape (pictures, C): a sigmoid for each class of a multi-label model, otherwise a softmax.

    Raises:
        UserError: for a picture that cannot be read, a model that does not say how pictures are prepared, and a
            batch that does not fit in memory; says which does.
    """
    several = [images] if isinstance(images, str | os.PathLike | Image.Image | np.ndarray) else images
    rows = []
    for prediction in predict_each(model, several, batch_size):
        if prediction.probabilities is None:
            raise BadImageError(prediction.error)
        rows.append(prediction.probabilities)
    width = len(model.classes or ())
    return np.stack(rows) if rows else np.zeros((0, width), np.float32)


def predict_each(model: Predictor, images: Iterable[Picture], batch_size: int = 16) -> Iterator[Prediction]:
    """As :func:`predict`, one picture after the other as they come; those that cannot be read say why."""
    if not model.pipeline:
        raise UserError("the model does not say how pictures are prepared: load it with load_model")
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size}: give a whole number, at least 1")
    if model.training:
        raise UserError("the model is in training mode: call model.eval() first")
    prepare = model.preparation()

    def prepared(image: Picture) -> np.ndarray | str:
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


def _ahead(work: Any, items: Iterable[Picture], count: int) -> Iterator[tuple[Picture, Any]]:
    """Results in order, of which up to ``count`` are prepared while the network runs."""
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        waiting: deque[tuple[Picture, Future[Any]]] = deque()
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


def _batches(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
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
    advice = f"{fitting} did: give `batch_size` {fitting}" if fitting else "nor does a single one; use smaller pictures"
    raise UserError(
        f"a batch of {size} pictures of {images.shape[1]} x {images.shape[2]} does not fit in memory; {advice}"
    )


def _largest_that_fits(model: Predictor, images: np.ndarray) -> int:
    """The largest half, quarter and so on of a batch that goes through; 0 if not even one picture does."""
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
    """The classes that a picture shows, likeliest first.

    Args:
        probabilities: C values.
        classes: C names.
        threshold: what a probability must be above; (C,) where each class has its own; None for none.
        top_k: how many at most; None for all.
    """
    chosen = chosen_classes(probabilities, threshold, top_k)
    return [(classes[index], float(probabilities[index])) for index in chosen]


def chosen_classes(probabilities: np.ndarray, threshold: float | np.ndarray | None, top_k: int | None) -> list[int]:
    """The numbers of the classes that :func:`labels_of` names."""
    above = probabilities > np.asarray(-np.inf if threshold is None else threshold, np.float64)
    return [int(index) for index in np.argsort(-probabilities, kind="stable") if above[index]][:top_k]
