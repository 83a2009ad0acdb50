"""Exports that several tests share, because each export takes seconds."""

import pytest
import torch
from deployment.small_networks import classifier, write_pictures

from tresnet_downstream.deployment.classifier import ExportableClassifier
from tresnet_downstream.deployment.export import export
from tresnet_downstream.images import find_images


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder of 40 pictures."""
    return write_pictures(tmp_path_factory.mktemp("pictures"), 40)


@pytest.fixture(scope="session")
def exported(pictures, tmp_path_factory):
    """A classifier, and the paths of its exports by kind: onnx, xml and int8."""
    torch.manual_seed(3)
    model, folder = classifier(), tmp_path_factory.mktemp("exported")
    paths = {"onnx": folder / "m.onnx", "xml": folder / "m.xml", "int8": folder / "m8.xml"}
    for kind, path in paths.items():
        export(ExportableClassifier(model), path, find_images([str(pictures)]) if kind == "int8" else ())
    return model, paths
