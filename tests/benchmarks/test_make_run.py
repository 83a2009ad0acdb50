"""The script that creates run folders of any size."""

import subprocess
import sys
from pathlib import Path

import pytest

from tresnet_downstream.evaluation import detection_scores, multilabel_scores, read_run

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "make_run.py"


def test_a_made_run_can_be_read_and_scored(tmp_path):
    out = tmp_path / "run"
    subprocess.run([sys.executable, SCRIPT, "--images", "300", "--classes", "40", "--out", out], check=True)
    run = read_run(out)
    assert run.probabilities.shape == (300, 40)
    scores = multilabel_scores(run.probabilities, run.targets, run.classes)
    assert 50 < scores.mAP < 95
    assert scores.support.max() > 20 * max(scores.support.min(), 1)
    names = sorted(path.name for path in out.iterdir())
    assert names == ["images.json", "probabilities.npy", "run.json", "targets.npy"]


def test_a_made_detector_can_be_read_and_scored(tmp_path):
    pytest.importorskip("pycocotools", reason="needs the detection set-up")
    arguments = ["--detector", "--images", "40", "--classes", "3", "--out", tmp_path / "run"]
    subprocess.run([sys.executable, SCRIPT, *arguments], check=True)
    run = read_run(tmp_path / "run")
    scores = detection_scores(run.ground_truth, run.predictions["bbox"], run.classes, run.image_ids)
    assert scores.num_images == 40
    assert 5 < scores.headline["AP50"] < 95
