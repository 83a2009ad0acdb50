"""Exported joint models: labels and boxes equal torch's, in prediction and in scoring."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("mmdet", reason="needs the detection set-up")
pytest.importorskip("onnxruntime", reason="needs the extra export")
pytest.importorskip("onnxscript", reason="needs the extra export")

from cli.without_torch import run_without
from detection.small_boxes import CONFIG as DETECTOR
from detection.small_boxes import flags
from joint.small_joint import CONFIG, train
from running.small_data import call

from tresnet_downstream.deployment.export import export
from tresnet_downstream.deployment.joint import ExportableJoint
from tresnet_downstream.deployment.sharing import share
from tresnet_downstream.detection.predict import detect, load_detector
from tresnet_downstream.errors import UserError
from tresnet_downstream.exported import open_exported
from tresnet_downstream.exported.detector import LOGITS
from tresnet_downstream.weights import read_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkpoint(boxes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("joint")
    train(boxes, folder, train_cfg__max_epochs=1)
    return folder / "epoch_1.pth"


@pytest.fixture(scope="module", params=[".onnx", ".xml"])
def exported(request, checkpoint, tmp_path_factory):
    if request.param == ".xml":
        pytest.importorskip("openvino", reason="needs the extra export")
    path = tmp_path_factory.mktemp("exported") / f"model{request.param}"
    status, out, err = call("export", [checkpoint, path])
    assert status == 0, err
    assert "logits of labels differ by" in out
    return path


def pictures():
    """Of several shapes, so that some are padded."""
    draw = np.random.default_rng(0)
    return [draw.integers(0, 255, (*shape, 3), dtype=np.uint8) for shape in ((128, 128), (90, 128), (100, 61))]


def test_labels_and_boxes_are_those_of_torch(checkpoint, exported):
    # The picture without padding: MMDetection pads to 32 pixels, the file to its whole size.
    (there,) = open_exported(exported).find(pictures()[:1])
    (here,) = detect(load_detector(checkpoint), pictures()[0])
    assert len(here.boxes) == len(there.boxes) > 0
    assert np.allclose(np.sort(here.scores), np.sort(there.scores), atol=1e-5)
    assert np.allclose(here.label_probabilities, there.label_probabilities, atol=1e-5)


def test_padding_has_no_part_in_the_labels(checkpoint, exported):
    found = list(open_exported(exported).find(pictures(), batch_size=3))
    alone = [next(open_exported(exported).find([picture])) for picture in pictures()]
    for one, other in zip(found, alone, strict=True):
        assert np.allclose(one.label_probabilities, other.label_probabilities, atol=1e-6)


def test_predict_gives_both(checkpoint, exported, boxes, tmp_path):
    image = boxes / "pictures" / "val_01.png"
    lines = []
    for model in (checkpoint, exported):
        status, out, err = call("predict", [model, image, "--json", "--threshold", 0, "--top-k", 1, "--out", tmp_path])
        assert status == 0, err
        lines.append(json.loads(out))
    assert list(lines[1]) == ["image", "labels", "boxes"]
    assert [each["label"] for each in lines[0]["labels"]] == [each["label"] for each in lines[1]["labels"]]
    assert lines[0]["boxes"][0]["score"] == pytest.approx(lines[1]["boxes"][0]["score"], abs=1e-4)


def test_predict_needs_neither_torch_nor_mmdetection(exported, boxes, tmp_path):
    arguments = [exported, *sorted((boxes / "pictures").glob("val_*.png")), "--json", "--threshold", 0.01, "--out"]
    done = run_without("predict", *arguments, tmp_path / "without")
    status, out, err = call("predict", [*arguments, tmp_path / "with"])
    assert (done.returncode, done.stdout, done.stderr) == (status, out, err) == (0, out, "")
    assert '"labels"' in out
    for file in (tmp_path / "with").iterdir():
        assert file.read_bytes() == (tmp_path / "without" / file.name).read_bytes()


def test_scores_are_those_of_the_checkpoint(checkpoint, exported, boxes, tmp_path):
    scores = []
    for model in (checkpoint, exported):
        options = [each for each in flags(boxes) if model is checkpoint or not each.startswith("model.")]
        status, _, err = call("test_joint", [CONFIG, model, "--work-dir", tmp_path / model.suffix[1:], *options])
        assert status == 0, err
        scores.append(json.loads((tmp_path / model.suffix[1:] / "labels" / "scores.json").read_text()))
    assert scores[0]["headline"]["mAP"] == pytest.approx(scores[1]["headline"]["mAP"])
    rescoring = tmp_path / "rescoring.py"
    rescoring.write_text(f"_base_ = [{CONFIG!r}]\nlabels = dict(rescore=dict(scale=0.9, shift=-0.2))\n")
    status, _, err = call("test_joint", [rescoring, exported, "--work-dir", tmp_path / "y", *options])
    assert status == 2
    assert "labels.rescore: an exported file cannot rescore boxes" in err
    status, _, err = call("test_detection", [DETECTOR, exported, "--work-dir", tmp_path / "x"])
    assert status == 2
    assert "is an exported joint model, not a detector" in err


def test_exported_joint_model_is_shared_only_with_its_own_checkpoint(checkpoint, exported, tmp_path, capsys):
    if exported.suffix != ".onnx":
        pytest.skip("only ONNX files are shared")
    share(checkpoint, tmp_path / "shared", "mit", exported=exported)
    assert "the model card has no scores" in capsys.readouterr().out
    assert open_exported(tmp_path / "shared" / "model.onnx").kind == "joint"
    other = read_checkpoint(checkpoint)
    for key, tensor in other["state_dict"].items():
        if key.startswith("label_head."):
            tensor.mul_(1.05)
    torch.save(other, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"gives other outputs than .*other\.pth; export that checkpoint"):
        share(tmp_path / "other.pth", tmp_path / "shared_2", "mit", exported=exported)
    assert not (tmp_path / "shared_2").exists()


def test_a_file_without_logits_is_refused(checkpoint, tmp_path, monkeypatch):
    export(ExportableJoint(load_detector(checkpoint)), tmp_path / "model.onnx")
    model = open_exported(tmp_path / "model.onnx")
    run = model._file.run
    monkeypatch.setattr(
        model._file, "run", lambda inputs: {name: value for name, value in run(inputs).items() if name != LOGITS}
    )
    with pytest.raises(UserError, match="returns no logits for its 2 classes"):
        list(model.find(pictures()[:1]))


def test_scores_that_are_multiplied_are_not_exported(checkpoint):
    model = load_detector(checkpoint)
    model.rescore = {"scale": 1.0, "shift": 0.0}
    with pytest.raises(UserError, match="leave it out"):
        ExportableJoint(model)
    with pytest.raises(UserError, match="multiples of 32; give 32"):
        ExportableJoint(load_detector(checkpoint), size=30)
