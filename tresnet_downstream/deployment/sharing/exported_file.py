"""Copies the exported ONNX file of a shared model, without the file paths that torch's exporter stores in it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from tresnet_downstream.classification.model_loading import assembled
from tresnet_downstream.deployment.classifier import ExportableClassifier
from tresnet_downstream.deployment.exportable import DifferentOutputsError, Exportable
from tresnet_downstream.deployment.sharing.model import SharedModel
from tresnet_downstream.errors import UserError
from tresnet_downstream.exported.classifier import IMAGES
from tresnet_downstream.exported.file import ExportedFile
from tresnet_downstream.exported.formats.interface import required

EXPORTED = "model.onnx"


def copy_exported(path: str | Path, model: SharedModel, folder: Path) -> None:
    """Copies an ONNX file of the model to ``folder``, without the source file paths that torch stores at each node.

    Args:
        path: the ONNX file.
        model: the model that is shared.
        folder: the shared folder; the copy is named ``model.onnx``.

    Raises:
        UserError: if the file is not an ONNX file of this toolkit, has other classes or another kind of model, or gives
            other outputs than the model on synthetic images.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise UserError(f"{path}: `exported` takes an .onnx file")
    _require_same(ExportedFile(path), model)
    onnx = required("onnx", str(path))
    program = onnx.load(path)
    for graph in (program.graph, *program.functions):
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = ""
    onnx.save(program, folder / EXPORTED)


def _require_same(exported: ExportedFile, model: SharedModel) -> None:
    """Raises UserError unless the file gives the model's outputs, up to the tolerance of an export."""
    advice = f"than {model.path}; export that checkpoint"
    if tuple(exported.description.get("classes") or ()) != model.classes:
        raise UserError(f"{exported.path}: has other classes {advice}")
    size = exported.shapes.get(IMAGES, ())[2:]
    reference = _exportable(model, size)
    exported.require_kind(reference.kind)
    if tuple(size) != tuple(reference.size):
        raise UserError(f"{exported.path}: takes images of another size {advice}")
    try:
        reference.compare(exported.run, reference.drawn(), int8=False)
    except DifferentOutputsError as error:
        raise UserError(f"{exported.path}: gives other outputs {advice} ({error})") from error


def _exportable(model: SharedModel, size: tuple[int, ...]) -> Exportable[Any]:
    """The model as :func:`~tresnet_downstream.deployment.export.export` takes it, for images of a size if possible."""
    if model.file is not None:
        return ExportableClassifier(assembled(replace(model.file, state_dict=dict(model.file.state_dict))))
    from tresnet_downstream.deployment.joint import exportable_detector
    from tresnet_downstream.detection.predict import load_detector

    detector = load_detector(model.path)
    reference = exportable_detector(detector)
    return reference if tuple(size) == reference.size else exportable_detector(detector, max(size, default=0) or None)
