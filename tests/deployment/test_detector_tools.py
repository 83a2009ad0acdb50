"""The commands for exported detectors: export, predict, score, and errors in one line."""

import json

import pytest

pytest.importorskip("mmdet", reason="needs the detection set-up")

import onnx
import torch
from cli.without_torch import run_without
from deployment.small_detectors import CLASSES, small_detector
from detection.small_boxes import CONFIG, flags
from running.small_data import DIGITS, call, refused

from tresnet_downstream.deployment import detector as detector_module
from tresnet_downstream.deployment.detector import ExportableDetector
from tresnet_downstream.errors import UserError
from tresnet_downstream.exported.formats import interface


@pytest.fixture(scope="session")
def checkpoint(trained_detector):
    return trained_detector[0] / "epoch_2.pth"


@pytest.fixture(scope="session")
def files(checkpoint, tmp_path_factory):
    """The trained detector, exported by command: paths by suffix."""
    folder, made = tmp_path_factory.mktemp("exported_detector"), {}
    for suffix in ("onnx", "xml"):
        made[suffix] = folder / f"m.{suffix}"
        status, out, err = call("export", [checkpoint, made[suffix]])
        assert (status, err) == (0, "")
        assert f"wrote {made[suffix]}" in out
        assert "takes images of 128 x 128, with any batch size" in out
        assert "boxes agree with torch's: scores differ by" in out
    return made


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["onnx", "xml"])
def test_predict_gives_the_lines_that_the_checkpoint_gives(suffix, files, checkpoint, boxes, tmp_path):
    pictures = sorted((boxes / "pictures").glob("val_*.png"))[:3]
    (tmp_path / "bad.png").write_text("no picture")
    rows = {}
    for model in (checkpoint, files[suffix]):
        drawn = tmp_path / model.suffix
        options = ["--json", "--threshold", "0.01", "--top-k", "4", "--batch-size", "2", "--out", drawn]
        status, out, err = call("predict", [model, *pictures, tmp_path / "bad.png", *options])
        assert status == 2
        assert "bad.png: unreadable image" in err
        rows[model.suffix] = [json.loads(line) for line in out.splitlines()]
        assert len(list(drawn.iterdir())) == 3
    wanted, found = rows[".pth"], rows[f".{suffix}"]
    assert [row["image"] for row in found] == [row["image"] for row in wanted]
    assert "error" in found[-1]
    for row, reference in zip(found[:-1], wanted[:-1], strict=True):
        assert len(row["boxes"]) == 4
        for box, other in zip(row["boxes"], reference["boxes"], strict=True):
            assert box["label"] == other["label"]
            assert box["score"] == pytest.approx(other["score"], abs=2e-5)
            assert box["box"] == pytest.approx(other["box"], abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["onnx", "xml"])
def test_predict_needs_neither_torch_nor_mmdetection(suffix, files, boxes, tmp_path):
    arguments = [files[suffix], *sorted((boxes / "pictures").glob("val_*.png")), "--json", "--threshold", 0.01, "--out"]
    done = run_without("predict", *arguments, tmp_path / "without")
    status, out, err = call("predict", [*arguments, tmp_path / "with"])
    assert (done.returncode, done.stdout, done.stderr) == (status, out, err) == (0, out, "")
    assert out.count('"score"') > 3
    for file in (tmp_path / "with").iterdir():
        assert file.read_bytes() == (tmp_path / "without" / file.name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["onnx", "xml"])
def test_scores_are_those_of_the_checkpoint(suffix, files, checkpoint, boxes, tmp_path):
    scores = {}
    for model in (checkpoint, files[suffix]):
        work_dir = tmp_path / model.suffix
        changes = flags(boxes) if model == checkpoint else flags_of_data(boxes)
        status, out, err = call("test_detection", [CONFIG, model, "--work-dir", work_dir, *changes])
        assert (status, err) == (0, ""), err
        assert out.count("wrote") == 3
        scores[model.suffix] = json.loads((work_dir / "scores.json").read_text())["bbox"]["headline"]
        run = json.loads((work_dir / "run.json").read_text())
        assert str(model) in json.dumps(run)
    numbers = {name: value for name, value in scores[".pth"].items() if isinstance(value, float)}
    assert numbers["AP"] > 0
    assert {name: scores[f".{suffix}"][name] for name in numbers} == pytest.approx(numbers, abs=0.05)


def flags_of_data(boxes):
    """``--cfg-options`` of the data alone."""
    return [each for each in flags(boxes) if not each.startswith(("model.", "train_cfg."))]


@pytest.mark.slow
def test_options_that_an_exported_file_cannot_follow_are_refused(files, boxes, tmp_path):
    arguments = [CONFIG, files["onnx"], "--work-dir", tmp_path]
    changes = [*flags_of_data(boxes), "model.test_cfg.score_thr=0.5"]
    refused("test_detection", [*arguments, *changes], "model.test_cfg.score_thr", "fixed in the file")
    refused("test_detection", [*arguments, "--amp", *flags_of_data(boxes)], "amp", "fixed in the file")
    refused("test_multilabel", [DIGITS, files["onnx"]], "m.onnx", "is an exported detector, not a classifier")
    refused("test_multilabel", [files["onnx"]], "is an exported detector", "name the config of its data first")
    refused("predict", [files["onnx"], boxes / "pictures", "--size", 64], "--size", "exported")


@pytest.mark.slow
def test_files_of_another_version_or_kind_are_refused(files, boxes, tmp_path):
    model = onnx.load(files["onnx"])
    entry = next(entry for entry in model.metadata_props if entry.key == "tresnet_downstream")
    told = json.loads(entry.value)
    for changes, words in (
        ({"version": 2}, "was exported by another version of tresnet-downstream"),
        ({"kind": "segmenter"}, "is an exported segmenter, but this package supports classifier, detector"),
        ({"picture": {}}, "has no valid list of classes or preparation of images"),
        ({"picture": {**told["picture"], "height": 256}}, "its input size differs from its description"),
        ({"classes": ["square"]}, "returns classes that it has no name for"),
    ):
        entry.value = json.dumps({**told, **changes})
        onnx.save(model, tmp_path / "m.onnx")
        # A low threshold: the class names are checked against the labels of the boxes that are returned.
        arguments = [tmp_path / "m.onnx", boxes / "pictures", "--threshold", 0.001]
        refused("predict", arguments, tmp_path / "m.onnx", words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["m.engine"], "must end in .onnx"),
        (["m.onnx", "--int8", "PICTURES"], "int8 needs OpenVINO"),
        (["m.onnx", "--size", "100"], "--size 100: the detector takes multiples of 32; give 96 or 128"),
        (["m.onnx", "--variant", "m"], "is a detector, and --variant is for classifiers"),
        (["m.xml", "--int8", "PICTURES"], "int8 needs at least 32 images"),
    ],
)
@pytest.mark.slow
def test_bad_targets_and_options_are_one_line(arguments, words, checkpoint, boxes, tmp_path):
    name, *options = (str(boxes / "pictures") if each == "PICTURES" else each for each in arguments)
    refused("export", [checkpoint, tmp_path / name, *options], words)
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_a_missing_package_is_named_with_the_extra(checkpoint, tmp_path, monkeypatch):
    there = interface.import_module

    def without(asked):
        if asked == "onnxscript":
            raise ImportError("No module named 'onnxscript'")
        return there(asked)

    monkeypatch.setattr(interface, "import_module", without)
    refused("export", [checkpoint, tmp_path / "m.xml"], "onnxscript", "pip install 'tresnet-downstream[export]'")


def test_other_detectors_are_refused_with_those_that_are_exported(tmp_path):
    for name, words in (
        ("Mask R-CNN", "has a mask head, but exported files return only boxes"),
        ("FSAF", "FSAF with FSAFHead cannot be exported"),
        ("Cascade R-CNN", "CascadeRCNN"),
        ("FoveaBox", "FOVEA with FoveaHead cannot be exported"),
    ):
        with pytest.raises(UserError) as error:
            ExportableDetector(small_detector(name, tmp_path))
        assert words in str(error.value)
        assert detector_module.EXPORTED in str(error.value)


def test_settings_that_cannot_be_exported_are_named(tmp_path):
    for key, value, words in (
        ("nms", {"type": "soft_nms", "iou_threshold": 0.5}, "choose dict(type='nms', iou_threshold=...)"),
        ("nms", None, "model.test_cfg.nms: is not set"),
        ("nms_pre", -1, "model.test_cfg.nms_pre=-1: give a whole number above 0"),
        ("max_per_img", None, "model.test_cfg.max_per_img=None"),
    ):
        model = small_detector("RetinaNet", tmp_path)
        model.bbox_head.test_cfg[key] = value
        with pytest.raises(UserError) as error:
            ExportableDetector(model)
        assert words in str(error.value)
    with pytest.raises(UserError, match="training mode"):
        ExportableDetector(small_detector("RetinaNet", tmp_path).train())


def test_the_detector_stays_as_it_is(tmp_path):
    model = small_detector("RetinaNet", tmp_path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    backbone = model.backbone
    ExportableDetector(model)
    assert model.backbone is backbone
    assert model.classes == CLASSES
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
