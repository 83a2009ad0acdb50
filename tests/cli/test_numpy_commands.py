"""Reports, thresholds and calibration work without torch."""

import pytest
from cli.without_torch import run_without
from evaluation.small_runs import detection_run, multilabel_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run folders: of labels and of boxes."""
    folder = tmp_path_factory.mktemp("runs")
    multilabel_run(folder / "labels")
    detection_run(folder / "boxes")
    return folder


@pytest.mark.parametrize("kind", ["labels", "boxes"])
def test_report_is_written_without_torch(runs, kind, tmp_path):
    done = run_without("report", runs / kind, "--out", tmp_path / "report", "--resamples", 0)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "report" / "report.html").is_file()


@pytest.mark.parametrize("kind", ["labels", "boxes"])
def test_thresholds_are_chosen_without_torch_and_matplotlib(runs, kind, tmp_path):
    done = run_without("thresholds", runs / kind, "--out", tmp_path / "limits.json", more=("matplotlib",))
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "limits.json").is_file()


def test_calibration_needs_neither_torch_nor_matplotlib(runs):
    done = run_without("calibrate", runs / "labels", more=("matplotlib",))
    assert (done.returncode, done.stderr) == (0, "")
    assert "calibrated" in done.stdout
