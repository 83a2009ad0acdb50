"""Formats of exported files, each in one file, by the suffix of a name. `deployment/formats.py` writes them."""

from collections.abc import Callable, Mapping
from pathlib import Path

from tresnet_downstream.exported.formats.interface import Session
from tresnet_downstream.exported.formats.onnx_runtime import OnnxRuntimeSession
from tresnet_downstream.exported.formats.openvino import OpenVinoSession

# What opens a file, from its path and a device.
SESSIONS: Mapping[str, Callable[[Path, str], Session]] = {".onnx": OnnxRuntimeSession, ".xml": OpenVinoSession}


def is_exported(path: str | Path) -> bool:
    """Whether the name is that of an exported model."""
    return Path(path).suffix.lower() in SESSIONS


def opened(path: Path, device: str) -> Session:
    """A file, opened on a device; the suffix must be one of :data:`SESSIONS`."""
    return SESSIONS[path.suffix.lower()](path, device)
