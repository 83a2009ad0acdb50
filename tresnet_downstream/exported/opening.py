"""Exported models of any kind."""

from pathlib import Path

from tresnet_downstream.exported.classifier import ExportedClassifier
from tresnet_downstream.exported.detector import ExportedDetector
from tresnet_downstream.exported.file import CLASSIFIER, DETECTOR, ExportedFile
from tresnet_downstream.exported.joint import ExportedJoint


def open_exported(path: str | Path, device: str = "cpu") -> ExportedClassifier | ExportedDetector | ExportedJoint:
    """An exported model of the kind that the file says.

    Args:
        path: ``.onnx`` or ``.xml``.
        device: see :class:`ExportedFile`.

    Raises:
        UserError: as :class:`ExportedFile`.
    """
    file = ExportedFile(path, device)
    if file.kind == CLASSIFIER:
        return ExportedClassifier(file)
    return ExportedDetector(file) if file.kind == DETECTOR else ExportedJoint(file)
