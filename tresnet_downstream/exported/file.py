"""Opens an exported file and reads its description."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from tresnet_downstream.errors import UserError, is_out_of_memory
from tresnet_downstream.exported.formats import SESSIONS, is_exported, opened
from tresnet_downstream.exported.formats.interface import Arrays, last_line
from tresnet_downstream.exported.letterbox import LetterboxDescription
from tresnet_downstream.json_reading import parse_json

CLASSIFIER, DETECTOR, JOINT = "classifier", "detector", "joint"
# The kinds of models, and their names in messages.
KINDS = {CLASSIFIER: "classifier", DETECTOR: "detector", JOINT: "joint model"}
# The version of descriptions. Files without a version have version 1.
VERSION = 1


class FileDescription(TypedDict, total=False):
    """The description in an exported file.

    Attributes:
        kind: kind of the model, one of :data:`KINDS`.
        version: version of the description.
        classes: the class names.
        multi_label: whether an image may have several labels; only of classifiers.
        pipeline: type and arguments of each step that prepares an image; only of classifiers.
        score_threshold: the default threshold of scores; only of models with boxes.
        picture: the preparation of images; only of models with boxes.
    """

    kind: str
    version: int
    classes: Sequence[str]
    multi_label: bool
    pipeline: Sequence[Mapping[str, Any]]
    score_threshold: float
    picture: LetterboxDescription


class ExportedFile:
    """A file that :func:`~tresnet_downstream.deployment.export.export` wrote, opened for inference.

    Args:
        path: an ``.onnx`` or ``.xml`` file.
        device: ``cpu``, or another device of the library that runs the file, such as ``cuda`` or ``gpu``.

    Attributes:
        path: the file.
        kind: kind of the model, one of :data:`KINDS`.
        description: the description in the file, such as its classes.
        shapes: from the names of the inputs to their shapes; 0 for a dynamic dimension.

    Raises:
        UserError: if the file, the package or the device is missing, or if the file was not written by ``export``.
    """

    def __init__(self, path: str | Path, device: str = "cpu") -> None:
        self.path = Path(path)
        if not is_exported(path):
            raise UserError(f"{path}: the suffix of exported models is {' or '.join(SESSIONS)}")
        if not self.path.is_file():
            raise UserError(f"{path}: there is no such file")
        self._session = opened(self.path, device)
        self.shapes = self._session.shapes
        not_exported_here = f"{path}: has no description of its classes; export it with tresnet export"
        try:
            content: FileDescription = parse_json(self._session.description or "", path)
        except ValueError as error:
            raise UserError(not_exported_here) from error
        if not isinstance(content, Mapping):
            raise UserError(not_exported_here)
        self.description = content
        # Older files have no kind and are classifiers.
        self.kind = content.get("kind", CLASSIFIER)
        version = content.get("version", 1)
        if version != VERSION:
            raise UserError(
                f"{path}: was exported by another version of tresnet-downstream (its description has version "
                f"{str(version)[:20]}, but this package reads version {VERSION}); export it again"
            )
        if not isinstance(self.kind, str) or self.kind not in KINDS:
            raise UserError(
                f"{path}: is an exported {str(self.kind)[:40]}, but this package supports {', '.join(KINDS.values())}; "
                "export it again"
            )

    def require_kind(self, kind: str) -> None:
        """Raises UserError unless the file has a model of this kind."""
        if self.kind != kind:
            raise UserError(f"{self.path}: is an exported {KINDS[self.kind]}, not a {KINDS[kind]}")

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Runs the model and returns its outputs by name.

        Raises:
            UserError: if the file cannot be run.
        """
        try:
            return self._session.run(inputs)
        except Exception as error:  # the errors of the libraries have no common base class
            if is_out_of_memory(error):
                raise
            raise UserError(f"{self.path}: cannot be run ({last_line(error)}); export it again") from error
