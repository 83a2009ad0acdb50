"""The scores of groups of images by their size and their number of labels."""

import json

import numpy as np
import pytest
from evaluation.report.test_single_label import made
from evaluation.small_runs import detection_run, multilabel_run
from PIL import Image
from sklearn.metrics import f1_score

from tresnet_downstream.evaluation import write_multilabel_run, write_report


def groups(folder, key):
    (run,) = json.loads((folder / "scores.json").read_text())["runs"]
    return {group["group"]: group for group in run[key]}


def test_f1_by_number_of_labels_is_that_of_scikit_learn(tmp_path):
    run = multilabel_run(tmp_path / "run")
    write_report(tmp_path / "run", tmp_path / "report", resamples=100)
    found = groups(tmp_path / "report", "by_number_of_labels")
    numbers = run.targets.sum(1)
    assert sum(group["images"] for group in found.values()) == 120
    for name, rows in (("1", numbers == 1), ("4 to 5", (numbers >= 4) & (numbers <= 5)), ("6 to 10", numbers > 5)):
        expected = f1_score(run.targets[rows].ravel(), run.probabilities[rows].ravel() > 0.5)
        assert found[name]["value"] == pytest.approx(100 * expected)
        assert found[name]["images"] == rows.sum()
    low, high = found["1"]["interval"]
    assert low < found["1"]["value"] < high


def test_quarters_of_the_images_by_size(tmp_path):
    run = multilabel_run(tmp_path / "run", num_images=40)
    for number, name in enumerate(run.images):
        Image.new("RGB", (10 + number, 10 + number)).save(tmp_path / "pictures" / name)
    write_report(tmp_path / "run", tmp_path / "report", resamples=0)
    found = groups(tmp_path / "report", "by_image_size")
    assert list(found) == ["10 to 19", "20 to 29", "30 to 39", "40 to 49"]
    rows = slice(10, 20)
    expected = f1_score(run.targets[rows].ravel(), run.probabilities[rows].ravel() > 0.5)
    assert found["20 to 29"]["value"] == pytest.approx(100 * expected)
    assert "Score by image size and by number of labels" in (tmp_path / "report/report.html").read_text()


def test_images_of_one_size_and_missing_images_are_reported(tmp_path):
    multilabel_run(tmp_path / "run")  # half of its images are there
    write_report(tmp_path / "run", tmp_path / "report", resamples=0)
    page = (tmp_path / "report/report.html").read_text()
    assert "All images have the same size" in page
    assert "The sizes of 60 of the 120 images were read." in page
    for image in (tmp_path / "pictures").iterdir():
        image.write_bytes(b"no image")
    write_report(tmp_path / "run", tmp_path / "report", resamples=0)
    assert "no image file can be read" in (tmp_path / "report/report.html").read_text()


def test_a_single_group_by_number_of_labels_is_named(tmp_path):
    run = multilabel_run(tmp_path / "run", num_images=40)
    run.targets[:] = 0
    run.targets[:, 0] = 1
    write_multilabel_run(run, tmp_path / "run")
    write_report(tmp_path / "run", tmp_path / "report", resamples=0)
    assert list(groups(tmp_path / "report", "by_number_of_labels")) == ["1"]
    assert "All images are in one group by number of labels: 1." in (tmp_path / "report/report.html").read_text()


def test_accuracy_of_one_label_by_size(tmp_path):
    folder = made(tmp_path / "run")
    (folder / "pictures").mkdir()
    for number in range(40):
        Image.new("RGB", (8 if number < 20 else 64,) * 2).save(folder / "pictures" / f"{number}.jpg")
    write_report(folder, tmp_path / "report", resamples=0)
    found = groups(tmp_path / "report", "by_image_size")
    right = np.load(folder / "probabilities.npy").argmax(1) == np.load(folder / "labels.npy")
    assert found["8"]["value"] == pytest.approx(100 * right[:20].mean())
    assert found["64"]["value"] == pytest.approx(100 * right[20:].mean())


def test_objects_of_detectors_are_counted_without_crowds(tmp_path):
    pytest.importorskip("pycocotools", reason="needs the detection set-up")
    run = detection_run(tmp_path / "run")
    write_report(tmp_path / "run", tmp_path / "report", resamples=0)
    found = groups(tmp_path / "report", "by_number_of_objects")
    numbers = dict.fromkeys(run.image_ids, 0)
    for thing in run.ground_truth["annotations"]:
        numbers[thing["image_id"]] += not thing["iscrowd"]
    assert found["1"]["images"] == sum(number == 1 for number in numbers.values())
    assert groups(tmp_path / "report", "by_image_size").keys() == {"346"}
