"""Formats of exported models, by the suffix of a file name. `exported/formats/` opens their files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tresnet_downstream.deployment.quantisation import quantised
from tresnet_downstream.exported.formats import is_exported
from tresnet_downstream.exported.formats.interface import KEY, Arrays, required
from tresnet_downstream.exported.formats.openvino import core_of

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["FORMATS", "Format", "format_of", "is_exported"]


@dataclass(frozen=True)
class Format:
    """A format of exported files.

    Attributes:
        packages: packages that writing needs; all are in the extra ``export``.
        save: writes an ONNX program, whose description is under :data:`KEY`, to a path. With the inputs of single
            images for calibration, it writes int8.
        files: returns all files that belong to a path; the last one is the path itself.
        has_int8: whether the format supports int8.
    """

    packages: tuple[str, ...]
    save: "Callable[[ModelProto, Path, Sequence[Arrays] | None], None]"
    files: Callable[[Path], tuple[Path, ...]]
    has_int8: bool = False


def _save_onnx(program: "ModelProto", path: Path, calibration: Sequence[Arrays] | None) -> None:
    assert calibration is None
    required("onnx", str(path)).save(program, path)


def _save_openvino(program: "ModelProto", path: Path, calibration: Sequence[Arrays] | None) -> None:
    library = required("openvino", str(path))
    converted = core_of(library).read_model(program.SerializeToString())
    if calibration is not None:
        converted = quantised(converted, calibration)
    converted.set_rt_info(next(entry.value for entry in program.metadata_props if entry.key == KEY), KEY)
    # Half-precision weights would halve the file, but change results by more than the tolerance.
    library.save_model(converted, str(path), compress_to_fp16=False)


FORMATS: Mapping[str, Format] = {
    ".onnx": Format(("onnxruntime",), _save_onnx, lambda path: (path,)),
    ".xml": Format(("openvino",), _save_openvino, lambda path: (path.with_suffix(".bin"), path), has_int8=True),
}


def format_of(path: str | Path) -> Format:
    """The format of a file name, by its suffix."""
    return FORMATS[Path(path).suffix.lower()]
