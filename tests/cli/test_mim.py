"""OpenMMLab's `mim` runs trainings and scoring of this package by the names of packaged configs."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from running.small_data import ROOT, make_small_data, options

from tresnet_downstream.version import __version__

# Not imported to find out: mim makes a folder of the user's as it is imported, and two processes of the tests would
# make it at the same time.
pytestmark = pytest.mark.skipif(find_spec("mim") is None, reason="needs the detection set-up")


@pytest.fixture
def installed(tmp_path):
    """A folder of packages as a wheel fills it: mim does not find packages that are installed in editable mode."""
    folder = tmp_path / "site-packages"
    (folder / f"tresnet_downstream-{__version__}.dist-info").mkdir(parents=True)
    metadata = f"Metadata-Version: 2.1\nName: tresnet-downstream\nVersion: {__version__}\n"
    (folder / f"tresnet_downstream-{__version__}.dist-info" / "METADATA").write_text(metadata)
    (folder / "tresnet_downstream").symlink_to(ROOT / "tresnet_downstream")
    return folder


@pytest.mark.slow
def test_mim_trains_and_scores_a_classifier_by_its_config_name(installed, tmp_path):
    data = make_small_data(tmp_path / "data")
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    program = Path(sys.executable).with_name("mim")
    changes = ["--out", str(tmp_path / "run"), *options(data, max_epochs=1)]

    def mim(*arguments):
        command = [program, *arguments, *changes]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    trained = mim("train", "tresnet_downstream", "digits_tresnet.py", "--gpus", "0")
    assert trained.returncode == 0, trained.stderr
    assert "best val mAP" in trained.stdout
    best = str(tmp_path / "run" / "best.pth")
    scored = mim("test", "tresnet_downstream", "digits_tresnet.py", "--checkpoint", best, "--gpus", "0")
    assert scored.returncode == 0, scored.stderr
    assert (tmp_path / "run" / "scores.json").is_file()
