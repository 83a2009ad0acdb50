"""Prediction of boxes and masks with a detector."""

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import numpy as np
import torch
from mmdet import models  # noqa: F401 - registers MMDetection's components
from mmdet.datasets import transforms  # noqa: F401 - registers MMDetection's components
from mmdet.registry import MODELS, TASK_UTILS, TRANSFORMS
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from PIL import Image
from torch import Tensor, nn

from tresnet_downstream.errors import UserError, is_out_of_memory
from tresnet_downstream.images import BadImageError, ImageInput, pixels_of
from tresnet_downstream.prediction.boxes import Detections, unread
from tresnet_downstream.running.stored_config import check_stored, few_modules
from tresnet_downstream.weights import locate, read_checkpoint, unwrap
from tresnet_downstream.weights.pretrained import require_match, without_second_names

T = TypeVar("T")
# Steps of a pipeline that read an image or its annotations.
LOADING = (
    *("LoadAnnotations", "LoadEmptyAnnotations", "LoadImageFromFile", "LoadImageFromNDArray"),
    *("LoadPanopticAnnotations", "LoadTrackAnnotations"),
)


class Packed(TypedDict):
    """An image after the pipeline of a detector.

    Attributes:
        inputs: the image, uint8 of shape 3 x H x W.
        data_samples: its data sample.
    """

    inputs: Tensor
    data_samples: DetDataSample


def load_detector(source: str | Path, config: Config | None = None) -> nn.Module:
    """Builds a detector from a checkpoint.

    Args:
        source: a path or URL of a checkpoint.
        config: the config of its training. None uses the description in a checkpoint of this toolkit. The text of the
            config in MMDetection's own checkpoints is a program and is not executed.

    Returns:
        the detector in evaluation mode, with ``classes`` and ``pipeline``.

    Raises:
        UserError: if the file cannot be read, does not describe its detector, or does not fit the config's detector.

    Examples:
        A small detector, in a checkpoint like those of a training:

        >>> detector = {
        ...     "type": "SingleStageDetector",
        ...     "data_preprocessor": {"type": "DetDataPreprocessor"},
        ...     "backbone": {"type": "TResNet", "layers": (1, 1, 1, 1), "width": 0.125, "out_indices": (3,)},
        ...     "bbox_head": {
        ...         "type": "FCOSHead",
        ...         "num_classes": 2,
        ...         "in_channels": 256,
        ...         "feat_channels": 32,
        ...         "strides": [32],
        ...         "regress_ranges": [[-1, 1e8]],
        ...     },
        ...     "test_cfg": {"score_thr": 0.0, "nms": {"type": "nms", "iou_threshold": 0.5}, "max_per_img": 3},
        ... }
        >>> pipeline = [{"type": "Resize", "scale": (64, 64)}, {"type": "PackDetInputs"}]
        >>> init_default_scope("mmdet")
        >>> weights = MODELS.build(detector).state_dict()
        >>> meta = {
        ...     "model": {"detector": detector, "pipeline": pipeline},
        ...     "dataset_meta": {"classes": ["square", "disc"]},
        ... }
        >>> torch.save({"state_dict": weights, "meta": meta}, "detector.pth")

        Loading needs no config:

        >>> model = load_detector("detector.pth")
        >>> model.classes
        ('square', 'disc')
        >>> image = np.zeros((48, 64, 3), np.uint8)
        >>> next(detect(model, image)).boxes.shape
        (3, 4)
    """
    init_default_scope("mmdet")
    path = locate(source)
    checkpoint = read_checkpoint(path)
    stored = checkpoint.get("meta")
    meta: Mapping[str, object] = stored if isinstance(stored, Mapping) else {}
    of_model = meta.get("model")
    description: Mapping[str, Any] = of_model if isinstance(of_model, Mapping) else {}
    if config is not None:
        detector, pipeline = config.model, config.test_dataloader.dataset.pipeline
    elif "detector" in description:
        detector, pipeline = description["detector"], description.get("pipeline", [])
        if not isinstance(detector, Mapping) or not _are_steps(pipeline):
            raise UserError(f"{path}: its description of the detector is damaged; name its config with `config`")
        pipeline = _without_loading(pipeline)
        check_stored(path, detector, (MODELS, TASK_UTILS))
        check_stored(path, pipeline, (TRANSFORMS,))
    else:
        raise UserError(f"{path}: does not say which detector it holds; name its config with `config`")
    state_dict = unwrap(checkpoint, "raw", path)[1]
    of_data = meta.get("dataset_meta")
    classes = (of_data.get("classes") if isinstance(of_data, Mapping) else None) or meta.get("CLASSES")
    model = _built(path, detector) if config is None else MODELS.build(ConfigDict(detector))
    state_dict = without_second_names(model, state_dict)
    require_match(model, state_dict, path)
    model.load_state_dict(state_dict)
    if not isinstance(classes, list | tuple) or not classes or not all(isinstance(name, str) for name in classes):
        raise UserError(f"{path}: does not name its classes; use a checkpoint with `dataset_meta` in its `meta`")
    model.classes, model.pipeline = tuple(classes), [dict(step) for step in pipeline]
    model.described_by = path if config is None else None
    evaluated: nn.Module = model.eval()
    return evaluated


def _are_steps(pipeline: object) -> bool:
    return isinstance(pipeline, list | tuple) and all(isinstance(step, Mapping) for step in pipeline)


@contextmanager
def giving_boxes_from(score: float, model: nn.Module) -> Iterator[None]:
    """A context in which a detector returns boxes with scores from ``score``, even if ``score_thr`` is higher."""
    configs = [getattr(module, "test_cfg", None) for module in model.modules()]
    # A head and the detector may share a config.
    higher = {id(each): each for each in configs if isinstance(each, dict) and (each.get("score_thr") or 0) > score}
    before = {key: each["score_thr"] for key, each in higher.items()}
    for each in higher.values():
        each["score_thr"] = score
    try:
        yield
    finally:
        for key, each in higher.items():
            each["score_thr"] = before[key]


class LoadedDetector:
    """A detector from :func:`load_detector` as a :class:`~tresnet_downstream.prediction.boxes.BoxFinder`."""

    def __init__(self, model: BaseModel) -> None:
        self.model, self.classes = model, tuple(model.classes)

    def find(
        self, images: Iterable[ImageInput], batch_size: int = 1, score_threshold: float | None = None
    ) -> Iterator[Detections]:
        """See :class:`~tresnet_downstream.prediction.boxes.BoxFinder`."""
        if score_threshold is None:
            yield from detect(self.model, images, batch_size)
            return
        with giving_boxes_from(score_threshold, self.model):
            for detections in detect(self.model, images, batch_size):
                yield detections.above(score_threshold)


def detect(model: nn.Module, images: ImageInput | Iterable[ImageInput], batch_size: int = 1) -> Iterator[Detections]:
    """Predicts the boxes of each image, in order; for an unreadable image, the result has the reason.

    Args:
        model: a detector from :func:`load_detector`; it runs on its device.
        images: one or more images: files, Pillow images, or uint8 arrays of shape (height, width, 3) in RGB. A Pillow
            image is converted like its file: rotated by its EXIF orientation, 16 bits scaled to 8.
        batch_size: largest number of images in a batch; only images of equal size are batched.

    Raises:
        UserError: if an array has another type or shape, or the batch size is below 1.

    Examples:
        The best box of each of several images, with up to 8 images in a batch::

            model = load_detector("best.pth").cuda()
            for detections in detect(model, ["first.jpg", "second.jpg"], batch_size=8):
                if detections.error:
                    print(detections.error)
                elif len(detections.scores):
                    print(model.classes[detections.labels[0]], detections.scores[0], detections.boxes[0])

        :func:`load_detector` has an example with a small detector.
    """
    images = [images] if isinstance(images, str | os.PathLike | Image.Image | np.ndarray) else images
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size}: give a whole number, at least 1")
    init_default_scope("mmdet")
    steps: Any = model.pipeline
    with _description_to_blame(model):
        prepare = Compose([{"type": "mmdet.LoadImageFromNDArray"}, *_without_loading(steps)])
    prepared = ((image, _prepared(model, prepare, image)) for image in images)
    for _, group in itertools.groupby(prepared, key=lambda item: _shape(item[1])):
        while batch := list(itertools.islice(group, batch_size)):
            yield from _detect_batch(model, batch)


def _without_loading(pipeline: Iterable[T]) -> list[T]:
    """The steps of a pipeline without MMDetection's loading steps, because images are read by this package."""
    types = ((step, step.get("type") if isinstance(step, Mapping) else None) for step in pipeline)
    return [step for step, name in types if str(name).rpartition(".")[2] not in LOADING]


def _built(path: Path, detector: Mapping[str, object]) -> BaseModel:
    try:
        with few_modules(path):
            model: BaseModel = MODELS.build(ConfigDict(detector))
            return model
    except UserError:
        raise
    except Exception as error:
        # The arguments come from the file, so any exception is a fault of the file.
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: the detector that it describes cannot be built ({reason})") from error


@contextmanager
def _description_to_blame(model: nn.Module) -> Iterator[None]:
    """Turns exceptions of a detector that was built from a checkpoint's description into a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        path = getattr(model, "described_by", None)
        if path is None or is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: the detector that it describes cannot be run ({reason})") from error


def _prepared(model: nn.Module, prepare: Compose, image: ImageInput) -> Packed | str:
    try:
        pixels = pixels_of(image)
    except BadImageError as error:
        return str(error)
    path = os.fspath(image) if isinstance(image, str | os.PathLike) else ""
    with _description_to_blame(model):
        data: Packed = prepare({"img": np.ascontiguousarray(pixels[:, :, ::-1]), "img_path": path, "img_id": 0})
        tuple(data["inputs"].shape), data["data_samples"]
    return data


def _shape(data: Packed | str) -> tuple[int, ...]:
    return () if isinstance(data, str) else tuple(data["inputs"].shape)


@torch.inference_mode()
def _detect_batch(model: BaseModel, batch: Sequence[tuple[ImageInput, Packed | str]]) -> Iterator[Detections]:
    readable = [data for _, data in batch if not isinstance(data, str)]
    inputs = {
        "inputs": [data["inputs"] for data in readable],
        "data_samples": [data["data_samples"] for data in readable],
    }
    with _description_to_blame(model):
        samples = iter(model.test_step(inputs) if readable else ())
    for image, data in batch:
        if isinstance(data, str):
            yield unread(image, data)
            continue
        sample = next(samples)
        instances = sample.pred_instances.cpu()
        order = torch.argsort(instances.scores, descending=True, stable=True)
        instances = instances[order]
        masks = instances.masks.numpy() if "masks" in instances else None
        boxes, scores = instances.bboxes.float().numpy(), instances.scores.float().numpy()
        probabilities = sample.label_probabilities.cpu().numpy() if "label_probabilities" in sample else None
        yield Detections(image, boxes, scores, instances.labels.numpy(), masks, label_probabilities=probabilities)
