"""An exported file, opened by its suffix, and what it says of itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tresnet_downstream.errors import UserError, is_out_of_memory
from tresnet_downstream.exported.formats import SESSIONS, is_exported, opened
from tresnet_downstream.exported.formats.interface import Arrays, last_line
from tresnet_downstream.json_reading import parse_json

CLASSIFIER, DETECTOR, JOINT = "classifier", "detector", "joint"
# Of models.
KINDS = (CLASSIFIER, DETECTOR, JOINT)
# Of what exported files say of themselves; files without a version are of version 1.
VERSION = 1


class ExportedFile:
    """A file that :func:`~tresnet_downstream.deployment.export.export` wrote, opened.

    Args:
        path: ``.onnx`` or ``.xml``.
        device: ``cpu``, or another that the library that runs it has here, such as ``cuda`` or ``gpu``.

    Attributes:
        path: the file.
        kind: of model, one of :data:`KINDS`.
        description: what else it says of itself.
        shapes: of its inputs, by name; 0 for a side that is free.

    Raises:
        UserError: if the file, the package or the device is not there, or the file is not one of those.
    """

    def __init__(self, path: str | Path, device: str = "cpu") -> None:
        self.path = Path(path)
        if not is_exported(path):
            raise UserError(f"{path}: exported models end in {' or '.join(SESSIONS)}")
        if not self.path.is_file():
            raise UserError(f"{path}: there is no such file")
        self._session = opened(self.path, device)
        self.shapes = self._session.shapes
        not_ours = f"{path}: does not say its classes; export it with tresnet export"
        try:
            content = parse_json(self._session.description or "", path)
        except ValueError as error:
            raise UserError(not_ours) from error
        if not isinstance(content, Mapping):
            raise UserError(not_ours)
        self.description: Mapping[str, Any] = content
        # Before there were others, all files were of classifiers and did not say so.
        self.kind = content.get("kind", CLASSIFIER)
        version = content.get("version", 1)
        if version != VERSION:
            raise UserError(
                f"{path}: was exported by another version of tresnet-downstream (its description is of version "
                f"{str(version)[:20]}, and {VERSION} is read here); export it again"
            )
        if not isinstance(self.kind, str) or self.kind not in KINDS:
            raise UserError(
                f"{path}: is an exported {str(self.kind)[:40]}, and known here are {', '.join(KINDS)}; export it again"
            )

    def require_kind(self, kind: str) -> None:
        """Raises UserError unless the file is of this kind."""
        if self.kind != kind:
            raise UserError(f"{self.path}: is an exported {self.kind}, not a {kind}")

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """The outputs by name.

        Raises:
            UserError: for a file that cannot be run.
        """
        try:
            return self._session.run(inputs)
        except Exception as error:  # The libraries' errors have no class in common.
            if is_out_of_memory(error):
                raise
            raise UserError(f"{self.path}: cannot be run ({last_line(error)}); export it again") from error
