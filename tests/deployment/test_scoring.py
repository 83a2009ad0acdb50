"""The commands that score checkpoints also score exported classifiers, with the same scores."""

import json

import pytest
from running.small_data import DIGITS, PATHS, call, make_small_data, options, refused, train
from running.small_folders import FOLDERS, make_class_folders
from running.small_folders import train as train_single_label

pytestmark = pytest.mark.slow


def scored(tool, arguments, work_dir, data_options):
    """The headline scores, and what was printed."""
    status, out, err = call(tool, [*arguments, "--work-dir", work_dir, *data_options])
    assert (status, err) == (0, ""), err
    headline = json.loads((work_dir / "scores.json").read_text())["headline"]
    return {name: value for name, value in headline.items() if isinstance(value, float)}, out


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_small_data(tmp_path_factory.mktemp("shapes") / "data")


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A checkpoint, and its export to ONNX."""
    work_dir = tmp_path_factory.mktemp("trained")
    train(data, work_dir)
    status, _, err = call("export", [work_dir / "best.pth", work_dir / "m.onnx"])
    assert (status, err) == (0, "")
    return work_dir / "best.pth", work_dir / "m.onnx"


def of_data(data, **changes):
    names = {key: value for key, value in PATHS.items() if key.startswith("val_")}
    return ["--cfg-options", *(f"{key}={value}" for key, value in {"data_root": data, **names, **changes}.items())]


@pytest.mark.parametrize("workers", [0, 2])
def test_scores_are_those_of_the_checkpoint_with_a_config_and_alone(trained, data, tmp_path, workers):
    checkpoint, exported = trained
    changes = of_data(data, num_workers=workers)
    wanted, _ = scored("test_multilabel", [DIGITS, checkpoint], tmp_path / "a", changes)
    for index, arguments in enumerate(([DIGITS, exported], [exported])):
        found, out = scored("test_multilabel", arguments, tmp_path / str(index), changes)
        assert found == pytest.approx(wanted, abs=0.05)
        assert f"{exported}, exported weights" in out


def test_a_softmax_is_scored_too(tmp_path):
    folders = make_class_folders(tmp_path / "folders")
    train_single_label(folders, tmp_path / "run")
    exported = tmp_path / "m.xml"
    status, _, err = call("export", [tmp_path / "run/best.pth", exported])
    assert (status, err) == (0, "")
    changes = ["--cfg-options", f"data_root={folders}", "val_images=val", "num_workers=0"]
    wanted, _ = scored("test_classifier", [FOLDERS, tmp_path / "run/best.pth"], tmp_path / "a", changes)
    assert scored("test_classifier", [FOLDERS, exported], tmp_path / "b", changes)[0] == pytest.approx(wanted, abs=0.05)
    refused("test_multilabel", [exported, *changes], "m.xml", "one label per image", "test_classifier.py")


def test_what_an_exported_file_cannot_be_scored_with_is_refused(trained, data, tmp_path):
    _, exported = trained
    arguments = [DIGITS, exported, "--work-dir", tmp_path]
    refused("test_multilabel", [*arguments, *options(data)], "image_size", "fixed in the file")
    refused("test_multilabel", [*arguments, "--amp", *of_data(data)], "amp", "fixed in the file")
    refused("test_multilabel", [*arguments, "--weights", "averaged", *of_data(data)], "--weights averaged", "m.onnx")
    refused("test_classifier", [FOLDERS, exported, "--work-dir", tmp_path], "m.onnx", "several labels per image")
    refused("test_multilabel", [DIGITS, tmp_path / "no.onnx", *of_data(data)], "no.onnx", "there is no such file")
