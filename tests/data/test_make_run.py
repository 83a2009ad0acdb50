"""The maker of run folders of any size."""

import subprocess
import sys
from pathlib import Path

from tresnet_downstream.evaluation import multilabel_scores, read_run

SCRIPT = Path(__file__).parents[2] / "data" / "make_run.py"


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
