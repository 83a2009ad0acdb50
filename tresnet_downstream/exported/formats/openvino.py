"""Runs files of OpenVINO (``.xml`` with the weights in a ``.bin``), in float32 or int8."""

from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

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


@cache
def core_of(openvino: ModuleType) -> Any:
    """The single ``Core`` of OpenVINO in this process, which is never deleted.

    Each ``Core`` sets an alternate signal stack for the thread, and its destructor restores the previous one. If two of
    them are not destroyed in reverse order, the thread is left with a stack that is no longer mapped. The next signal
    that Python handles, such as the end of a worker of a ``DataLoader``, then kills the process (OpenVINO 2026.4).
    """
    return openvino.Core()


class OpenVinoSession(Session):
    """A session of OpenVINO for an ``.xml`` file with its ``.bin`` in the same folder."""

    def __init__(self, path: Path, device: str) -> None:
        openvino = required("openvino", str(path))
        core = core_of(openvino)
        kind, index = kind_and_index(device)
        available = core.available_devices
        name = f"{kind.upper()}.{index}"
        if name not in available and not index:
            name = kind.upper()  # devices have numbers only if there are several of a kind
        if name not in available:
            known = ", ".join(name.lower().replace(".", ":") for name in available)
            raise UserError(f"`device` {device}: OpenVINO has {known} here")
        if not path.with_suffix(".bin").is_file():
            raise UserError(f"{path}: its weights, {path.with_suffix('.bin').name}, are not in the same folder")
        # Batches run in order, each on all cores. On processors with bfloat16, OpenVINO would round to it by default.
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        try:
            # The core would also try the readers of other formats, which print errors.
            reader = openvino.frontend.FrontEndManager().load_by_framework("ir")
            model = reader.convert(reader.load(str(path)))
            self.description = model.get_rt_info(KEY).astype(str) if model.has_rt_info(KEY) else None
            self.shapes = {
                node.any_name: tuple(0 if side.is_dynamic else side.get_length() for side in node.partial_shape)
                for node in model.inputs
            }
            self._outputs = [output.any_name for output in model.outputs]
            self._request = core.compile_model(model, name, settings).create_infer_request()
        except Exception as error:  # such as UnicodeDecodeError for a name in the file
            raise UserError(f"{path}: OpenVINO cannot open it ({last_line(error)})") from error

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """See :class:`Session`."""
        results = self._request.infer(dict(inputs), share_inputs=True)
        return {name: results[name] for name in self._outputs}
