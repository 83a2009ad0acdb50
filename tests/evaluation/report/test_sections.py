"""Sections of reports: the course of the training, and the distributions of scores."""

import json
import re

import numpy as np
import pytest
from evaluation.report.test_single_label import made
from evaluation.small_runs import detection_run, multilabel_run
from evaluation.test_training_log import step, write_log

from tresnet_downstream.evaluation import write_report
from tresnet_downstream.evaluation.report import plots


def runs_of(folder):
    return json.loads((folder / "scores.json").read_text())["runs"]


def test_curves_of_the_training_are_those_of_the_logs_beside_the_run(tmp_path):
    multilabel_run(tmp_path / "a")
    multilabel_run(tmp_path / "b", seed=1)
    write_log(tmp_path / "a", "2026", step(10, 1, 5.0), {"mAP": 40.0, "step": 1}, step(20, 2, 4.0))
    write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "report", resamples=0)
    first, second = runs_of(tmp_path / "report")
    assert first["training"] == {"loss": [[1.0, 5.0], [2.0, 4.0]], "validation": {"mAP": [[1, 40.0]]}}
    assert "training" not in second
    text = (tmp_path / "report/report.md").read_text()
    assert "The folder of b has no training log." in text
    for name in ("training_loss", "validation_score", "learning_rate"):
        assert f"plots/{name}.svg" in text
        assert "nan" not in (tmp_path / "report/plots" / f"{name}.svg").read_text()


def test_a_run_without_a_log_says_so(tmp_path):
    multilabel_run(tmp_path / "run")
    write_report(tmp_path / "run", tmp_path / "report", resamples=0)
    assert "The folder of run has no training log." in (tmp_path / "report/report.html").read_text()
    assert not (tmp_path / "report/plots/training_loss.svg").exists()


def test_the_distribution_counts_positives_and_negatives(tmp_path):
    run = multilabel_run(tmp_path / "run")
    targets = run.targets.copy()
    targets[:10] = -1
    multilabel_run(tmp_path / "run", targets=targets)
    write_report(tmp_path / "run", tmp_path / "report", resamples=0)
    found = runs_of(tmp_path / "report")[0]["score_distribution"]
    for name, value in (("positives", 1), ("negatives", 0)):
        expected, edges = np.histogram(run.probabilities[targets == value], bins=25, range=(0, 1))
        assert found[name] == expected.tolist()
        assert found["edges"] == pytest.approx(edges)


def test_the_distribution_of_one_label_counts_right_and_wrong_images(tmp_path):
    folder = made(tmp_path / "run")
    write_report(folder, tmp_path / "report", resamples=0)
    found = runs_of(tmp_path / "report")[0]["score_distribution"]
    probabilities, labels = np.load(folder / "probabilities.npy"), np.load(folder / "labels.npy")
    assert sum(found["right"]) == (probabilities.argmax(1) == labels).sum()
    assert sum(found["right"]) + sum(found["wrong"]) == 40


def test_the_distribution_of_a_detector_counts_right_and_wrong_predictions(tmp_path):
    pytest.importorskip("pycocotools", reason="needs the detection set-up")
    detection_run(tmp_path / "run")
    write_report(tmp_path / "run", tmp_path / "report", resamples=0)
    (run,) = runs_of(tmp_path / "report")
    counts = run["errors"]["bbox"]["counts"]
    wrong = sum(count for kind, count in counts.items() if kind != "missed")
    assert sum(run["score_distribution"]["wrong"]) == wrong
    assert sum(run["score_distribution"]["right"]) > 0


def test_heights_are_logarithmic_from_a_ten_thousandth_to_one():
    heights = plots.log_height(np.array([1.0, 0.1, 0.01, 1e-4, 1e-6, 0.0]))
    assert heights == pytest.approx([1, 0.75, 0.5, 0, 0, 0])


def test_dots_lie_where_the_axes_say_and_names_cover_nothing():
    """Every dot has its class; the names that are drawn do not overlap."""
    support, scores = np.array([10, 100, 1000, 0]), [np.array([50.0, 60.0, 90.0, np.nan])]
    drawn = plots.scatter(["run"], support, scores, ("<a>", "b", "c", "never"), "positives", "AP")
    dots = re.findall(r'data-classes="(\d)" cx="([\d.]+)" cy="([\d.]+)".*?<title>([^<]*)</title>', drawn)
    places = {int(c): (float(x), float(y)) for c, x, y, _ in dots}
    assert set(places) == {0, 1, 2}
    assert dots[0][3] == "&lt;a&gt;: AP 50.00, 10 positives"
    # A factor of 10 is the same distance; so are 10 points of AP, three times.
    assert places[1][0] - places[0][0] == pytest.approx(places[2][0] - places[1][0], abs=0.1)
    assert places[1][1] - places[2][1] == pytest.approx(3 * (places[0][1] - places[1][1]), abs=0.1)
    assert ">&lt;a&gt;</text>" in drawn


def test_equal_scores_and_one_class_can_be_plotted():
    drawn = plots.scatter(["run"], np.array([7]), [np.array([100.0])], ("a",), "positives", "AP")
    assert 'data-classes="0"' in drawn
    assert "circle" not in plots.scatter(["run"], np.array([0]), [np.array([np.nan])], ("a",), "positives", "AP")
