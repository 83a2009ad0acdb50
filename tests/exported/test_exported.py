"""Exported files predict the probabilities of the original network; invalid files raise errors."""

import json
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
from deployment.small_networks import classifier
from onnx import TensorProto, helper
from running.small_data import call, refused

from tresnet_downstream import predict
from tresnet_downstream.errors import UserError
from tresnet_downstream.exported import ExportedClassifier
from tresnet_downstream.exported.formats import interface
from tresnet_downstream.images import find_images


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "xml"])
def test_predictions_are_those_of_the_network(exported, kind, pictures):
    model, paths = exported
    files = find_images([str(pictures)])[:5]
    found = predict(ExportedClassifier(paths[kind]), files, batch_size=2)
    assert found.dtype == np.float32
    assert np.abs(found - predict(model, files)).max() < 1e-4


# Opens two files, gives them up in the same order, and has a signal handled, as the end of a DataLoader's worker is.
TWO = """
import faulthandler, signal, sys
from tresnet_downstream.exported import ExportedClassifier
faulthandler.enable()
opened = [ExportedClassifier(path) for path in sys.argv[1:]]
while opened:
    del opened[0]
signal.signal(signal.SIGTERM, lambda number, frame: print("handled"))
signal.raise_signal(signal.SIGTERM)
"""


@pytest.mark.slow
def test_process_that_opened_two_models_handles_signals(exported):
    _, paths = exported
    result = subprocess.run([sys.executable, "-c", TWO, paths["xml"], paths["int8"]], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "handled\n")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "xml", "int8"])
def test_tool_runs_exported_files_by_their_suffix(exported, kind, pictures, tmp_path):
    model, paths = exported
    options = ["--json", "--threshold", 0, "--out", tmp_path / "drawn"]
    status, out, err = call("predict", [paths[kind], pictures / "000.png", pictures / "001.png", *options])
    assert (status, err) == (0, "")
    rows = [json.loads(line) for line in out.splitlines()]
    wanted = predict(model, [pictures / "000.png", pictures / "001.png"])
    for row, probabilities in zip(rows, wanted, strict=True):
        given = {label["label"]: label["probability"] for label in row["labels"]}
        near = 0.1 if kind == "int8" else 1e-4
        assert [given[name] for name in model.classes] == pytest.approx(probabilities.tolist(), abs=near)
    assert len(list((tmp_path / "drawn").iterdir())) == 2


@pytest.mark.slow
def test_single_label_files_give_a_softmax(exported, pictures, tmp_path):
    model = onnx.load(exported[1]["onnx"])
    entry = next(entry for entry in model.metadata_props if entry.key == "tresnet_downstream")
    entry.value = json.dumps({**json.loads(entry.value), "multi_label": False})
    onnx.save(model, tmp_path / "m.onnx")
    assert predict(ExportedClassifier(tmp_path / "m.onnx"), pictures / "000.png").sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "xml"])
def test_images_of_another_size_and_foreign_options_are_refused(exported, kind, pictures):
    path = exported[1][kind]
    with pytest.raises(UserError, match="takes images of 64 x 64, got 32 x 64"):
        ExportedClassifier(path).logits(np.zeros((1, 3, 32, 64), np.float32))
    refused("predict", [path, pictures, "--size", 96], "--size", "exported")
    refused("predict", [path, pictures, "--config", "x.py"], "--config", "exported")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "xml"])
def test_a_device_that_is_not_there_is_named_with_those_that_are(exported, kind, pictures):
    for device in ("npu:3", "cpu:7"):
        refused("predict", [exported[1][kind], pictures, "--device", device], f"--device {device}", "cpu")
    refused("predict", [exported[1][kind], pictures, "--device", "cpu:one"], "--device cpu:one", "a number")
    assert ExportedClassifier(exported[1][kind], "CPU:0").classes


class GpuThatDoesNotStart:
    """ONNX Runtime with CUDA where there is no GPU: it says so in a log and goes on with the CPU."""

    asked = None

    @staticmethod
    def get_available_providers():
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    class InferenceSession:
        def __init__(self, path, providers, enable_fallback):
            GpuThatDoesNotStart.asked = providers

        def get_providers(self):
            return ["CPUExecutionProvider"]


@pytest.mark.slow
def test_a_gpu_that_does_not_start_is_an_error_without_fallback_to_the_cpu(exported, monkeypatch):
    monkeypatch.setattr(interface, "import_module", lambda name: GpuThatDoesNotStart)
    with pytest.raises(UserError, match="`device` cuda:1: ONNX Runtime cannot start it"):
        ExportedClassifier(exported[1]["onnx"], "cuda:1")
    assert GpuThatDoesNotStart.asked == [("CUDAExecutionProvider", {"device_id": 1})]


@pytest.mark.slow
def test_files_that_are_no_exports_are_refused_in_one_line(exported, pictures, tmp_path):
    refused("predict", [tmp_path / "none.onnx", pictures], "none.onnx: there is no such file")
    for name in ("bad.onnx", "bad.xml", "bad.bin"):
        (tmp_path / name).write_text("no model")
    refused("predict", [tmp_path / "bad.onnx", pictures], "bad.onnx: ONNX Runtime cannot open it")
    refused("predict", [tmp_path / "bad.xml", pictures], "bad.xml: OpenVINO cannot open it")
    for name in ("alone.xml", "bad.xml"):
        shutil.copy(exported[1]["xml"], tmp_path / name)
    refused("predict", [tmp_path / "alone.xml", pictures], "its weights, alone.bin, are not in the same folder")
    refused("predict", [tmp_path / "bad.xml", pictures], "bad.xml: OpenVINO cannot open it", "Incorrect weights")
    shape = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "foreign", [shape], [out])
    foreign = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(foreign, tmp_path / "foreign.onnx")
    refused("predict", [tmp_path / "foreign.onnx", pictures], "foreign.onnx", "tools/export.py")
    with pytest.raises(UserError, match=r"the suffix of exported models is .onnx or .xml"):
        ExportedClassifier(tmp_path / "m.pth")
    assert classifier().training is False
