"""A checkpoint can be scored, loaded and used without its config, or with another config."""

import json
import shutil
import sys

import pytest
import torch
from running.small_data import CLASSES, CUSTOM, DIGITS, PATHS, call, options, refused, train

from tresnet_downstream import load_model, predict
from tresnet_downstream.evaluation import read_run
from tresnet_downstream.registry import MODELS

DECODER = {
    "model__head__type": "MLDecoderHead",
    "model__head__embed_dim": 32,
    "model__head__num_heads": 4,
    "model__head__feedforward_dim": 64,
}
TIMM = """
_base_ = [{base!r}]
model = dict(backbone=dict(_delete_=True, type='TimmNetwork', model='resnet10t'))
"""
OWN_HEAD = """
from torch import nn
from tresnet_downstream.registry import MODELS

@MODELS.register_module()
class OwnHead(nn.Module):
    def __init__(self, in_channels, num_classes, hidden):
        super().__init__()
        self.first, self.second = nn.Linear(in_channels, hidden), nn.Linear(hidden, num_classes)

    def forward(self, features):
        return self.second(self.first(features.mean((2, 3))).relu())
"""
OWN_CONFIG = """
_base_ = [{base!r}]
custom_imports = dict(imports=['own_head_of_this_test'], allow_failed_imports=False)
model = dict(head=dict(_delete_=True, type='OwnHead', num_classes=None, hidden=7))
"""


def paths_of(data, **changes):
    """Options that name the validation data alone."""
    names = {key: value for key, value in PATHS.items() if key.startswith("val_")}
    return ["--cfg-options", *(f"{key}={value}" for key, value in {"data_root": data, **names, **changes}.items())]


def best_of(work_dir):
    content = torch.load(work_dir / "best.pth", weights_only=True)
    return content, content["score"]["mAP"]


def scored(work_dir, *arguments):
    """Scores into a folder; gives the mAP, the lines that begin with a note, and all that was printed."""
    status, out, err = call("test_multilabel", [*arguments[:-1], "--work-dir", work_dir, *arguments[-1]])
    assert (status, err) == (0, ""), err
    value = json.loads((work_dir / "scores.json").read_text())["headline"]["mAP"]
    return value, [line for line in out.splitlines() if line.startswith("note:")], out


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp("alone") / "shapes"
    train(data, work_dir, image_size=40)
    return work_dir


def test_a_checkpoint_describes_its_whole_model_in_plain_values(trained, data):
    for name in ("best.pth", "epoch_2.pth"):
        meta = torch.load(trained / name, weights_only=True)["meta"]
        assert meta["model"] == {
            "classifier": {
                "type": "ImageClassifier",
                "backbone": {"type": "TResNet", "layers": (1, 1, 1, 1), "width": 0.25},
                "head": {"type": "LinearHead", "num_classes": 3},
            },
            "pipeline": [{"type": "SquashResize", "size": 40}],
            "labels": {"threshold": 0.5, "top_k": 3},
            "training": {"class_images": [12, 10, 14]},
        }
    best = torch.load(trained / "best.pth", weights_only=True)
    assert str(data) not in str(best["meta"])
    assert "cfg" not in best["meta"]


def test_the_number_of_classes_is_described_where_the_data_decides_it(data, tmp_path):
    train(data, tmp_path, config=CUSTOM, model__head__num_classes=None, pretrained=None, max_epochs=1)
    described = best_of(tmp_path)[0]["meta"]["model"]["classifier"]
    assert described["head"] == {"type": "LinearHead", "num_classes": 3}
    assert described["backbone"] == {"type": "TResNet", "variant": "m", "layers": (1, 1, 1, 1), "width": 0.25}


def test_scores_at_the_size_of_training_whatever_the_config_says(trained, data, tmp_path):
    arguments = [DIGITS, trained / "best.pth", paths_of(data, num_workers=0)]
    value, notes, _ = scored(tmp_path, *arguments)
    assert value == pytest.approx(best_of(trained)[1], abs=1e-9)
    (note,) = notes
    assert "val_pipeline.0.size is 40 (96 in the config)" in note
    assert "model.backbone.layers is (1, 1, 1, 1) ((1, 1, 2, 1) in the config)" in note
    assert "model.head.num_classes is 3 (10 in the config)" in note
    pictures = [f"{read_run(tmp_path).image_folder}/{name}" for name in read_run(tmp_path).images]
    assert abs(read_run(tmp_path).probabilities - predict(load_model(trained / "best.pth"), pictures)).max() < 1e-5


def test_nothing_is_reported_where_config_and_checkpoint_agree(trained, data, tmp_path):
    arguments = [DIGITS, trained / "best.pth", options(data, image_size=40)]
    value, notes, _ = scored(tmp_path, *arguments)
    assert (value, notes) == (pytest.approx(best_of(trained)[1], abs=1e-9), [])


@pytest.mark.parametrize("with_config", [True, False])
def test_an_explicit_size_takes_precedence_and_is_reported(trained, data, tmp_path, with_config):
    config = [DIGITS] if with_config else []
    _, notes, _ = scored(tmp_path, *config, trained / "best.pth", paths_of(data, num_workers=0, image_size=64))
    assert notes[-1] == "note: values of the options are used where the checkpoint differs: " + (
        "val_pipeline.0.size is 64 (40 in the checkpoint)"
    )
    run = read_run(tmp_path)
    found = predict(load_model(trained / "best.pth", input_size=64), f"{run.image_folder}/{run.images[0]}")
    assert abs(run.probabilities[0] - found[0]).max() < 1e-5


def test_an_explicit_size_goes_into_a_checkpoints_other_pipeline(trained, data, tmp_path):
    content = torch.load(trained / "best.pth", weights_only=True)
    content["meta"]["model"]["pipeline"] = [{"type": "ResizeAndCrop", "size": 40}, {"type": "ToGray", "p": 0.0}]
    torch.save(content, tmp_path / "cropping.pth")
    arguments = [DIGITS, tmp_path / "cropping.pth"]
    _, notes, _ = scored(tmp_path / "a", *arguments, paths_of(data, num_workers=0))
    assert "val_pipeline is (ResizeAndCrop, ToGray) ((SquashResize) in the config)" in notes[0]
    _, notes, _ = scored(tmp_path / "b", *arguments, paths_of(data, num_workers=0, image_size=64))
    assert "image_size is 64 (40 in the checkpoint)" in notes[-1]


def test_explicit_parts_of_the_model_take_precedence_and_must_fit(trained, data, tmp_path):
    arguments = [DIGITS, trained / "best.pth", "--work-dir", tmp_path, *paths_of(data), "model.backbone.width=0.5"]
    refused("test_multilabel", arguments, "best.pth", "another model", "has shape")
    out = call("test_multilabel", arguments)[1]
    assert (
        "values of the options are used where the checkpoint differs: "
        "model.backbone.width is 0.5 (0.25 in the checkpoint)" in out
    )


@pytest.mark.parametrize("network", ["decoder", "timm", "width"])
def test_every_model_is_scored_and_loaded_from_the_checkpoint_alone(data, tmp_path, network):
    config, changes = DIGITS, {"width": {"model__backbone__width": 0.375}, "decoder": DECODER}.get(network, {})
    if network == "timm":
        pytest.importorskip("timm")
        config = tmp_path / "timm.py"
        config.write_text(TIMM.format(base=DIGITS))
        given = [o for o in options(data, max_epochs=1) if not o.startswith("model.backbone.")]
        assert call("train_multilabel", [config, "--work-dir", tmp_path / "shapes", *given])[0] == 0
    else:
        train(data, tmp_path / "shapes", **changes, max_epochs=1)
    path = tmp_path / "shapes" / "best.pth"
    value, notes, _ = scored(tmp_path / "scores", path, paths_of(data, num_workers=0))
    assert (value, notes) == (pytest.approx(best_of(path.parent)[1], abs=1e-9), [])
    run, model = read_run(tmp_path / "scores"), load_model(path)
    assert (run.classes, model.classes, model.input_size) == (CLASSES, CLASSES, 32)
    assert abs(run.probabilities[3] - predict(model, f"{run.image_folder}/{run.images[3]}")[0]).max() < 1e-5
    # In the form with a config, of another network: the same.
    again, notes, _ = scored(tmp_path / "again", CUSTOM, path, paths_of(data, num_workers=0))
    assert (again, len(notes)) == (value, 1)
    status, out, err = call("weights", ["convert", path, tmp_path / "out.pth", "--to", "tresnet"])
    assert status == 0, out + err
    wanted, got = load_model(path).state_dict(), load_model(tmp_path / "out.pth").state_dict()
    assert all(torch.equal(got[name], tensor) for name, tensor in wanted.items())


def test_results_of_a_checkpoint_alone_go_to_the_folder_of_its_training_and_leave_its_config(trained, data, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    before = {path: path.read_bytes() for path in folder.rglob("*.py")}
    status, out, err = call("test_multilabel", [folder / "best.pth", *paths_of(data, num_workers=0)])
    assert (status, err) == (0, "")
    assert f"wrote {folder / 'scores.json'}" in out
    assert read_run(folder).about["config"] == str(folder / "best.pth")
    scored(folder, DIGITS, folder / "best.pth", paths_of(data, num_workers=0))
    assert before
    assert all(path.read_bytes() == content for path, content in before.items())


def test_files_are_named_with_the_path_of_the_checkpoint_as_it_was_given(trained, data, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "run")
    for folder, checkpoint, name in ((".", "run/best.pth", "run/scores.json"), ("run", "best.pth", "scores.json")):
        monkeypatch.chdir(tmp_path / folder)
        status, out, err = call("test_multilabel", [checkpoint, *paths_of(data, num_workers=0)])
        assert (status, err) == (0, "")
        assert f"wrote {name}" in out.splitlines()


def test_results_of_a_checkpoint_that_lies_elsewhere_go_to_work_dirs(trained, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "copies").mkdir()
    shutil.copy(trained / "best.pth", tmp_path / "copies")
    status, out, err = call("test_multilabel", [tmp_path / "copies" / "best.pth", *paths_of(data, num_workers=0)])
    assert (status, err) == (0, "")
    assert "wrote work_dirs/copies/scores.json" in out


def test_errors_name_what_a_checkpoint_lacks(trained, tmp_path):
    refused("test_multilabel", [DIGITS], "digits_tresnet.py", "name the checkpoint")
    refused("test_multilabel", [trained / "best.pth", "--work-dir", tmp_path], "val_annotations", "--cfg-options")
    refused("test_multilabel", [tmp_path / "none.pth"], "none.pth", "no such checkpoint")
    content = torch.load(trained / "best.pth", weights_only=True)
    del content["meta"]["model"]
    torch.save(content, tmp_path / "older.pth")
    refused("test_multilabel", [tmp_path / "older.pth"], "older.pth", "does not describe its model", "CONFIG")


def test_a_custom_head_is_trained_scored_loaded_and_used(data, tmp_path, monkeypatch):
    (tmp_path / "own_head_of_this_test.py").write_text(OWN_HEAD)
    (tmp_path / "own.py").write_text(OWN_CONFIG.format(base=DIGITS))
    monkeypatch.syspath_prepend(tmp_path)
    given = [o for o in options(data, max_epochs=1) if o != "model.head.num_classes=3"]
    try:
        status, _, err = call("train_multilabel", [tmp_path / "own.py", "--work-dir", tmp_path / "shapes", *given])
        assert (status, err) == (0, ""), err
        path = tmp_path / "shapes" / "best.pth"
        described = best_of(path.parent)[0]["meta"]["model"]["classifier"]["head"]
        assert described == {"type": "OwnHead", "num_classes": 3, "hidden": 7}
        for arguments in ([path], [tmp_path / "own.py", path]):
            value, _, _ = scored(tmp_path / "scores", *arguments, paths_of(data, num_workers=0))
            assert value == pytest.approx(best_of(path.parent)[1], abs=1e-9)
        assert type(load_model(path).head).__name__ == "OwnHead"
        run = read_run(tmp_path / "scores")
        picture = f"{run.image_folder}/{run.images[0]}"
        assert abs(run.probabilities[0] - predict(load_model(path), picture)[0]).max() < 1e-5
        status, out, err = call("predict", [path, picture, "--threshold", 0])
        assert (status, err) == (0, "")
        assert all(name in out for name in CLASSES)
        refused("weights", ["convert", path, tmp_path / "o.pth", "--to", "release"], "OwnHead")
        del MODELS.module_dict["OwnHead"]  # as in a process that has not imported it
        for arguments in (["predict", [path, picture]], ["test_multilabel", [path]]):
            refused(*arguments, "best.pth", "'OwnHead'", "import the Python file")
    finally:
        MODELS.module_dict.pop("OwnHead", None)
        sys.modules.pop("own_head_of_this_test", None)
