"""The benchmark command from end to end, with a small network."""

import json
import subprocess
import sys

import pytest
from benchmark.tiny import register
from running.small_data import ROOT, call

from tresnet_downstream.benchmark.networks import tresnet

TINY_TRESNET = {"layers": (1, 1, 1, 1), "width": 0.25}


@pytest.mark.slow
def test_table_json_and_plot_of_a_tiny_network_against_its_peer(monkeypatch, tmp_path):
    register(monkeypatch, "ours", build=tresnet("m", **TINY_TRESNET), ours=True)
    register(monkeypatch, "theirs", build=tresnet("m", norm="batchnorm", **TINY_TRESNET))
    out = tmp_path / "out"
    arguments = ["networks", "ours", "theirs", "--peer", "theirs", "--sizes", "64", "--batch-size", "2"]
    status, stdout, _ = call("benchmark", [*arguments, "--repeats", "1", "--device", "cpu", "--out", out])
    assert status == 0
    assert stdout.startswith("device: cpu; processor: ")
    for word in ("cores: ", "threads: ", "torch: ", "date: ", "### training, float32, 64 x 64", "| x theirs |"):
        assert word in stdout
    assert (out / "table.md").read_text() in stdout
    assert (out / "plot.png").stat().st_size > 5000
    results = json.loads((out / "table.json").read_text())["results"]
    assert [(each["network"], each["task"]) for each in results] == [
        (name, task) for task in ("training", "inference") for name in ("ours", "theirs")
    ]
    # The in-place norms keep less than the plain ones, at any size.
    assert results[0]["kept_mib_per_image"] < results[1]["kept_mib_per_image"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tresnet_n"], "unknown network 'tresnet_n'"),
        (["tiny", "--types", "int8"], "--types int8"),
        (["tiny", "--forms", "quick"], "--forms quick"),
        (["tiny", "--tasks", "training", "--forms", "fused"], "tiny: only this toolkit's TResNet can be fused"),
        (["tiny", "--device", "meta"], "--device meta"),
        (["tiny", "--device", "gpu"], "--device gpu"),
        (["tiny", "--sizes", "64", "--batch-size", str(10**9)], "do not fit into the cpu's memory"),
    ],
)
def test_mistakes_are_one_line_and_2(arguments, message, tiny):
    status, stdout, stderr = call("benchmark", ["networks", *arguments])
    assert (status, stdout) == (2, "")
    assert message in stderr.splitlines()[-1]
    assert stderr.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    "arguments",
    [["networks", "tiny"], ["exported"], ["exported-detector", "none.pth", "none.jpg"]],
    ids=lambda arguments: arguments[0],
)
def test_no_repeats_are_refused_before_any_work(arguments, tiny):
    status, _, stderr = call("benchmark", [*arguments, "--repeats", "0"])
    assert status == 2
    assert stderr.splitlines() == ["error: --repeats 0: give a whole number, at least 1"]


def test_a_file_in_place_of_the_folder_is_refused_before_measuring(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    status, stdout, stderr = call("benchmark", ["networks", "tiny", "--out", tmp_path / "file"])
    assert (status, stdout) == (2, "")
    assert len(stderr.splitlines()) == 1
    assert "file: cannot be written to" in stderr


def test_help_needs_no_torch():
    program = (
        "import sys; sys.argv = ['benchmark', 'networks', '--help']; sys.modules['torch'] = None\n"
        f"import runpy; runpy.run_path({str(ROOT / 'tools' / 'benchmark.py')!r}, run_name='__main__')"
    )
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert "--largest-batch" in result.stdout
