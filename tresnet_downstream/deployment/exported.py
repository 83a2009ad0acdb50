"""Exported models: opened by suffix, behind the interface that prediction asks for."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tresnet_downstream.classification.classifier import ImageClassifier, probabilities_of
from tresnet_downstream.classification.transforms import build_pipeline
from tresnet_downstream.errors import UserError, is_out_of_memory
from tresnet_downstream.json_reading import parse_json

# Under this key an exported file says what it is: JSON of the keys of `description`.
KEY = "tresnet_downstream"
INPUT, OUTPUT = "images", "logits"


def description(model: ImageClassifier) -> dict[str, Any]:
    """What prediction needs to know of a model beside its weights."""
    return {
        "classes": list(model.classes or ()),
        "multi_label": model.multi_label,
        "pipeline": [dict(step) for step in model.pipeline],
    }


def picture_size(pipeline: tuple[dict[str, Any], ...]) -> tuple[int, int]:
    """Height and width of the pictures that a pipeline gives.

    Raises:
        UserError: for an empty one.
    """
    if not pipeline:
        raise UserError("the model does not say how pictures are prepared: load it with load_model")
    height, width, _ = build_pipeline(pipeline)(image=np.zeros((64, 64, 3), np.uint8))["image"].shape
    return height, width


def required(package: str, what: str) -> Any:
    """A package of the extra ``export``.

    Raises:
        UserError: if it is not installed.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise UserError(f"{what} needs {package}: pip install 'tresnet-downstream[export]' ({error})") from error


class Session(ABC):
    """An exported file in the library that runs it.

    Attributes:
        description: the text that the file keeps under :data:`KEY`; None if there is none.
        size: height and width of the pictures.
    """

    description: str | None
    size: tuple[int, int]

    @abstractmethod
    def run(self, images: np.ndarray) -> np.ndarray:
        """Logits, N x C, for N x 3 x H x W in [0, 1], float32."""


class OnnxRuntimeSession(Session):
    """An ``.onnx`` file in ONNX Runtime."""

    def __init__(self, path: Path, device: str) -> None:
        library = required("onnxruntime", str(path))
        kind, index = _kind_and_index(device)
        provider = f"{kind.upper()}ExecutionProvider"
        # Azure's is no device: it asks a server.
        there = [name for name in library.get_available_providers() if not name.startswith("Azure")]
        if provider not in there or (kind == "cpu" and index):
            known = ", ".join(name.removesuffix("ExecutionProvider").lower() for name in there)
            raise UserError(f"`device` {device}: the ONNX Runtime installed here has {known}")
        chosen = provider if kind == "cpu" else (provider, {"device_id": index})
        try:
            # With its fallback it would try again on the CPU after an error, and say so in several lines.
            self._session = library.InferenceSession(str(path), providers=[chosen], enable_fallback=0)
        except Exception as error:  # The library's errors have no class in common.
            raise UserError(f"{path}: ONNX Runtime cannot open it ({_last_line(error)})") from error
        # Where a GPU cannot be started it goes on without.
        if provider not in self._session.get_providers():
            raise UserError(f"`device` {device}: ONNX Runtime cannot start it; are its libraries and the GPU there?")
        self.description = self._session.get_modelmeta().custom_metadata_map.get(KEY)
        self.size = _sides(self._session.get_inputs()[0].shape)

    def run(self, images: np.ndarray) -> np.ndarray:
        """See :class:`Session`."""
        return self._session.run([OUTPUT], {INPUT: images})[0]


@cache
def core_of(openvino: Any) -> Any:
    """OpenVINO's one ``Core`` of this process, which is never given up.

    Each ``Core`` gives the thread a stack for signal handlers and puts the one before back when it goes. Of two that do
    not go in the reverse order of their coming, the thread is left with a stack that is no longer mapped, and the next
    signal that Python handles, such as the end of a worker of a ``DataLoader``, ends the process (OpenVINO 2026.4).
    """
    return openvino.Core()


class OpenVinoSession(Session):
    """An ``.xml`` file, with its ``.bin`` beside it, in OpenVINO."""

    def __init__(self, path: Path, device: str) -> None:
        openvino = required("openvino", str(path))
        core = core_of(openvino)
        kind, index = _kind_and_index(device)
        there = core.available_devices
        name = f"{kind.upper()}.{index}"
        if name not in there and not index:
            name = kind.upper()  # Devices have numbers only where there are several of a kind.
        if name not in there:
            known = ", ".join(name.lower().replace(".", ":") for name in there)
            raise UserError(f"`device` {device}: OpenVINO has {known} here")
        if not path.with_suffix(".bin").is_file():
            raise UserError(f"{path}: its weights, {path.with_suffix('.bin').name}, are not beside it")
        # One batch after the other, each on all cores; and not rounded to bfloat16 where a processor has it.
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        try:
            # The core would try its readers of other formats too, which each complain on the terminal.
            reader = openvino.frontend.FrontEndManager().load_by_framework("ir")
            model = reader.convert(reader.load(str(path)))
            self.description = model.get_rt_info(KEY).astype(str) if model.has_rt_info(KEY) else None
            self.size = _sides(
                [None if side.is_dynamic else side.get_length() for side in model.input(0).partial_shape]
            )
            self._request = core.compile_model(model, name, settings).create_infer_request()
        except Exception as error:  # UnicodeDecodeError among them, for a name in the file.
            raise UserError(f"{path}: OpenVINO cannot open it ({_last_line(error)})") from error

    def run(self, images: np.ndarray) -> np.ndarray:
        """See :class:`Session`."""
        return self._request.infer({INPUT: images}, share_inputs=True)[OUTPUT]


SESSIONS: Mapping[str, Callable[[Path, str], Session]] = {".onnx": OnnxRuntimeSession, ".xml": OpenVinoSession}


def is_exported(path: str | Path) -> bool:
    """Whether the name is that of an exported model."""
    return Path(path).suffix.lower() in SESSIONS


class ExportedClassifier:
    """An exported network for ``predict``, ``predict_each`` and ``label_pictures``.

    Attributes:
        path: the file.
        classes, multi_label, pipeline: as of :class:`ImageClassifier`.
        input_size: height and width of the pictures, in pixels.
        training: never.
    """

    training = False

    def __init__(self, path: str | Path, device: str = "cpu") -> None:
        """Opens a file that :func:`export` wrote.

        Args:
            path: ``.onnx`` or ``.xml``.
            device: ``cpu``, or another that the library that runs it has here, such as ``cuda`` or ``gpu``.

        Raises:
            UserError: if the file, the package or the device is not there, or the file is not one of those.
        """
        self.path = Path(path)
        if not is_exported(path):
            raise UserError(f"{path}: exported models end in {' or '.join(SESSIONS)}")
        if not self.path.is_file():
            raise UserError(f"{path}: there is no such file")
        self._session = SESSIONS[self.path.suffix.lower()](self.path, device)
        self.input_size = self._session.size
        try:
            content = parse_json(self._session.description or "", path)
            self.classes = tuple(str(name) for name in content["classes"])
            self.multi_label = bool(content["multi_label"])
            self.pipeline: tuple[dict[str, Any], ...] = tuple(dict(step) for step in content["pipeline"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: does not say its classes; export it with tools/export.py") from error

    def logits(self, images: np.ndarray) -> np.ndarray:
        """N x C logits for N x 3 x H x W in [0, 1], float32.

        Raises:
            UserError: for pictures of another size than the model was exported for, and a model that cannot be run.
        """
        if images.shape[1:] != (3, *self.input_size):
            expected, given = (f"{height} x {width}" for height, width in (self.input_size, images.shape[2:]))
            raise UserError(
                f"{self.path}: takes pictures of {expected}, got {given}; export it with `input_size` for others"
            )
        try:
            logits = self._session.run(np.ascontiguousarray(images, np.float32))
        except Exception as error:  # The libraries' errors have no class in common.
            if is_out_of_memory(error):
                raise
            raise UserError(f"{self.path}: cannot be run ({_last_line(error)}); export it again") from error
        expected_shape = (len(images), len(self.classes))
        if logits.shape != expected_shape or logits.dtype != np.float32:
            raise UserError(
                f"{self.path}: gives {logits.dtype} of {logits.shape}, not float32 of {expected_shape}; export it again"
            )
        return logits

    def predict_batch(self, images: np.ndarray) -> np.ndarray:
        """Probabilities, N x C in float32, for uint8 pictures N x H x W x 3."""
        logits = self.logits(images.transpose(0, 3, 1, 2).astype(np.float32) / 255)
        return probabilities_of(torch.from_numpy(logits), self.multi_label).numpy()


def _sides(shape: Any) -> tuple[int, int]:
    """Height and width of an input's shape, which need not be one of ours."""
    sides = [side if isinstance(side, int) else 0 for side in shape]
    return (sides[2], sides[3]) if len(sides) == 4 else (0, 0)


def _kind_and_index(device: str) -> tuple[str, int]:
    kind, _, index = device.lower().partition(":")
    if index and not index.isdecimal():
        raise UserError(f"`device` {device}: after the colon stands a number")
    return kind, int(index or 0)


def _last_line(error: Exception) -> str:
    """The cause; lines before it say where in the library it was noticed."""
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
