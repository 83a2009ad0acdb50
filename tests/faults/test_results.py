"""Commands whose results go to a full or read-only disk end with one line and leave no partial file."""

import json

import pytest
from benchmark.tiny import register
from faults import disks
from faults.disks import disk, mountable, read_only, rooms  # noqa: F401 - a fixture
from running.small_data import call
from test_outputs import COMMANDS, PACKAGES, contents, inputs  # noqa: F401 - a fixture
from weights.test_download import server  # noqa: F401 - a fixture

pytestmark = [pytest.mark.faults, pytest.mark.slow]


def with_report(command):
    return lambda inputs, out, number: [*command(inputs, out, number), "--report", out / "report"]  # noqa: F811


def fixed(inputs, out, number):  # noqa: F811
    files = ["--annotations", inputs["data"] / "train.json", "--images", inputs["data"] / "pictures", "--workers", 0]
    return ["check_data", *files, "--fix", out / "fixed.json"]


WRITING = {
    **COMMANDS,
    "test_multilabel": with_report(COMMANDS["test_multilabel"]),
    "test_detection": with_report(COMMANDS["test_detection"]),
    "check_data --fix": fixed,
}


@pytest.fixture(params=WRITING)
def command(request, inputs, monkeypatch):  # noqa: F811
    """Runs a command into a folder; gives exit status and standard error."""
    register(monkeypatch)
    for package in PACKAGES.get(request.param, ()):
        pytest.importorskip(package)

    def run(out):
        tool, *arguments = WRITING[request.param](inputs, out, 0)
        status, _, err = call(tool, arguments)
        return status, err

    return run


def assert_one_line(status, err, *words):
    assert status == 2, err
    # Notes, and the progress of a benchmark, come before.
    *before, line = err.splitlines()
    assert line.startswith("error: "), err
    assert not any("Traceback" in other or other.startswith("error: ") for other in before), err
    for word in words:
        assert word.lower() in line.lower(), line


def assert_whole(name, content, earlier):
    """``content`` is not a part of a file; ``earlier`` is that of another run, whose measured numbers differ."""
    if name.endswith(".json"):
        json.loads(content)
    elif name.endswith(".md"):
        # A measurement that is out of bounds gets a paragraph of its own, so that lengths differ from run to run.
        assert content.splitlines()[-1] == earlier.splitlines()[-1], name
        assert content.endswith(b"\n"), name
    else:
        assert abs(len(content) - len(earlier)) <= 64, name


def test_results_on_a_full_disk(command, tmp_path, mountable):  # noqa: F811
    with disk(tmp_path / "disk", 2**28) as folder:
        assert command(folder / "out")[0] == 0
        whole = contents(folder / "out")
        used = [path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file()]
        needed = sum(used) - disks.PAGE  # without the ballast
    for room in rooms(needed):
        with disk(tmp_path / "disk", room) as folder:
            status, err = command(folder / "out")
            assert_one_line(status, err, str(folder), "no space")
            assert not disks.partial_files(folder)
            for name, content in contents(folder / "out").items():
                assert_whole(name, content, whole[name])


def test_results_on_a_read_only_disk(command, tmp_path, mountable):  # noqa: F811
    with disk(tmp_path / "disk", 2**28) as folder, read_only(folder):
        status, err = command(folder / "out")
    assert_one_line(status, err, str(folder), "read-only")


@pytest.mark.parametrize("share", range(disks.NUM_DISKS))
def test_download_to_a_full_disk(server, share, tmp_path, monkeypatch, mountable):  # noqa: F811
    with disk(tmp_path / "disk", rooms(len(server.content))[share]) as folder:
        monkeypatch.setenv("TRESNET_CACHE", str(folder))
        status, out, err = call("weights", ["fetch", server.url])
        assert_one_line(status, err, str(folder), "no space")
        assert not list(folder.rglob("*.pth"))
        disks.enlarge(folder)
        status, out, err = call("weights", ["fetch", server.url])
        assert (status, err) == (0, "")
        assert (folder / out.strip()).read_bytes() == server.content


def test_download_to_a_read_only_disk(server, tmp_path, monkeypatch, mountable):  # noqa: F811
    with disk(tmp_path / "disk", 2**20) as folder, read_only(folder):
        monkeypatch.setenv("TRESNET_CACHE", str(folder))
        status, _, err = call("weights", ["fetch", server.url])
    assert_one_line(status, err, str(folder), "read-only")
