"""Copies the exported ONNX file of a shared model, without the file paths that torch's exporter stores in it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tresnet_downstream.classification.model_loading import assembled
from tresnet_downstream.deployment.sharing.model import SharedModel
from tresnet_downstream.errors import UserError
from tresnet_downstream.exported.classifier import ExportedClassifier
from tresnet_downstream.exported.file import ExportedFile
from tresnet_downstream.exported.formats.interface import required

EXPORTED = "model.onnx"
_TOLERANCE = 1e-2  # Largest difference of probabilities. Exported files compute in float32.


def copy_exported(path: str | Path, model: SharedModel, folder: Path) -> None:
    """Copies an ONNX file of the model to ``folder``, without the source file paths that torch stores at each node.

    Args:
        path: the ONNX file.
        model: the model that is shared.
        folder: the shared folder; the copy is named ``model.onnx``.

    Raises:
        UserError: if the file is not an ONNX file of this toolkit, has other classes, or takes images of another size;
            for a classifier, also if its probabilities differ from the model's.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise UserError(f"{path}: `exported` takes an .onnx file")
    classes = tuple(ExportedFile(path).description.get("classes") or ())
    if classes != model.classes:
        raise UserError(f"{path}: has other classes than {model.path}; export that checkpoint")
    if model.file is not None:
        _require_same(path, model)
    onnx: Any = required("onnx", str(path))
    program = onnx.load(path)
    for graph in (program.graph, *program.functions):
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = ""
    onnx.save(program, folder / EXPORTED)


def _require_same(path: Path, model: SharedModel) -> None:
    """Raises UserError if the probabilities of an exported classifier differ from the model's."""
    assert model.file is not None
    network = assembled(replace(model.file, state_dict=dict(model.file.state_dict)))
    exported = ExportedClassifier(path)
    side = model.file.input_size
    if tuple(exported.input_size) != (side, side):
        raise UserError(f"{path}: takes images of another size than {model.path}; export that checkpoint")
    images = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)
    difference = float(np.abs(exported.predict_batch(images) - network.predict_batch(images)).max())
    if not difference < _TOLERANCE:
        raise UserError(
            f"{path}: gives other probabilities than {model.path} (largest difference: {difference:.2g}); export that "
            "checkpoint"
        )
