"""Shared folders: loading one gives the outputs of the checkpoint, and it contains no paths of this machine."""

import getpass
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from deployment.small_networks import SMALL, TIMM, V2, classifier
from running.small_data import call, refused

from tresnet_downstream import load_model
from tresnet_downstream.deployment.sharing import share
from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation import multilabel_scores
from tresnet_downstream.evaluation.outcomes import MultilabelRun
from tresnet_downstream.evaluation.scored import write_scored
from tresnet_downstream.evaluation.thresholds import Thresholds, write_thresholds
from tresnet_downstream.prediction.labels import predict
from tresnet_downstream.weights import read_checkpoint

ROOT = Path(__file__).parents[2]
CLASSES = ["cat", "dog", "Ærø", "d", "e"]
WITH_DECODER = {"head": {"type": "MLDecoderHead", "embed_dim": 32, "num_heads": 4, "feedforward_dim": 64}}


def write_checkpoint(path, backbone=SMALL, head=None, size=64, **content):
    """A checkpoint as a training leaves it; gives the network too."""
    head = head or {"type": "LinearHead"}
    arguments = {key: value for key, value in head.items() if key != "type"}
    model = classifier(backbone, head["type"], size) if not arguments else _with_head(backbone, head, size)
    described = {"type": "ImageClassifier", "backbone": dict(backbone), "head": {**head, "num_classes": 5}}
    described["multi_label"] = True
    meta = {
        "model": {
            "classifier": described,
            "pipeline": [dict(step) for step in model.pipeline],
            "labels": {"threshold": 0.5, "top_k": 3},
        },
        "dataset_meta": {"classes": CLASSES},
        "epoch": 3,
        "run": {
            "fixed": {"seed": 0, "loss": {"type": "AsymmetricLoss", "clip": 0.05}},
            "free": {"max_lr": 1e-3, "train_pipeline": [{"type": "Own", "folder": str(path.parent)}]},
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": model.state_dict(), "meta": meta, **content}, path)
    return model


def _with_head(backbone, head, size):
    from deployment.small_networks import drawn

    from tresnet_downstream.classification import ImageClassifier

    model = drawn(ImageClassifier(backbone, dict(head), classes=CLASSES))
    model.pipeline = ({"type": "SquashResize", "size": size},)
    return model


@pytest.fixture
def shared(tmp_path):
    """The path of a checkpoint and of its shared folder."""
    write_checkpoint(tmp_path / "run" / "best.pth")
    share(tmp_path / "run" / "best.pth", tmp_path / "shared", "apache-2.0")
    return tmp_path / "run" / "best.pth", tmp_path / "shared"


def logits_of(model, pictures):
    with torch.inference_mode():
        return model(pictures)


def card(folder):
    text = (folder / "README.md").read_text(encoding="utf-8")
    _, header, body = text.split("---\n", 2)
    return yaml.safe_load(header), body


NETWORKS = {
    "small": ({"backbone": SMALL}, True),
    "v2": ({"backbone": V2}, True),
    "named": ({"backbone": {"type": "TResNet", "variant": "m"}}, True),
    "timm": ({"backbone": TIMM}, True),
    "decoder": (WITH_DECODER, False),
    "slopes": ({"backbone": {**SMALL, "slopes": (1e-6, 1e-6)}}, False),
    "blocks": ({"backbone": {**SMALL, "blocks": ("basic", "bottleneck", "bottleneck", "bottleneck")}}, False),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_shared_model_gives_the_logits_of_its_checkpoint(tmp_path, name):
    arguments, in_timm = NETWORKS[name]
    write_checkpoint(tmp_path / "best.pth", **arguments)
    written = share(tmp_path / "best.pth", tmp_path / "shared", "apache-2.0")
    model, again = load_model(tmp_path / "best.pth"), load_model(tmp_path / "shared")
    pictures = torch.rand(2, 3, 64, 64)
    expected = logits_of(model, pictures)
    assert torch.equal(logits_of(again, pictures), expected)
    assert (again.classes, again.pipeline, again.multi_label, again.input_size, again.variant) == (
        *(model.classes, model.pipeline, model.multi_label, model.input_size, model.variant),
    )
    assert (written.not_in_timm == "") is in_timm
    header, body = card(tmp_path / "shared")
    assert header["library_name"] == ("timm" if in_timm else "tresnet-downstream")
    assert ("timm cannot load this model" in body) is not in_timm
    if not in_timm:
        assert "architecture" not in json.loads((tmp_path / "shared" / "config.json").read_text())
        return
    timm = pytest.importorskip("timm")
    theirs = timm.create_model(f"local-dir:{tmp_path / 'shared'}", pretrained=True).eval()
    config = timm.data.resolve_model_data_config(theirs)
    assert (list(config["input_size"]), config["crop_mode"]) == ([3, 64, 64], "squash")
    assert theirs.pretrained_cfg["label_names"] == CLASSES
    mean, std = (torch.tensor(config[key])[:, None, None] for key in ("mean", "std"))
    # timm adds up in another order.
    torch.testing.assert_close(logits_of(theirs, (pictures - mean) / std), expected, rtol=1e-4, atol=1e-5)


def test_tresnet_in_timm_has_exactly_the_same_weights(shared):
    timm = pytest.importorskip("timm")
    checkpoint, folder = shared
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).state_dict()
    ours = load_model(checkpoint).state_dict()
    assert torch.equal(theirs["head.fc.weight"], ours["head.fc.weight"])
    assert torch.equal(theirs["body.conv1.conv.weight"], ours["backbone.stem.conv.weight"])
    norm = ours["backbone.layer3.1.norm2.weight"]
    assert torch.equal(theirs["body.layer3.1.conv2.bn.weight"], norm.abs() + 1e-5)


@pytest.mark.parametrize("weights", ["raw", "averaged", None])
def test_raw_or_averaged_weights_are_chosen_as_in_load_model(tmp_path, weights):
    model = write_checkpoint(tmp_path / "best.pth")
    averaged = {name: tensor * 1.1 if "fc" in name else tensor for name, tensor in model.state_dict().items()}
    checkpoint = torch.load(tmp_path / "best.pth", weights_only=True)
    checkpoint |= {"averaged_state_dict": averaged, "score": {"weights": "averaged", "mAP": 61.5, "epoch": 2}}
    torch.save(checkpoint, tmp_path / "best.pth")
    share(tmp_path / "best.pth", tmp_path / "shared", "mit", weights=weights)
    expected = load_model(tmp_path / "best.pth", weights=weights)
    assert torch.equal(load_model(tmp_path / "shared").head.fc.weight, expected.head.fc.weight)
    assert f"The weights are the {weights or 'averaged'} weights" in card(tmp_path / "shared")[1]


def test_card_has_the_settings_of_the_checkpoint_and_a_section_for_the_author(shared):
    header, body = card(shared[1])
    assert header["license"] == "apache-2.0"
    assert {"image-classification", "multi-label-classification", "timm"} <= set(header["tags"])
    for text in ("To be written by the author", "| epochs trained | 3 |", "AsymmetricLoss(clip=0.05)", "| 0.001 |"):
        assert text in body
    assert "5, in the order of the outputs: cat, dog, Ærø, d, e." in body
    assert "Not measured." in body


def scored_run(folder, checkpoint, **about):
    draw = np.random.default_rng(0)
    targets = (draw.random((60, 5)) < 0.4).astype(np.int8)
    probabilities = np.clip(targets * 0.3 + draw.random((60, 5)) * 0.7, 0, 1).astype(np.float32)
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    about = {
        "checkpoint_sha256": digest,
        "weights": "raw",
        "data": str(folder / "val.json"),
        "date": "2026-01-02",
    } | about
    run = MultilabelRun(
        probabilities, targets, [f"{n}.jpg" for n in range(60)], tuple(CLASSES), str(folder), 0.5, 3, about
    )
    write_scored(multilabel_scores(probabilities, targets, CLASSES, 0.5, 3), run, folder)
    return json.loads((folder / "scores.json").read_text())["headline"]["mAP"]


@pytest.mark.parametrize("beside", [True, False])
def test_card_has_the_scores_of_a_run_with_intervals(tmp_path, beside):
    checkpoint = tmp_path / "run" / "best.pth"
    write_checkpoint(checkpoint)
    folder = checkpoint.parent if beside else tmp_path / "scored"
    score = scored_run(folder, checkpoint)
    share(checkpoint, tmp_path / "shared", "mit", scored=None if beside else folder)
    body = card(tmp_path / "shared")[1]
    (line,) = (line for line in body.splitlines() if line.startswith("| mAP |"))
    low, high = map(float, line.split("|")[3].split(" to "))
    assert f"| {score:.2f} |" in line
    assert low < score < high
    assert "On 60 images of `val.json`, scored on 2026-01-02." in body


def test_scores_of_another_checkpoint_are_not_in_the_card(tmp_path, capsys):
    checkpoint = tmp_path / "run" / "best.pth"
    write_checkpoint(checkpoint)
    scored_run(checkpoint.parent, checkpoint, checkpoint_sha256="0")
    with pytest.raises(UserError, match="run of another checkpoint"):
        share(checkpoint, tmp_path / "shared", "mit", scored=checkpoint.parent)
    assert not (tmp_path / "shared").exists()
    share(checkpoint, tmp_path / "shared", "mit")
    assert "another checkpoint" in capsys.readouterr().out
    assert "95%" not in card(tmp_path / "shared")[1]


def test_scores_of_the_other_weights_are_refused(tmp_path):
    checkpoint = tmp_path / "run" / "best.pth"
    write_checkpoint(checkpoint)
    scored_run(tmp_path / "scored", checkpoint, weights="averaged")
    with pytest.raises(UserError, match="averaged weights, but the raw weights are shared"):
        share(checkpoint, tmp_path / "shared", "mit", scored=tmp_path / "scored")


def thresholds(path, classes=CLASSES, task="multilabel", **more):
    limits = dict.fromkeys(classes, 0.3) | {classes[0]: None}
    about = {"run": str(path.parent / "private"), "checkpoint": str(path.parent / "best.pth"), "weights": "raw", **more}
    write_thresholds(Thresholds(limits, task, "max-f1", "per-class", (), (), about), path)
    return limits


def test_thresholds_are_loaded_with_the_model(tmp_path):
    write_checkpoint(tmp_path / "best.pth")
    limits = thresholds(tmp_path / "limits.json")
    share(tmp_path / "best.pth", tmp_path / "shared", "mit", thresholds=tmp_path / "limits.json")
    model = load_model(tmp_path / "shared")
    assert model.thresholds == limits
    assert list(model.thresholds) == CLASSES
    assert load_model(tmp_path / "best.pth").thresholds is None
    assert json.loads((tmp_path / "shared" / "thresholds.json").read_text())["chosen_on"]["run"] == "private"


@pytest.mark.parametrize(
    "changes", [{"classes": ["cat", "dog"]}, {"task": "detection"}, {"checkpoint_sha256": "0" * 64}]
)
def test_thresholds_of_another_model_are_refused(tmp_path, changes):
    write_checkpoint(tmp_path / "best.pth")
    thresholds(tmp_path / "limits.json", **changes)
    with pytest.raises(UserError, match=r"limits\.json"):
        share(tmp_path / "best.pth", tmp_path / "shared", "mit", thresholds=tmp_path / "limits.json")
    assert not (tmp_path / "shared").exists()


@pytest.mark.slow
def test_exported_file_is_shared_without_paths_of_source_files(exported, tmp_path):
    model, paths = exported
    described = {"type": "ImageClassifier", "backbone": dict(SMALL), "head": {"type": "LinearHead", "num_classes": 5}}
    meta = {"model": {"classifier": described, "pipeline": list(model.pipeline)}, "dataset_meta": {"classes": CLASSES}}
    torch.save({"state_dict": model.state_dict(), "meta": meta}, tmp_path / "best.pth")
    share(tmp_path / "best.pth", tmp_path / "shared", "mit", exported=paths["onnx"])
    assert str(ROOT).encode() not in (tmp_path / "shared" / "model.onnx").read_bytes()
    from tresnet_downstream.exported.opening import open_exported

    image = np.full((64, 64, 3), 120, np.uint8)
    opened = open_exported(tmp_path / "shared" / "model.onnx")
    np.testing.assert_allclose(predict(opened, image), predict(model, image), atol=1e-4)
    write_checkpoint(tmp_path / "other.pth")
    with pytest.raises(UserError, match="gives other outputs"):
        share(tmp_path / "other.pth", tmp_path / "shared_2", "mit", exported=paths["onnx"])
    assert not (tmp_path / "shared_2").exists()


@pytest.mark.slow
def test_exported_detector_is_shared_only_with_its_own_checkpoint(trained_detector, tmp_path):
    predict_module = pytest.importorskip("tresnet_downstream.detection.predict")
    from tresnet_downstream.deployment.detector import ExportableDetector
    from tresnet_downstream.deployment.export import export
    from tresnet_downstream.exported.opening import open_exported

    (checkpoint,) = trained_detector[0].glob("best_*.pth")
    export(ExportableDetector(predict_module.load_detector(checkpoint), 96), tmp_path / "d.onnx")
    share(checkpoint, tmp_path / "shared", "mit", exported=tmp_path / "d.onnx")
    assert open_exported(tmp_path / "shared" / "model.onnx").kind == "detector"
    other = read_checkpoint(checkpoint)
    for tensor in other["state_dict"].values():
        if tensor.is_floating_point():
            tensor.mul_(1.01)
    torch.save(other, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"d\.onnx: gives other outputs than .*other\.pth; export that checkpoint"):
        share(tmp_path / "other.pth", tmp_path / "shared_2", "mit", exported=tmp_path / "d.onnx")
    assert not (tmp_path / "shared_2").exists()


def test_shared_weights_have_the_permissions_of_any_new_file(shared):
    modes = {path.name: path.stat().st_mode for path in shared[1].iterdir()}
    assert len(set(modes.values())) == 1, modes


def test_shared_files_contain_no_paths_of_this_machine(tmp_path):
    checkpoint = tmp_path / "run" / "best.pth"
    write_checkpoint(checkpoint)
    scored_run(checkpoint.parent, checkpoint, command=f"python {tmp_path}", config=f"{tmp_path}/c.py")
    thresholds(tmp_path / "limits.json")
    share(checkpoint, tmp_path / "shared", "mit", thresholds=tmp_path / "limits.json")
    for path in (tmp_path / "shared").iterdir():
        content = path.read_bytes()
        for secret in (str(tmp_path), str(ROOT), str(Path.home()) + os.sep, f"/{getpass.getuser()}/"):
            assert secret.encode() not in content, (path, secret)


def test_existing_files_are_not_overwritten(shared, tmp_path, capsys):
    checkpoint, folder = shared
    before = (folder / "model.safetensors").read_bytes()
    share(checkpoint, folder, "apache-2.0")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "shared"], "the same content was moved"
    write_checkpoint(tmp_path / "other.pth")
    share(tmp_path / "other.pth", folder, "apache-2.0")
    assert "shared_1" in capsys.readouterr().out
    assert (tmp_path / "shared_1" / "model.safetensors").read_bytes() == before
    assert (folder / "model.safetensors").read_bytes() != before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("")
    with pytest.raises(UserError, match=r"is not a shared folder and contains notes\.txt"):
        share(checkpoint, tmp_path / "mine", "apache-2.0")
    assert os.listdir(tmp_path / "mine") == ["notes.txt"]


def test_folder_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "best.pth")
    monkeypatch.setattr("tresnet_downstream.deployment.sharing.folder.model_card", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        share(tmp_path / "best.pth", tmp_path / "shared", "mit")
    assert os.listdir(tmp_path) == ["best.pth"]


@pytest.mark.parametrize("licence", ["", "my own\nlicence", "a: b"])
def test_invalid_licence_is_refused(tmp_path, licence):
    write_checkpoint(tmp_path / "best.pth")
    with pytest.raises(UserError, match="`licence`"):
        share(tmp_path / "best.pth", tmp_path / "shared", licence)


@pytest.mark.parametrize(
    ("licence", "advice"), [("mit", ""), ("apache2", "did you mean apache-2.0"), ("my-own", "list, give other")]
)
def test_licence_that_the_hub_does_not_list_is_told_with_the_nearest(tmp_path, capsys, licence, advice):
    write_checkpoint(tmp_path / "best.pth")
    share(tmp_path / "best.pth", tmp_path / "shared", licence)
    told = capsys.readouterr().out
    assert (f"`licence` {licence}: is not in the hub's list" in told) == bool(advice)
    assert advice in told
    assert card(tmp_path / "shared")[0]["license"] == licence


def test_share_tells_that_the_card_has_no_scores_and_what_to_do(tmp_path, capsys):
    write_checkpoint(tmp_path / "best.pth")
    share(tmp_path / "best.pth", tmp_path / "shared", "mit")
    assert "note: the model card has no scores: score the checkpoint" in capsys.readouterr().out


def test_backbone_alone_is_refused(tmp_path):
    from tresnet_downstream.backbones import TResNet

    torch.save({"state_dict": TResNet(layers=(1, 1, 1, 1), width=0.25).state_dict()}, tmp_path / "backbone.pth")
    with pytest.raises(UserError, match="without a head"):
        share(tmp_path / "backbone.pth", tmp_path / "shared", "mit")


def hub_cache(folder, cache):
    """A cache as the hub's client lays it out: files by their checksum, and names of a commit that link to them."""
    commit, repository = "0123456789abcdef0123456789abcdef01234567", cache / "models--owner--name"
    for part in ("blobs", "refs", f"snapshots/{commit}"):
        (repository / part).mkdir(parents=True)
    for ref in ("main", "v1"):
        (repository / "refs" / ref).write_text(commit)
    for path in folder.iterdir():
        blob = repository / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copy(path, blob)
        (repository / "snapshots" / commit / path.name).symlink_to(Path("../..") / "blobs" / blob.name)
    return repository


def test_model_is_loaded_from_the_hubs_cache_offline(shared, tmp_path):
    pytest.importorskip("timm")
    checkpoint, folder = shared
    hub_cache(folder, tmp_path / "cache")
    pictures = torch.rand(2, 3, 64, 64)
    torch.save(pictures, tmp_path / "pictures.pt")
    program = f"""
import torch, timm
from tresnet_downstream import load_model
pictures = torch.load({str(tmp_path / "pictures.pt")!r}, weights_only=True)
names = ["hf://owner/name", "hf://owner/name@v1", "hf://owner/name/model.safetensors"]
with torch.inference_mode():
    logits = [load_model(name)(pictures) for name in names]
    logits.append(timm.create_model("hf-hub:owner/name", pretrained=True).eval()(pictures))
torch.save(logits, {str(tmp_path / "logits.pt")!r})
try:
    load_model("hf://owner/other")
except ValueError as error:
    print(error)
"""
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": str(ROOT),
    }
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    assert "hf://owner/other: is not in the hub's cache" in ended.stdout
    expected = logits_of(load_model(checkpoint), pictures)
    *ours, theirs = torch.load(tmp_path / "logits.pt", weights_only=True)
    assert all(torch.equal(logits, expected) for logits in ours)
    torch.testing.assert_close(theirs, expected, rtol=1e-4, atol=1e-5)


def test_pickle_in_the_place_of_the_weights_is_not_read(shared):
    checkpoint, folder = shared
    shutil.copy(checkpoint, folder / "model.safetensors")
    with pytest.raises(UserError, match="is not a safetensors file"):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, "another version"),
        ({"meta": []}, "does not describe a model"),
        ({"names": "timm"}, "missing"),
        ({"names": "other"}, "does not have the weights"),
    ],
)
def test_damaged_description_gives_an_error_in_one_line(shared, change, words):
    config = shared[1] / "config.json"
    content = json.loads(config.read_text())
    content["tresnet_downstream"] |= change
    config.write_text(json.dumps(content))
    with pytest.raises(UserError, match=words):
        load_model(shared[1])


def test_foreign_component_in_a_description_is_not_built(shared):
    config = shared[1] / "config.json"
    content = json.loads(config.read_text())
    content["tresnet_downstream"]["meta"]["model"]["classifier"]["backbone"] = {"type": "subprocess.Popen", "args": "x"}
    config.write_text(json.dumps(content))
    with pytest.raises(UserError, match="not registered"):
        load_model(shared[1])


def test_folder_without_weights_gives_an_error_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"without model\.safetensors"):
        load_model(tmp_path)


class Api:
    """In the place of the hub's client."""

    calls = []  # noqa: RUF012 - of the class
    error = None

    def create_repo(self, repository, private, exist_ok):
        if Api.error:
            raise Api.error
        Api.calls.append(("create", repository, private, exist_ok))
        return f"https://hub/{repository}"

    def upload_folder(self, repo_id, folder_path, commit_message):
        Api.calls.append(("upload", repo_id, sorted(os.listdir(folder_path))))


def test_upload_uses_the_hubs_client_and_reports_errors_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    monkeypatch.setattr(Api, "calls", [])
    write_checkpoint(tmp_path / "best.pth")
    written = share(tmp_path / "best.pth", tmp_path / "shared", "mit", push_to="me/birds", private=True)
    assert written.url == "https://hub/me/birds"
    files = ["README.md", "config.json", "model.safetensors"]
    assert Api.calls == [("create", "me/birds", True, True), ("upload", "me/birds", files)]
    text = (tmp_path / "shared" / "README.md").read_text()
    assert "# birds" in text
    assert 'load_model("hf://me/birds")' in text
    monkeypatch.setattr(Api, "error", OSError("no token\nfound"))
    with pytest.raises(UserError, match=r"was written but could not be uploaded \(no token found\)"):
        share(tmp_path / "best.pth", tmp_path / "shared", "mit", push_to="me/birds")
    with pytest.raises(UserError, match="OWNER/NAME"):
        share(tmp_path / "best.pth", tmp_path / "other", "mit", push_to="birds")
    assert not (tmp_path / "other").exists()


def test_command_shares_a_model_and_names_what_timm_cannot_load(tmp_path):
    write_checkpoint(tmp_path / "best.pth", **WITH_DECODER)
    arguments = ["share", tmp_path / "best.pth", tmp_path / "shared"]
    status, out, err = call("weights", [*arguments, "--licence", "mit", "--name", "My birds"])
    assert (status, err) == (0, "")
    assert "README.md, config.json, model.safetensors" in out
    assert "timm cannot load it: timm has no network with a MLDecoderHead" in out
    assert "# My birds" in (tmp_path / "shared" / "README.md").read_text()
    refused("weights", [*arguments, "--licence", "mit", "--private"], "--private", "--push-to")
    with pytest.raises(SystemExit):
        call("weights", arguments)


def test_folder_instead_of_a_checkpoint_gives_an_error(shared):
    with pytest.raises(UserError, match=r"is a folder; name a file; for a shared folder, .*model\.safetensors"):
        read_checkpoint(shared[1])


def test_shared_detector_predicts_the_boxes_of_its_checkpoint(trained_detector, tmp_path, boxes):
    predict_module = pytest.importorskip("tresnet_downstream.detection.predict")
    (checkpoint,) = trained_detector[0].glob("best_*.pth")
    written = share(checkpoint, tmp_path / "shared", "mit")
    assert "no detectors" in written.not_in_timm
    assert written.loader == "load_detector"
    models = [predict_module.load_detector(source) for source in (checkpoint, tmp_path / "shared")]
    picture = next((boxes / "pictures").iterdir())
    first, second = (next(predict_module.detect(model, picture)) for model in models)
    assert models[0].classes == models[1].classes
    np.testing.assert_array_equal(first.boxes, second.boxes)
    np.testing.assert_array_equal(first.scores, second.scores)
    header, body = card(tmp_path / "shared")
    assert header["pipeline_tag"] == "object-detection"
    assert "load_detector" in body
