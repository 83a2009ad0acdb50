"""Formats of exported files, one module for each. `deployment/formats.py` writes the files."""

from collections.abc import Callable, Mapping
from pathlib import Path

from tresnet_downstream.exported.formats.interface import Session
from tresnet_downstream.exported.formats.onnx_runtime import OnnxRuntimeSession
from tresnet_downstream.exported.formats.openvino import OpenVinoSession

# From the suffix of a file to the function that opens it, from its path and a device.
SESSIONS: Mapping[str, Callable[[Path, str], Session]] = {".onnx": OnnxRuntimeSession, ".xml": OpenVinoSession}


def is_exported(path: str | Path) -> bool:
    """Whether a file has the suffix of an exported model.

    Examples:
        >>> is_exported("model.onnx"), is_exported("model.pth")
        (True, False)
    """
    return Path(path).suffix.lower() in SESSIONS


def opened(path: Path, device: str) -> Session:
    """Opens a file, whose suffix must be in :data:`SESSIONS`, on a device."""
    return SESSIONS[path.suffix.lower()](path, device)
