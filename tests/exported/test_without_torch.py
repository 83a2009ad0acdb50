"""Without torch and the packages that need it, exported files have the same predictions."""

import json

import numpy as np
import pytest
import torch
from cli.without_torch import run_without
from deployment.small_networks import write_pictures
from exported.small_files import CLASSES, write_classifier
from running.small_data import call

pytest.importorskip("onnxruntime", reason="needs the extra export")

from tresnet_downstream import predict
from tresnet_downstream.classification.transforms import build_pipeline
from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.thresholds import Thresholds, write_thresholds
from tresnet_downstream.exported import ExportedClassifier
from tresnet_downstream.images import find_images, pixels_of

SQUASH = [{"type": "SquashResize", "size": 32}]
CROP = [{"type": "ResizeAndCrop", "size": 32, "fraction": 0.9, "interpolation": "bicubic"}]
FLIPPED = [*SQUASH, {"type": "HorizontalFlip", "p": 1.0}]


@pytest.fixture(scope="module")
def ten(tmp_path_factory):
    """A folder of ten pictures."""
    return write_pictures(tmp_path_factory.mktemp("ten"), 10)


def by_hand(path, pipeline, files):
    """Probabilities by Albumentations' pipeline and torch."""
    model, prepare = ExportedClassifier(path), build_pipeline(pipeline)
    batch = np.stack([prepare(image=pixels_of(file))["image"] for file in files])
    logits = torch.from_numpy(model.logits(batch.transpose(0, 3, 1, 2).astype(np.float32) / 255))
    return (torch.sigmoid(logits) if model.multi_label else torch.softmax(logits, 1)).numpy()


@pytest.mark.parametrize(("pipeline", "multi_label"), [(SQUASH, True), (CROP, False)])
def test_labels_and_probabilities_are_those_of_the_process_with_torch(pipeline, multi_label, ten, tmp_path):
    path = write_classifier(tmp_path / "m.onnx", pipeline, 32, multi_label)
    arguments = [path, ten, "--json", "--batch-size", 4, "--out"]
    done = run_without("predict", *arguments, tmp_path / "without")
    assert (done.returncode, done.stderr) == (0, "")
    status, out, err = call("predict", [*arguments, tmp_path / "with"])
    assert (status, err, out) == (0, "", done.stdout)
    for name in ("without", "with"):
        assert len(list((tmp_path / name).iterdir())) == 10
    for file in (tmp_path / "with").iterdir():
        assert file.read_bytes() == (tmp_path / "without" / file.name).read_bytes()
    every = [json.loads(line) for line in run_without("predict", path, ten, "--json", "--top-k", 5).stdout.splitlines()]
    for row, wanted in zip(every, by_hand(path, pipeline, find_images([str(ten)])), strict=True):
        found = {entry["label"]: entry["probability"] for entry in row["labels"]}
        assert [found[name] for name in CLASSES] == pytest.approx(wanted.tolist(), abs=1e-6)


def test_thresholds_of_a_file_and_unreadable_images(ten, tmp_path):
    path = write_classifier(tmp_path / "m.onnx", SQUASH, 32)
    (tmp_path / "bad.png").write_text("no picture")
    limits = dict(zip(CLASSES, (0.2, 0.4, 0.5, 0.6, 0.8), strict=True))
    thresholds = Thresholds(limits, "multilabel", "f1", "per-class", (), (), {"split": "val"})
    write_thresholds(thresholds, tmp_path / "limits.json")
    arguments = ["predict", path, ten, tmp_path / "bad.png", "--thresholds", tmp_path / "limits.json"]
    done = run_without(*arguments)
    status, out, err = call("predict", arguments[1:])
    assert (done.returncode, done.stdout, done.stderr) == (status, out, err)
    assert status == 2


def test_pipeline_of_other_transforms_is_built_as_in_training(ten, tmp_path):
    path = write_classifier(tmp_path / "m.onnx", FLIPPED, 32)
    files = find_images([str(ten)])
    found = predict(ExportedClassifier(path), files)
    assert np.allclose(found, by_hand(path, FLIPPED, files), atol=1e-6)
    straight = predict(ExportedClassifier(write_classifier(tmp_path / "s.onnx", SQUASH, 32)), files)
    assert np.abs(found - straight).max() > 0.01
    done = run_without("predict", path, ten)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {path}: its pipeline (SquashResize, HorizontalFlip) needs torch")
    assert done.stderr.count("\n") == 1


def test_weight_files_say_that_they_need_torch(ten):
    done = run_without("predict", "best.pth", ten)
    assert done.returncode == 2
    assert done.stderr.startswith("error: best.pth: weight files need torch")
    assert done.stderr.count("\n") == 1


def test_pipeline_that_cannot_be_built_is_one_line(ten, tmp_path):
    for step, words in (
        ({"type": "Unknown"}, "no transform 'Unknown'"),
        ({"type": "SquashResize", "size": -1}, "SquashResize does not take its arguments: size is -1"),
    ):
        path = write_classifier(tmp_path / "m.onnx", [step], 32)
        with pytest.raises(UserError, match=words):
            predict(ExportedClassifier(path), find_images([str(ten)]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "xml", "int8"])
def test_files_that_are_exported_here_need_no_torch(exported, kind, pictures):
    arguments = [exported[1][kind], *find_images([str(pictures)])[:10], "--json", "--threshold", 0]
    done = run_without("predict", *arguments)
    status, out, err = call("predict", arguments)
    assert (done.returncode, done.stdout, done.stderr) == (status, out, err) == (0, out, "")
    assert out.count("\n") == 10
