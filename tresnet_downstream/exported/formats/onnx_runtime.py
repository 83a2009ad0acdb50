"""Runs ONNX files (``.onnx``) by ONNX Runtime."""

from pathlib import Path

import numpy as np

from tresnet_downstream.errors import UserError
from tresnet_downstream.exported.formats.interface import (
    KEY,
    Arrays,
    Session,
    kind_and_index,
    last_line,
    required,
)


class OnnxRuntimeSession(Session):
    """A session of ONNX Runtime for an ``.onnx`` file."""

    def __init__(self, path: Path, device: str) -> None:
        library = required("onnxruntime", str(path))
        kind, index = kind_and_index(device)
        provider = f"{kind.upper()}ExecutionProvider"
        # Azure's provider is not a device but calls a server.
        available = [name for name in library.get_available_providers() if not name.startswith("Azure")]
        if provider not in available or (kind == "cpu" and index):
            known = ", ".join(name.removesuffix("ExecutionProvider").lower() for name in available)
            raise UserError(f"`device` {device}: the ONNX Runtime installed here has {known}")
        chosen = provider if kind == "cpu" else (provider, {"device_id": index})
        try:
            # With the fallback, it would try the CPU after an error and print several lines.
            self._session = library.InferenceSession(str(path), providers=[chosen], enable_fallback=0)
        except Exception as error:  # the errors of the library have no common base class
            raise UserError(f"{path}: ONNX Runtime cannot open it ({last_line(error)})") from error
        # If a GPU cannot be started, ONNX Runtime continues without it.
        if provider not in self._session.get_providers():
            raise UserError(f"`device` {device}: ONNX Runtime cannot start it; check the GPU and its libraries")
        self.description = self._session.get_modelmeta().custom_metadata_map.get(KEY)
        self._outputs = [output.name for output in self._session.get_outputs()]
        self.shapes = {
            node.name: tuple(side if isinstance(side, int) else 0 for side in node.shape)
            for node in self._session.get_inputs()
        }

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """See :class:`Session`."""
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))
