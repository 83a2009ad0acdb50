"""OpenVINO's files (``.xml``, with the weights in the ``.bin`` beside it), in float32 or int8."""

from functools import cache
from pathlib import Path
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
        kind, index = kind_and_index(device)
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
            self.shapes = {each.any_name: _sides(each.partial_shape) for each in model.inputs}
            self._outputs = [output.any_name for output in model.outputs]
            self._request = core.compile_model(model, name, settings).create_infer_request()
        except Exception as error:  # UnicodeDecodeError among them, for a name in the file.
            raise UserError(f"{path}: OpenVINO cannot open it ({last_line(error)})") from error

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """See :class:`Session`."""
        results = self._request.infer(dict(inputs), share_inputs=True)
        return {name: results[name] for name in self._outputs}


def _sides(shape: Any) -> tuple[int, ...]:
    return tuple(0 if side.is_dynamic else side.get_length() for side in shape)
