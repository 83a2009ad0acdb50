"""ONNX files (``.onnx``), run by ONNX Runtime."""

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
    """An ``.onnx`` file in ONNX Runtime."""

    def __init__(self, path: Path, device: str) -> None:
        library = required("onnxruntime", str(path))
        kind, index = kind_and_index(device)
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
            raise UserError(f"{path}: ONNX Runtime cannot open it ({last_line(error)})") from error
        # Where a GPU cannot be started it goes on without.
        if provider not in self._session.get_providers():
            raise UserError(f"`device` {device}: ONNX Runtime cannot start it; are its libraries and the GPU there?")
        self.description = self._session.get_modelmeta().custom_metadata_map.get(KEY)
        self._outputs = [output.name for output in self._session.get_outputs()]
        self.shapes = {
            each.name: tuple(side if isinstance(side, int) else 0 for side in each.shape)
            for each in self._session.get_inputs()
        }

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """See :class:`Session`."""
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))
