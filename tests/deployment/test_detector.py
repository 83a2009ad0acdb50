"""Exported detectors predict the boxes of MMDetection."""

import json

import numpy as np
import pytest

pytest.importorskip("mmdet", reason="needs the detection set-up")

import torch
from deployment.small_detectors import CHANGES, CLASSES, pictures, small_detector
from PIL import Image

from tresnet_downstream.deployment.detector import ExportableDetector
from tresnet_downstream.deployment.export import export
from tresnet_downstream.detection.predict import LoadedDetector
from tresnet_downstream.errors import UserError
from tresnet_downstream.exported import ExportedDetector
from tresnet_downstream.exported.detector import boxes_of_each, inputs_of
from tresnet_downstream.exported.file import ExportedFile

FAMILIES = tuple(CHANGES)


def assert_same(found, reference):
    """The boxes of each picture, best first, but for one in a hundred, where suppression met two that are equal."""
    alone = total = 0
    for here, there in zip(found, reference, strict=True):
        assert (np.diff(here.scores) <= 0).all()
        # Of a full list, those with the lowest score may be others.
        end = there.scores.min() + 2e-5 if len(there.scores) >= 100 else -1
        for some, others in ((here, there), (there, here)):
            total += len(some.scores)
            for box, score, label in zip(some.boxes, some.scores, some.labels, strict=True):
                is_near = np.abs(others.boxes - box).max(1, initial=0) < 2e-2
                near = is_near & (np.abs(others.scores - score) < 2e-5) & (others.labels == label)
                alone += not near.any() and score > end
    assert total > 10
    assert alone <= total / 100


def in_torch(exportable, prepared, threshold):
    inputs = inputs_of(prepared, threshold)
    with torch.inference_mode():
        outputs = exportable.module(*(torch.from_numpy(inputs[name]) for name in exportable.inputs))
    return boxes_of_each(dict(zip(exportable.outputs, (output.numpy() for output in outputs), strict=True)))


@pytest.mark.parametrize("threshold", [0.0, 0.3])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_graph_finds_the_boxes_of_mmdetection(name, threshold, tmp_path):
    exportable = ExportableDetector(small_detector(name, tmp_path))
    prepared = [exportable.prepare(picture) for picture in pictures(5)]
    reference = exportable.predicted(prepared, threshold)
    assert sum(len(each.scores) for each in reference) >= 5
    assert np.ptp(np.concatenate([each.scores for each in reference])) > 0.1
    assert_same(in_torch(exportable, prepared, threshold), reference)


@pytest.fixture(scope="session")
def exported_detectors(tmp_path_factory):
    """Exports by family and suffix, each made once."""
    made = {}

    def exported(name, suffix):
        if (name, suffix) not in made:
            folder = tmp_path_factory.mktemp("detectors")
            exportable = ExportableDetector(small_detector(name, folder))
            made[name, suffix] = exportable, export(exportable, folder / f"m.{suffix}")
        return made[name, suffix]

    return exported


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["onnx", "xml"])
@pytest.mark.parametrize("name", FAMILIES)
def test_an_exported_file_finds_the_boxes_of_mmdetection_for_any_batch(name, suffix, exported_detectors):
    exportable, written = exported_detectors(name, suffix)
    assert "boxes agree with torch's" in written.comparison
    exported = ExportedDetector(written.path)
    assert exported.classes == CLASSES
    assert exported.input_size == (96, 128)
    prepared = [exportable.prepare(picture) for picture in pictures(5, seed=1)]
    reference = exportable.predicted(prepared, 0.1)
    for size in (1, 2, 5):
        found = [each for start in range(0, 5, size) for each in exported.run(prepared[start : start + size], 0.1)]
        assert_same(found, reference)


@pytest.mark.slow
def test_pictures_that_need_no_padding_give_what_the_checkpoint_gives(exported_detectors, tmp_path):
    detector = small_detector("RetinaNet", tmp_path)
    files = []
    for index, picture in enumerate(pictures(4)):
        if index in (0, 3):  # of the network's shape, and twice as large
            files.append(str(tmp_path / f"{index}.png"))
            Image.fromarray(picture).save(files[-1])
    exported = ExportedDetector(exported_detectors("RetinaNet", "onnx")[1].path)
    for threshold in (None, 0.5, 0.01):
        wanted = list(LoadedDetector(detector).find(files, 2, threshold))
        assert_same(list(exported.find(files, 2, threshold)), wanted)
    assert wanted[1].boxes.max() > 200  # of the larger picture, in its own pixels


@pytest.mark.slow
def test_a_picture_that_cannot_be_read_says_why(exported_detectors, tmp_path):
    (tmp_path / "bad.png").write_text("no picture")
    exported = ExportedDetector(exported_detectors("RetinaNet", "onnx")[1].path)
    good, bad = exported.find([pictures(1)[0], str(tmp_path / "bad.png")], 2)
    assert not good.error
    assert len(good.scores)
    assert "bad.png: unreadable image" in bad.error
    assert len(bad.scores) == 0


@pytest.mark.slow
def test_a_file_with_other_boxes_than_torch_is_not_written(tmp_path, monkeypatch):
    right = ExportedFile.run

    def moved(self, inputs):
        return {name: value + (name == "boxes") for name, value in right(self, inputs).items()}

    monkeypatch.setattr(ExportedFile, "run", moved)
    exportable = ExportableDetector(small_detector("RetinaNet", tmp_path))
    with pytest.raises(UserError, match=r"not exported: \d+ of \d+ boxes differ from torch's"):
        export(exportable, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.slow
def test_the_graph_keeps_what_int8_would_spoil_in_float(tmp_path):
    import openvino

    for index, picture in enumerate(pictures(33)):
        Image.fromarray(picture).save(tmp_path / f"{index}.png")
    (tmp_path / "7.png").write_text("no picture")
    files = [str(tmp_path / f"{index}.png") for index in range(33)]
    exportable = ExportableDetector(small_detector("RetinaNet", tmp_path))
    written = export(exportable, tmp_path / "m8.xml", files)
    assert "found again (IoU 0.5)" in written.comparison
    assert "unreadable images left out of the calibration: 1; the first: " in str(written)
    operations = openvino.Core().read_model(written.path).get_ops()
    whole = [op for op in operations if op.get_type_name() == "Constant" and op.get_element_type().to_string() == "i8"]
    assert len(whole) > 20
    ends = {name: [op.get_type_name() for op in operations].count(name) for name in ("FakeQuantize", "Exp")}
    assert ends["Exp"] >= 5
    suppression = next(op for op in operations if "NonMaxSuppression" in op.get_type_name())
    seen, waiting = set(), [suppression]
    while waiting:  # from the boxes back to the convolutions
        op = waiting.pop()
        if op.get_friendly_name() in seen or op.get_type_name() == "Convolution":
            continue
        seen.add(op.get_friendly_name())
        assert op.get_type_name() != "FakeQuantize", op.get_friendly_name()
        waiting += [value.get_node() for value in op.input_values()]


@pytest.mark.slow
def test_description_in_an_exported_file(tmp_path):
    told = json.loads(ExportableDetector(small_detector("RTMDet", tmp_path)).text())
    assert (told["kind"], told["version"], told["classes"]) == ("detector", 1, list(CLASSES))
    assert told["picture"] == {
        "height": 96,
        "width": 128,
        "fit_height": 96,
        "fit_width": 128,
        "keep_ratio": True,
        "pad_divisor": 0,
        "pad_value": [114.0, 114.0, 114.0],
    }
