"""Small disks (tmpfs) for tests, and the files that a command leaves on them."""

import contextlib
import os
import subprocess
from pathlib import Path

import pytest
import torch

PAGE = 4096
# `make fuzz` asks for 100, which is 20 disks; without, few.
NUM_DISKS = max(4, int(os.environ.get("TRESNET_KILLS", "20")) // 5)


def _mount(*arguments):
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def mountable(tmp_path_factory):
    """Skips tests that need a disk of their own where this user may not mount one."""
    folder = tmp_path_factory.mktemp("mountable")
    try:
        done = _mount("-t", "tmpfs", "-o", f"size={PAGE}", "tmpfs", folder)
    except FileNotFoundError:
        pytest.skip("there is no command `mount`")
    if done.returncode:
        pytest.skip(f"needs to mount a small disk, which takes root on Linux: {done.stderr.strip()}")
    unmount(folder)


def unmount(folder):
    """Takes a disk away, also while files on it are open."""
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def disk(folder, room):
    """Mounts a disk with room for so many bytes, in whole pages, at ``folder``; its content is lost at the end."""
    folder.mkdir(exist_ok=True)
    done = _mount("-t", "tmpfs", "-o", f"size={room + PAGE}", "tmpfs", folder)
    assert done.returncode == 0, done.stderr
    try:
        (folder / ".ballast").write_bytes(bytes(PAGE))  # an empty disk has at least a page
        yield folder
    finally:
        unmount(folder)


def enlarge(folder):
    """Makes room on a disk."""
    done = _mount("-o", "remount,size=256m", folder)
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def bound(source, folder):
    """Shows one folder at another one."""
    done = _mount("--bind", source, folder)
    assert done.returncode == 0, done.stderr
    try:
        yield
    finally:
        unmount(folder)


@contextlib.contextmanager
def read_only(folder):
    """Makes a folder read-only for whoever opens a file in it from here on; files that are open stay so."""
    with bound(folder, folder):
        done = _mount("-o", "remount,ro,bind", folder)
        assert done.returncode == 0, done.stderr
        yield


def rooms(needed, number=NUM_DISKS):
    """Bytes of room on disks, from none to a page less than what is needed; the small ones closer together."""
    most = -(-needed // PAGE) - 1
    return sorted({PAGE * round(most * (step / (number - 1)) ** 2) for step in range(number)})


def files_of(folder):
    """The files below a folder that have their final names, by path; logs, which grow line by line, are none."""
    paths = (path for path in Path(folder).rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): path for path in paths}


def partial_files(folder):
    """What a command that ended in order should have removed."""
    return [path for path in Path(folder).rglob("*") if "partial" in path.name]


def same(one, other):
    """Whether two contents of checkpoints are equal, bit for bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
