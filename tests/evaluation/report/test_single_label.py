"""The report of runs with one label per image."""

import json

import numpy as np
import pytest

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation import SingleLabelRun, read_run, write_report, write_single_label_run

CLASSES = ("cat", "dog", "emu")


def made(folder, order=(0, 1, 2), rows=slice(None), strength=1.0, labels=None, suffix=".jpg"):
    """A run folder of 40 images; classes and images may stand in another order."""
    draw = np.random.default_rng(0)
    truth = draw.integers(0, 3, 40) if labels is None else labels
    logits = draw.normal(size=(40, 3)) + strength * np.eye(3)[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    images = [f"{number}{suffix}" for number in range(40)]
    run = SingleLabelRun(
        probabilities=probabilities[rows][:, order],
        labels=np.argsort(order)[truth[rows]],
        images=images[rows],
        classes=tuple(CLASSES[c] for c in order),
        image_folder=str(folder / "pictures"),
        about={"checkpoint": "best.pth"},
    )
    write_single_label_run(run, folder)
    return folder


def test_a_run_is_read_as_it_was_written(tmp_path):
    run = read_run(made(tmp_path / "run"))
    assert run.classes == CLASSES
    assert run.probabilities.shape == (40, 3)
    assert run.labels.dtype == np.int32
    assert len(run.images) == 40


def test_page_and_numbers_of_one_run(tmp_path):
    paths = write_report(made(tmp_path / "run"), tmp_path / "report", resamples=100)
    content = json.loads((tmp_path / "report" / "scores.json").read_text())
    run = content["runs"][0]
    top1 = run["headline"]["top1"]
    assert top1["interval"][0] < top1["value"] < top1["interval"][1]
    assert run["per_class"][0].keys() >= {"class", "recall", "recall_low", "support", "precision", "f1"}
    page = paths[0].read_text()
    for words in ("Confused classes", "Calibration", "wrong predictions with the highest confidence"):
        assert words in page


@pytest.mark.parametrize(
    ("suffix", "told"), [("", "are stored together in the files of the data set"), (".jpg", "cannot be read")]
)
def test_images_that_are_no_files_are_not_called_unreadable(tmp_path, suffix, told):
    paths = write_report(made(tmp_path / "run", suffix=suffix), tmp_path / "report", resamples=0)
    assert told in paths[0].read_text()


def test_runs_in_another_order_of_images_and_classes_compare_as_the_same(tmp_path):
    folders = [made(tmp_path / "a"), made(tmp_path / "b", order=(2, 0, 1), rows=slice(None, None, -1))]
    write_report(folders, tmp_path / "report", resamples=100)
    content = json.loads((tmp_path / "report" / "scores.json").read_text())
    assert all(entry["difference"] == pytest.approx(0) for entry in content["differences"])


def test_better_run_is_named_with_its_interval(tmp_path):
    folders = [made(tmp_path / "a"), made(tmp_path / "b", strength=6.0)]
    write_report(folders, tmp_path / "report", resamples=100)
    content = json.loads((tmp_path / "report" / "scores.json").read_text())
    first = next(entry for entry in content["differences"] if entry["score"] == "top1")
    assert first["interval"][0] > 0


def test_runs_with_other_labels_are_not_compared(tmp_path):
    labels = np.zeros(40, int)
    folders = [made(tmp_path / "a"), made(tmp_path / "b", labels=labels)]
    with pytest.raises(UserError, match=r"has the labels '(dog|emu)' and 'cat'"):
        write_report(folders, tmp_path / "report", resamples=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": np.full(40, 3)}, "has the label 3, not 0 to 2"),
        ({"labels": np.zeros(40)}, "are not integers"),
        ({"probabilities": np.full((40, 3), np.nan)}, "which is not a probability"),
        ({"probabilities": np.zeros((40, 2))}, "for 40 images and 3 classes"),
    ],
)
def test_wrong_runs_are_refused(tmp_path, change, words):
    run = read_run(made(tmp_path / "run"))
    with pytest.raises(UserError, match=words):
        write_single_label_run(SingleLabelRun(**{**vars(run), **change}), tmp_path / "other")
