"""Export to ONNX and OpenVINO. A file gets its name once what it computes was compared with torch."""

import copy
import json
import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tresnet_downstream.backbones import TResNet
from tresnet_downstream.classification.classifier import ImageClassifier
from tresnet_downstream.deployment.exported import (
    INPUT,
    KEY,
    OUTPUT,
    ExportedClassifier,
    core_of,
    description,
    is_exported,
    picture_size,
    required,
)
from tresnet_downstream.deployment.fuse import fuse
from tresnet_downstream.deployment.quantisation import Track, calibration_pictures, quantised
from tresnet_downstream.errors import UserError
from tresnet_downstream.files import Earlier, named_if_unwritable, whole_file

# Everything here has been in ONNX since opset 18; TensorRT 10 and ONNX Runtime 1.14 take it.
OPSET = 18
# Of the largest logit, or of 1 if that is larger.
TOLERANCE = 1e-4
# Mean difference of probabilities beyond which an int8 model is broken rather than rounded.
INT8_TOLERANCE = 0.05


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        path: the file; OpenVINO's weights are in the ``.bin`` beside it.
        megabytes: size of all of it, in millions of bytes.
        size: height and width of the pictures that it takes, in any number at a time.
        pictures: how many it was compared with torch on.
        difference: largest difference of a logit; in int8, of a probability.
        mean_difference: the same, on average.
        int8: whether it is quantised.
    """

    path: Path
    megabytes: float
    size: tuple[int, int]
    pictures: int
    difference: float
    mean_difference: float
    int8: bool

    def __str__(self) -> str:
        height, width = self.size
        what, kind = ("probabilities", ", int8") if self.int8 else ("logits", "")
        return (
            f"wrote {self.path} ({self.megabytes:.1f} MB{kind}): takes pictures of {height} x {width}, any number at a "
            f"time\n{what} differ from torch's by {self.difference:.1e} at most, {self.mean_difference:.1e} on "
            f"average, on {self.pictures} pictures"
        )


def export(
    model: ImageClassifier,
    path: str | Path,
    calibration: Sequence[str] = (),
    track: Track = lambda items, total, what: items,
) -> Export:
    """Writes a classifier for ONNX Runtime and TensorRT (``.onnx``) or for OpenVINO (``.xml``), fused and in float32.

    The file takes float32 pictures ``images`` of N x 3 x H x W in [0, 1], for any N and the H and W of the model's
    pipeline, and gives ``logits``, N x C. It also holds what prediction needs: classes, pipeline, ``multi_label``.

    Args:
        model: from :func:`load_model`, in evaluation mode; stays as it is.
        path: the file to write; its folder is made. Another file there is moved aside, see :class:`Earlier`. OpenVINO's
            weights go into the ``.bin`` beside it.
        calibration: pictures like those to come; with them, an ``.xml`` is int8.
        track: passes items on and shows how far they are.

    Raises:
        UserError: for another suffix, a package that is not installed, too few pictures, a folder that cannot be
            written, a network that does not fit; and if the file's logits are not torch's.
    """
    path = Path(path)
    if not is_exported(path):
        raise UserError(f"{path}: the name must end in .onnx for ONNX, or in .xml for OpenVINO")
    if calibration and path.suffix.lower() != ".xml":
        raise UserError(f"{path}: int8 is made by OpenVINO: give a name that ends in .xml")
    for package in ("onnx", "onnxscript", "onnxruntime" if path.suffix.lower() == ".onnx" else "openvino"):
        required(package, str(path))
    size = picture_size(model.pipeline)
    pictures = calibration_pictures(calibration, model.pipeline, track) if calibration else drawn_pictures(4, *size)
    model = _for_inference(model)
    with torch.inference_mode():
        # A size that the network does not take would come out of the exporter as an error of its own.
        model(torch.zeros(1, 3, *size))
    with _written(path) as partial:
        program = _onnx_model(model, size)
        if path.suffix.lower() == ".onnx":
            required("onnx", str(path)).save(program, partial)
        else:
            _save_openvino(program, partial, pictures if calibration else None, model)
        differences = _differences(model, ExportedClassifier(partial), pictures, bool(calibration))
        megabytes = sum(file.stat().st_size for file in _files(partial)) / 1e6
    largest, mean = float(differences.max()), float(differences.mean())
    return Export(path, megabytes, size, len(pictures), largest, mean, bool(calibration))


def drawn_pictures(number: int, height: int, width: int) -> np.ndarray:
    """Waves, blocks and noise, drawn from one seed: ``number`` x ``height`` x ``width`` x 3, uint8."""
    draw = np.random.RandomState(0)
    y, x = np.mgrid[0:height, 0:width]
    pictures = draw.randint(0, 256, (number, height, width, 3)).astype(np.float64)
    for picture in pictures:
        turns = draw.uniform(0.5, 8, (2, 3))
        waves = np.sin(2 * np.pi * (turns[0] * x[..., None] / width + turns[1] * y[..., None] / height))
        blocks = ((x // draw.randint(4, 40) + y // draw.randint(4, 40)) % 2)[..., None]
        picture[:] = 0.2 * picture + 0.4 * (127.5 + 127.5 * waves) + 0.4 * 255 * blocks
    return pictures.astype(np.uint8)


def _for_inference(model: ImageClassifier) -> ImageClassifier:
    if model.training:
        raise UserError("the model is in training mode: call model.eval() first")
    return (fuse(model) if isinstance(model.backbone, TResNet) else copy.deepcopy(model)).cpu().float()


def _onnx_model(model: ImageClassifier, size: tuple[int, int]) -> Any:
    # Two pictures: the exporter takes an axis of length 1 for one that stays so.
    example = torch.zeros(2, 3, *size)
    with _quiet(), torch.no_grad():
        program: Any = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=[INPUT],
            output_names=[OUTPUT],
        )
    proto = program.model_proto
    entry = proto.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(description(model))
    required("onnx", "export").checker.check_model(proto, full_check=True)
    return proto


def _save_openvino(program: Any, path: Path, pictures: np.ndarray | None, model: ImageClassifier) -> None:
    library = required("openvino", str(path))
    converted = core_of(library).read_model(program.SerializeToString())
    if pictures is not None:
        converted = quantised(converted, pictures)
    converted.set_rt_info(json.dumps(description(model)), KEY)
    # Half-precision weights would halve the file and change logits by more than is promised.
    library.save_model(converted, str(path), compress_to_fp16=False)


def _differences(model: ImageClassifier, exported: ExportedClassifier, pictures: np.ndarray, int8: bool) -> np.ndarray:
    """Absolute differences from torch for every picture, in one batch of 1 and others of up to 8.

    Raises:
        UserError: if they are larger than rounding explains.
    """
    differences = []
    largest = 1.0
    for start, stop in _ranges(len(pictures)):
        images = pictures[start:stop]
        if int8:
            differences.append(np.abs(exported.predict_batch(images) - model.predict_batch(images)))
            continue
        batch = images.transpose(0, 3, 1, 2).astype(np.float32) / 255
        with torch.inference_mode():
            reference = model(torch.from_numpy(batch)).numpy()
        differences.append(np.abs(exported.logits(batch) - reference))
        largest = max(largest, float(np.abs(reference).max()))
    difference = np.concatenate(differences)
    if int8 and not difference.mean() <= INT8_TOLERANCE:
        raise UserError(
            f"not exported: in int8 probabilities differ from torch's by {difference.mean():.2g} on average, "
            "so the network does not stand it, or not with these pictures: export it in float32"
        )
    if not int8 and not difference.max() <= TOLERANCE * largest:
        raise UserError(
            f"not exported: logits of up to {largest:.2g} differ from torch's by up to {difference.max():.2g}"
        )
    return difference


def _ranges(count: int) -> Iterator[tuple[int, int]]:
    yield 0, 1
    yield from ((start, min(start + 8, count)) for start in range(1, count, 8))


@contextmanager
def _written(path: Path) -> Iterator[Path]:
    """A name to write under; the files get theirs when the block ends well, the weights before what names them."""
    earlier = Earlier(path.parent)
    with named_if_unwritable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            partial.touch()  # Before minutes of work, not after them.
            if path.suffix.lower() == ".onnx":
                yield partial
                earlier.keep_unless_same((partial, path.name))
            else:
                weights = path.with_suffix(".bin")
                with whole_file(weights) as partial_weights:
                    yield partial
                    earlier.keep_unless_same((partial, path.name), (partial_weights, weights.name))


def _files(path: Path) -> Iterable[Path]:
    return [path] if path.suffix.lower() == ".onnx" else [path, path.with_suffix(".bin")]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporter prints of itself."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
