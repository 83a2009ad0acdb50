"""Opens an exported model of any kind."""

from pathlib import Path

from tresnet_downstream.exported.classifier import ExportedClassifier
from tresnet_downstream.exported.detector import ExportedDetector
from tresnet_downstream.exported.file import CLASSIFIER, DETECTOR, ExportedFile
from tresnet_downstream.exported.joint import ExportedJoint


def open_exported(path: str | Path, device: str = "cpu") -> ExportedClassifier | ExportedDetector | ExportedJoint:
    """Opens an exported model. The kind is stored in the file.

    Args:
        path: an ``.onnx`` or ``.xml`` file.
        device: see :class:`ExportedFile`.

    Returns:
        The classifier, detector or joint model.

    Raises:
        UserError: as :class:`ExportedFile`.
    """
    file = ExportedFile(path, device)
    if file.kind == CLASSIFIER:
        return ExportedClassifier(file)
    return ExportedDetector(file) if file.kind == DETECTOR else ExportedJoint(file)
