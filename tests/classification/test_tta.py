"""Test-time augmentation of classifiers: the mean of two predictions, and its record in the run folder."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from running.small_data import DIGITS, PATHS, SMALL_NETWORK, call, make_small_data

from tresnet_downstream import load_model, predict
from tresnet_downstream.deployment import fuse
from tresnet_downstream.evaluation.runs import read_run
from tresnet_downstream.text_files import read_text


def options(data):
    changes = {"data_root": data, **PATHS, **SMALL_NETWORK, "max_epochs": 1}
    return ["--cfg-options", *(f"{key}={value}" for key, value in changes.items())]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of pictures, and the checkpoint of a classifier that was trained on them."""
    folder = tmp_path_factory.mktemp("classifier_tta")
    data = make_small_data(folder / "data")
    status, _, err = call("train_multilabel", [DIGITS, "--work-dir", folder / "run", *options(data)])
    assert (status, err) == (0, "")
    return data, folder / "run" / "best.pth"


@pytest.fixture(scope="module")
def scored(trained, tmp_path_factory):
    """A work dir in which it is scored without and then with test-time augmentation; and what was printed."""
    data, checkpoint = trained
    folder = tmp_path_factory.mktemp("scored_tta")
    test = [DIGITS, checkpoint, "--work-dir", folder]
    assert call("test_multilabel", [*test, *options(data)])[0] == 0
    status, out, err = call("test_multilabel", [*test, "--tta", "--report", folder / "report", *options(data)])
    assert status == 0, err
    return folder, out


def resized(path):
    return np.asarray(Image.open(path).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR))


def test_probabilities_are_the_mean_of_the_image_and_its_mirror_image(trained, scored):
    data, checkpoint = trained
    model, run = load_model(checkpoint), read_run(scored[0])
    images = [resized(data / "pictures" / name) for name in run.images]
    mirrored = [np.ascontiguousarray(image[:, ::-1]) for image in images]
    by_hand = (predict(model, images) + predict(model, mirrored)) / 2
    np.testing.assert_allclose(run.probabilities, by_hand, atol=1e-5)
    assert np.abs(by_hand - predict(model, images)).max() > 1e-4
    model.tta = True
    np.testing.assert_allclose(predict(model, images), by_hand, atol=1e-6)
    np.testing.assert_allclose(predict(fuse(model), images), by_hand, atol=1e-5)


def test_a_symmetric_image_has_the_same_probabilities(trained):
    model = load_model(trained[1])
    half = np.random.RandomState(0).randint(0, 255, (32, 16, 3), np.uint8)
    symmetric = np.concatenate([half, half[:, ::-1]], 1)
    without = predict(model, symmetric)
    model.tta = True
    np.testing.assert_array_equal(predict(model, symmetric), without)


def test_logits_and_losses_do_not_change(trained):
    model = load_model(trained[1])
    inputs = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        without = model(inputs)
        model.tta = True
        assert torch.equal(model(inputs), without)


def test_the_run_its_report_and_the_table_say_so(scored):
    folder, out = scored
    assert "weights, val split, tta" in out
    text = "mean of the probabilities of each image and its mirror image"
    assert read_run(folder).about["tta"] == text
    assert json.loads((folder / "scores.json").read_text())["run"]["tta"] == text
    page = read_text(folder / "report" / "report.md")
    assert "test-time augmentation" in page
    assert text in page


def test_the_result_without_augmentation_is_not_overwritten(scored):
    folder, _ = scored
    without = read_run(folder / "earlier_1")
    assert "tta" not in without.about
    assert (without.probabilities != read_run(folder).probabilities).any()


def test_thresholds_say_that_they_were_chosen_with_it(scored, tmp_path):
    status, _, err = call("thresholds", [scored[0], "--out", tmp_path / "thresholds.json"])
    assert (status, err) == (0, "")
    assert "mirror image" in json.loads((tmp_path / "thresholds.json").read_text())["chosen_on"]["tta"]


def test_thresholds_that_were_chosen_with_it_are_judged_without_it_with_a_note(scored, tmp_path):
    file, earlier = tmp_path / "thresholds.json", scored[0] / "earlier_1"
    status, out, err = call("thresholds", [scored[0], "--out", file, "--apply", earlier])
    assert (status, err) == (0, "")
    note = "chosen with test-time augmentation, scored without it"
    assert f"{earlier} (chosen on this data, so the scores are too high; {note})" in out
    assert f"{scored[0]} (chosen on this data, so the scores are too high)" in out


def test_the_predict_tool_gives_the_same(trained, scored):
    data, checkpoint = trained
    run = read_run(scored[0])
    paths = [data / "pictures" / name for name in run.images]
    status, out, err = call("predict", [checkpoint, *paths, "--tta", "--threshold", "0", "--json"])
    assert (status, err) == (0, "")
    for line, probabilities in zip(out.splitlines(), run.probabilities, strict=True):
        found = {each["label"]: each["probability"] for each in json.loads(line)["labels"]}
        np.testing.assert_allclose([found[name] for name in run.classes], probabilities, atol=1e-5)


def test_an_exported_model_is_refused(tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    (tmp_path / "model.onnx").write_bytes(b"")
    status, _, err = call("predict", [tmp_path / "model.onnx", tmp_path / "a.png", "--tta"])
    assert status == 2
    assert err.endswith("model.onnx: --tta is for weight files; an exported model has no test-time augmentation\n")


def test_a_detector_is_refused_and_the_line_names_the_tool_that_has_it(tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    torch.save({"state_dict": {"bbox_head.weight": torch.zeros(1)}, "meta": {}}, tmp_path / "detector.pth")
    status, _, err = call("predict", [tmp_path / "detector.pth", tmp_path / "a.png", "--tta", "--config", "none.py"])
    assert status == 2
    assert "for detectors only tools/test.py has it" in err
