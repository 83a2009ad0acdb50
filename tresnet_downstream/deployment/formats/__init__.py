"""Formats of exported files, each in one file, by the suffix of a name."""

from collections.abc import Mapping
from pathlib import Path

from tresnet_downstream.deployment.formats import onnx_runtime, openvino
from tresnet_downstream.deployment.formats.interface import Format

FORMATS: Mapping[str, Format] = {".onnx": onnx_runtime.FORMAT, ".xml": openvino.FORMAT}


def is_exported(path: str | Path) -> bool:
    """Whether the name is that of an exported model."""
    return Path(path).suffix.lower() in FORMATS


def format_of(path: str | Path) -> Format:
    """The format that the suffix of a name stands for."""
    return FORMATS[Path(path).suffix.lower()]
