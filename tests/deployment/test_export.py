"""Exported files have torch's outputs; a file whose outputs differ is not written."""

import collections
import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from deployment.small_networks import SMALL, TIMM, V2, classifier
from running.small_data import ROOT, call, refused

from tresnet_downstream.classification import ImageClassifier
from tresnet_downstream.deployment.classifier import ExportableClassifier
from tresnet_downstream.deployment.export import export
from tresnet_downstream.deployment.exportable import synthetic_images
from tresnet_downstream.errors import UserError
from tresnet_downstream.exported import ExportedClassifier
from tresnet_downstream.exported.file import ExportedFile
from tresnet_downstream.exported.formats import interface
from tresnet_downstream.prediction.labels import predict


def images(number, height=64, width=64):
    return np.random.RandomState(1).random_sample((number, 3, height, width)).astype(np.float32)


def torch_logits(model, batch):
    with torch.no_grad():
        return model(torch.from_numpy(batch)).numpy()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "xml"])
@pytest.mark.parametrize("number", [1, 2, 5])
def test_logits_are_torchs_for_any_batch(exported, kind, number):
    model, paths = exported
    wanted = torch_logits(model, images(number))
    assert np.ptp(wanted) > 0.5  # nothing that a constant would pass
    assert np.abs(ExportedClassifier(paths[kind]).logits(images(number)) - wanted).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "size", "suffix"),
    [
        ({"backbone": V2, "head": "MLDecoderHead"}, [72, 100], "onnx"),
        ({"head": "BottleneckHead"}, [72, 100], "xml"),
        ({"backbone": TIMM}, 64, "onnx"),
    ],
)
def test_other_heads_backbones_and_odd_maps(model, size, suffix, tmp_path):
    model = classifier(**model, size=size)
    written = export(ExportableClassifier(model), tmp_path / f"deeper/m.{suffix}")
    batch = images(2, *written.size)
    found = ExportedClassifier(written.path).logits(batch)
    assert np.abs(found - torch_logits(model, batch)).max() < 1e-4 * max(1, np.abs(found).max())


@pytest.mark.slow
def test_the_graph_has_no_norm_and_no_padding_and_a_free_batch(exported):
    _, paths = exported
    model = onnx.load(paths["onnx"])
    onnx.checker.check_model(model, full_check=True)
    operators = collections.Counter(node.op_type for node in model.graph.node)
    assert operators["Conv"] == 1 + 6 + 9 + 3 + 3  # as in the fused network, and a blur in three stages
    assert not {"Pad", "BatchNormalization"} & set(operators)
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 18}
    sides = [side.dim_param or side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim]
    assert sides[1:] == [3, 64, 64]
    assert isinstance(sides[0], str)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "xml", "int8"])
def test_the_file_contains_all_that_prediction_needs(exported, kind, tmp_path):
    model, paths = exported
    told = ExportedClassifier(paths[kind])
    assert told.classes == model.classes
    assert told.pipeline == model.pipeline
    assert told.multi_label is True
    assert told.input_size == (64, 64)


@pytest.mark.slow
def test_tool_writes_and_says_how_far_it_is_from_torch(tmp_path):
    torch.save({"state_dict": classifier().state_dict()}, tmp_path / "m.pth")
    status, out, err = call("export", [tmp_path / "m.pth", tmp_path / "m.onnx", "--size", 64])
    assert (status, err) == (0, "")
    assert f"wrote {tmp_path / 'm.onnx'}" in out
    assert "logits differ from torch's by" in out
    assert ExportedClassifier(tmp_path / "m.onnx").classes == ("0", "1", "2", "3", "4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "m.pth"]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["onnx", "xml"])
def test_a_file_with_other_outputs_than_torch_is_not_written(suffix, tmp_path, monkeypatch):
    right = ExportedFile.run
    plus_one = lambda self, batch: {name: value + 1 for name, value in right(self, batch).items()}  # noqa: E731
    monkeypatch.setattr(ExportedFile, "run", plus_one)
    (tmp_path / f"m.{suffix}").write_text("what was there before")
    with pytest.raises(UserError, match=r"not exported: logits of up to .* differ from torch's by up to 1"):
        export(ExportableClassifier(classifier()), tmp_path / f"m.{suffix}")
    assert [path.name for path in tmp_path.iterdir()] == [f"m.{suffix}"]
    assert (tmp_path / f"m.{suffix}").read_text() == "what was there before"


def test_drawn_pictures_are_the_same_each_time_and_use_the_range():
    first = synthetic_images(2, 48, 64)
    assert first.shape == (2, 48, 64, 3)
    assert np.array_equal(first, synthetic_images(2, 48, 64))
    assert first.min() < 40
    assert first.max() > 215


def test_bad_targets_are_refused_before_any_work(tmp_path):
    model = ExportableClassifier(classifier())
    with pytest.raises(UserError, match=r"must end in .onnx"):
        export(model, tmp_path / "m.engine")
    with pytest.raises(UserError, match=r"m.onnx: int8 needs OpenVINO"):
        export(model, tmp_path / "m.onnx", ["a.png"])
    with pytest.raises(UserError, match="training mode"):
        ExportableClassifier(classifier().train())
    with pytest.raises(UserError, match="at least 32 images"):
        export(model, tmp_path / "m.xml", ["a.png"] * 31)
    unprepared = classifier()
    unprepared.pipeline = ()
    with pytest.raises(UserError, match="load_model"):
        ExportableClassifier(unprepared)
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        export(ExportableClassifier(classifier()), tmp_path / "file/m.onnx")


def test_an_exported_file_is_not_exported_again(tmp_path):
    refused("export", [tmp_path / "m.onnx", tmp_path / "m.xml"], "m.onnx: is an exported model")


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (94, "got 94 x 94"),
        (94, "divisible by 4"),
        (18, "at least 20"),
        (0, "--size 0: give 1"),
        (-5, "--size -5: give 1"),
    ],
)
def test_sizes_that_the_network_does_not_take_are_refused_in_one_line(size, words, tmp_path):
    torch.save({"state_dict": classifier().state_dict()}, tmp_path / "m.pth")
    refused("export", [tmp_path / "m.pth", tmp_path / "m.onnx", "--size", size], words)
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize(
    ("package", "name"), [("onnx", "m.onnx"), ("onnxscript", "m.xml"), ("openvino", "m.xml"), ("nncf", "m8.xml")]
)
def test_missing_packages_are_named_with_the_extra(package, name, tmp_path, monkeypatch, pictures):
    there = interface.import_module

    def without(asked):
        if asked == package:
            raise ImportError(f"No module named {package!r}")
        return there(asked)

    monkeypatch.setattr(interface, "import_module", without)
    torch.save({"state_dict": classifier().state_dict()}, tmp_path / "m.pth")
    int8 = ["--int8", pictures] if package == "nncf" else []
    arguments = [tmp_path / "m.pth", tmp_path / name, "--size", 64, *int8]
    refused("export", arguments, package, "pip install 'tresnet-downstream[export]'")
    assert not (tmp_path / name).exists()


@pytest.mark.slow
def test_prediction_with_weights_loads_none_of_the_export_packages(tmp_path, pictures):
    torch.save({"state_dict": classifier().state_dict()}, tmp_path / "m.pth")
    code = (
        "import sys, json; sys.argv[0] = 'predict'; sys.path.insert(0, 'tools')\n"
        "import predict; predict.main(sys.argv[1:])\n"
        "print(json.dumps([n for n in ('onnx', 'onnxscript', 'onnxruntime', 'openvino', 'nncf') if n in sys.modules]))"
    )
    arguments = [str(tmp_path / "m.pth"), str(pictures / "000.png"), "--size", "64"]
    run = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(run.stdout.splitlines()[-1]) == []


@pytest.mark.slow
def test_exported_model_without_a_head_predicts_no_probabilities(tmp_path):
    model = ImageClassifier(SMALL, None).eval()
    model.classes, model.pipeline = (), ({"type": "SquashResize", "size": 64},)
    export(ExportableClassifier(model), tmp_path / "m.onnx")
    with pytest.raises(UserError, match="has no head, so it predicts no labels"):
        predict(ExportedClassifier(tmp_path / "m.onnx"), np.zeros((64, 64, 3), np.uint8))
