"""Export to ONNX and OpenVINO. A file appears only after its outputs were compared with torch's."""

import ast
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from tresnet_downstream.deployment.exportable import DifferentOutputsError, Exportable
from tresnet_downstream.deployment.formats import FORMATS, format_of, is_exported
from tresnet_downstream.deployment.quantisation import IN_FLOAT, Track, calibration_images
from tresnet_downstream.deployment.suppression import onnx_translations
from tresnet_downstream.errors import UserError
from tresnet_downstream.exported.file import ExportedFile
from tresnet_downstream.exported.formats.interface import KEY, Arrays, required
from tresnet_downstream.files import Earlier, named_if_unwritable, whole_file

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

T = TypeVar("T")
# All used operators are in ONNX since opset 18; TensorRT 10 and ONNX Runtime 1.14 support it.
OPSET = 18
# Key under which torch's exporter stores the modules of a node.
_SCOPES = "pkg.torch.onnx.name_scopes"


@dataclass(frozen=True)
class Export:
    """The result of an export.

    Attributes:
        path: the file; OpenVINO's weights are in the ``.bin`` file beside it.
        megabytes: size of all files, in millions of bytes.
        size: height and width of the input images; the batch size is free.
        num_images: number of images on which the file was compared with torch.
        comparison: the difference from torch, in a line.
        int8: whether the file is quantised.
        unreadable: reasons why calibration images were left out.
    """

    path: Path
    megabytes: float
    size: tuple[int, int]
    num_images: int
    comparison: str
    int8: bool
    unreadable: tuple[str, ...] = ()

    def __str__(self) -> str:
        height, width = self.size
        lines = [
            f"wrote {self.path} ({self.megabytes:.1f} MB{', int8' if self.int8 else ''}): takes images of {height} x "
            f"{width}, with any batch size",
            self.comparison,
        ]
        if self.unreadable:
            lines.append(
                f"unreadable images left out of the calibration: {len(self.unreadable)}; the first: "
                f"{self.unreadable[0]}"
            )
        return "\n".join(lines)


def export(
    model: Exportable[T],
    path: str | Path,
    calibration: Sequence[str] = (),
    track: Track = lambda items, total, what: items,
) -> Export:
    """Writes a model for ONNX Runtime and TensorRT (``.onnx``) or for OpenVINO (``.xml``).

    The batch size is free, the height and width of images are fixed. The file also contains the data that prediction
    needs, such as the classes.

    Args:
        model: an :class:`ExportableClassifier`, :class:`ExportableDetector` or :class:`ExportableJoint`.
        path: the file to write; its folder is created. An existing file is moved, see :class:`Earlier`. OpenVINO's
            weights are written to the ``.bin`` file beside it.
        calibration: images like those in use. If given, an ``.xml`` file is int8. Unreadable images are left out.
        track: yields the items and shows progress.

    Raises:
        UserError: if the suffix is unknown, a package is not installed, there are too few images, or the folder cannot
            be written; and if the file's outputs differ from torch's.

    Examples:
        Export to ONNX, and prediction with ONNX Runtime::

            from tresnet_downstream import load_model, predict
            from tresnet_downstream.deployment.classifier import ExportableClassifier
            from tresnet_downstream.exported import open_exported

            print(export(ExportableClassifier(load_model("best.pth")), "model.onnx"))
            probabilities = predict(open_exported("model.onnx"), "image.jpg")

        Quantisation to int8 for OpenVINO, calibrated with a few hundred images::

            images = sorted(map(str, Path("images").glob("*.jpg")))
            export(ExportableClassifier(load_model("best.pth")), "int8.xml", calibration=images)
    """
    path = Path(path)
    require_target(path, bool(calibration))
    unreadable: Sequence[str] = ()
    if calibration:
        images, unreadable = calibration_images(calibration, model.prepare, track)
    else:
        images = list(model.drawn())
    with _written(path) as partial:
        format_of(path).save(onnx_program(model), partial, _OneByOne(model, images) if calibration else None)
        try:
            comparison = model.compare(ExportedFile(partial).run, images, bool(calibration))
        except DifferentOutputsError as error:
            raise UserError(f"not exported: {error}") from error
        megabytes = sum(file.stat().st_size for file in format_of(path).files(partial)) / 1e6
    return Export(path, megabytes, model.size, len(images), comparison, bool(calibration), tuple(unreadable))


def require_target(path: str | Path, int8: bool) -> None:
    """Checks the name of an exported file before the model is loaded.

    Raises:
        UserError: if the suffix is unknown, the format does not support int8, or a package is not installed.
    """
    if not is_exported(path):
        raise UserError(f"{path}: the name must end in .onnx for ONNX, or in .xml for OpenVINO")
    chosen = format_of(path)
    if int8 and not chosen.has_int8:
        suffixes = " or ".join(suffix for suffix, each in FORMATS.items() if each.has_int8)
        raise UserError(f"{path}: int8 needs OpenVINO: give a name that ends in {suffixes}")
    for package in ("onnx", "onnxscript", *chosen.packages):
        required(package, str(path))


def onnx_program(model: Exportable[T]) -> "ModelProto":
    """The model in ONNX. The names of nodes that int8 does not quantise begin with :data:`IN_FLOAT`."""
    batch = torch.export.Dim("batch")
    shapes = tuple({0: batch} if name in model.per_image else None for name in model.inputs)
    with _quiet(), torch.no_grad():
        traced = torch.export.export(model.module, model.example(), dynamic_shapes=shapes, strict=False)
        program = torch.onnx.export(
            traced,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(model.inputs),
            output_names=list(model.outputs),
            custom_translation_table=onnx_translations(),
        )
    assert program is not None  # the exporter returns None only without `dynamo`
    proto = program.model_proto
    if model.int8_modules is not None:
        for node in proto.graph.node:
            if not _is_of(node, model.int8_modules):
                node.name = IN_FLOAT + node.name
    entry = proto.metadata_props.add()
    entry.key, entry.value = KEY, model.text()
    required("onnx", "export").checker.check_model(proto, full_check=True)
    return proto


def _is_of(node: "NodeProto", modules: Sequence[str]) -> bool:
    """Whether an ONNX node belongs to one of the modules or to a submodule."""
    scopes: list[str] = next(
        (ast.literal_eval(entry.value) for entry in node.metadata_props if entry.key == _SCOPES), []
    )
    module = scopes[-2] if len(scopes) > 1 else ""  # the last one is the operation
    return any(module == name or module.startswith(f"{name}.") for name in modules)


class _OneByOne(Sequence[Arrays]):
    """The inputs of single images, computed on access."""

    def __init__(self, model: Exportable[T], images: Sequence[T]) -> None:
        self._model, self._images = model, images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: Any) -> Any:
        return self._model.batch([self._images[index]])


@contextmanager
def _written(path: Path) -> Iterator[Path]:
    """A context that yields a temporary path; on success the files are renamed, the weights first."""
    earlier = Earlier(path.parent)
    with named_if_unwritable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            names = format_of(path).files(path)
            partials = [stack.enter_context(whole_file(name)) for name in reversed(names)]
            partials[0].touch()  # fails now, not after minutes of work
            yield partials[0]
            earlier.keep_unless_same(*zip(partials, (name.name for name in reversed(names)), strict=True))


@contextmanager
def _quiet() -> Iterator[None]:
    """A context without the output of torch's exporter."""
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
