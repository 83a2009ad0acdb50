"""Export to ONNX and OpenVINO. A file gets its name once what it computes was compared with torch."""

import ast
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from tresnet_downstream.deployment.exportable import Exportable
from tresnet_downstream.deployment.formats import FORMATS, format_of, is_exported
from tresnet_downstream.deployment.quantisation import IN_FLOAT, Track, calibration_pictures
from tresnet_downstream.deployment.suppression import onnx_translations
from tresnet_downstream.errors import UserError
from tresnet_downstream.exported.file import ExportedFile
from tresnet_downstream.exported.formats.interface import KEY, Arrays, required
from tresnet_downstream.files import Earlier, named_if_unwritable, whole_file

T = TypeVar("T")
# Everything here has been in ONNX since opset 18; TensorRT 10 and ONNX Runtime 1.14 take it.
OPSET = 18
# Where torch's exporter writes the modules that a node belongs to.
_SCOPES = "pkg.torch.onnx.name_scopes"


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        path: the file; OpenVINO's weights are in the ``.bin`` beside it.
        megabytes: size of all of it, in millions of bytes.
        size: height and width of the pictures that it takes, in any number at a time.
        pictures: how many it was compared with torch on.
        comparison: how far it is from torch, in a line.
        int8: whether it is quantised.
        unreadable: why calibration pictures were left out.
    """

    path: Path
    megabytes: float
    size: tuple[int, int]
    pictures: int
    comparison: str
    int8: bool
    unreadable: tuple[str, ...] = ()

    def __str__(self) -> str:
        height, width = self.size
        lines = [
            f"wrote {self.path} ({self.megabytes:.1f} MB{', int8' if self.int8 else ''}): takes pictures of {height} x "
            f"{width}, any number at a time",
            self.comparison,
        ]
        if self.unreadable:
            lines.append(
                f"left out of the calibration, since they cannot be read: {len(self.unreadable)}; the first: "
                f"{self.unreadable[0]}"
            )
        return "\n".join(lines)


def export(
    model: Exportable[Any],
    path: str | Path,
    calibration: Sequence[str] = (),
    track: Track = lambda items, total, what: items,
) -> Export:
    """Writes a model for ONNX Runtime and TensorRT (``.onnx``) or for OpenVINO (``.xml``).

    The number of pictures is free, their height and width are fixed. The file also holds what prediction needs, such as
    the classes.

    Args:
        model: an :class:`ExportableClassifier` or :class:`ExportableDetector`.
        path: the file to write; its folder is made. Another file there is moved aside, see :class:`Earlier`. OpenVINO's
            weights go into the ``.bin`` beside it.
        calibration: pictures like those to come; with them, an ``.xml`` is int8. Those that cannot be read are
            left out.
        track: passes items on and shows how far they are.

    Raises:
        UserError: for another suffix, a package that is not installed, too few pictures, a folder that cannot be
            written; and if what the file computes is not what torch does.
    """
    path = Path(path)
    require_target(path, bool(calibration))
    unreadable: Sequence[str] = ()
    if calibration:
        pictures, unreadable = calibration_pictures(calibration, model.prepare, track)
    else:
        pictures = list(model.drawn())
    with _written(path) as partial:
        format_of(path).save(onnx_program(model), partial, _OneByOne(model, pictures) if calibration else None)
        comparison = model.compare(ExportedFile(partial).run, pictures, bool(calibration))
        megabytes = sum(file.stat().st_size for file in format_of(path).files(partial)) / 1e6
    return Export(path, megabytes, model.size, len(pictures), comparison, bool(calibration), tuple(unreadable))


def require_target(path: str | Path, int8: bool) -> None:
    """Checks a name to export to, before there is a model.

    Raises:
        UserError: for another suffix, int8 in a format that has none, or a package that is not installed.
    """
    if not is_exported(path):
        raise UserError(f"{path}: the name must end in .onnx for ONNX, or in .xml for OpenVINO")
    chosen = format_of(path)
    if int8 and not chosen.has_int8:
        suffixes = " or ".join(suffix for suffix, each in FORMATS.items() if each.has_int8)
        raise UserError(f"{path}: int8 is made by OpenVINO: give a name that ends in {suffixes}")
    for package in ("onnx", "onnxscript", *chosen.packages):
        required(package, str(path))


def onnx_program(model: Exportable[Any]) -> Any:
    """The model in ONNX; its nodes that int8 leaves alone have names that begin with :data:`IN_FLOAT`."""
    batch = torch.export.Dim("batch")
    shapes = tuple({0: batch} if name in model.per_picture else None for name in model.inputs)
    with _quiet(), torch.no_grad():
        traced = torch.export.export(model.module, model.example(), dynamic_shapes=shapes, strict=False)
        program: Any = torch.onnx.export(
            traced,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(model.inputs),
            output_names=list(model.outputs),
            custom_translation_table=onnx_translations(),
        )
    proto = program.model_proto
    if model.int8_modules is not None:
        for node in proto.graph.node:
            if not _is_of(node, model.int8_modules):
                node.name = IN_FLOAT + node.name
    entry = proto.metadata_props.add()
    entry.key, entry.value = KEY, model.text()
    required("onnx", "export").checker.check_model(proto, full_check=True)
    return proto


def _is_of(node: Any, modules: Sequence[str]) -> bool:
    """Whether a node of ONNX belongs to one of these modules or to one below."""
    scopes: list[str] = next(
        (ast.literal_eval(entry.value) for entry in node.metadata_props if entry.key == _SCOPES), []
    )
    module = scopes[-2] if len(scopes) > 1 else ""  # The last is the operation itself.
    return any(module == name or module.startswith(f"{name}.") for name in modules)


class _OneByOne(Sequence[Arrays]):
    """The inputs of each picture alone, made when they are asked for."""

    def __init__(self, model: Exportable[T], pictures: Sequence[T]) -> None:
        self._model, self._pictures = model, pictures

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: Any) -> Any:
        return self._model.batch([self._pictures[index]])


@contextmanager
def _written(path: Path) -> Iterator[Path]:
    """A name to write under; the files get theirs when the block ends well, the weights before what names them."""
    earlier = Earlier(path.parent)
    with named_if_unwritable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            names = format_of(path).files(path)
            partials = [stack.enter_context(whole_file(name)) for name in reversed(names)]
            partials[0].touch()  # Before minutes of work, not after them.
            yield partials[0]
            earlier.keep_unless_same(*zip(partials, (name.name for name in reversed(names)), strict=True))


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
