"""One training at a time in a folder: a second one is refused. A lock ends with its process."""

import errno
import os
import shutil
import signal
import time

import pytest
from running.small_data import DIGITS, call, options, refuses_to_train, start, train

from tresnet_downstream.running import folder_lock
from tresnet_downstream.running.folder_lock import FolderInUseError, locked, require_unused

# Trains until it is killed, with a worker that inherits the files that are open.
LONG = {"max_epochs": 5000, "keep_checkpoints": 1, "num_workers": 1}


def wait_for(path, process):
    end = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"no {path}"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def running(data, tmp_path_factory):
    """The folder of a training that runs in another process, and the process."""
    folder = tmp_path_factory.mktemp("lock") / "run"
    arguments = [DIGITS, "--work-dir", folder, *options(data, **LONG)]
    process = start(["tools/train_multilabel.py", *arguments], start_new_session=True)
    wait_for(folder / "best.pth", process)
    yield folder, process
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("flags", [(), ("--resume",), ("--overwrite",)])
def test_folder_of_a_running_training_is_refused_in_one_line(data, running, flags):
    folder, process = running
    refuses_to_train(data, folder, folder, "another training runs", "--work-dir", flags=flags)
    assert process.poll() is None
    assert not folder.with_name("run_1").exists()


def test_checkpoint_of_a_running_training_is_scored(data, running):
    folder, process = running
    arguments = [DIGITS, folder / "best.pth", "--work-dir", folder, *options(data)]
    status, _, err = call("test_multilabel", arguments)
    assert status == 0, err
    assert process.poll() is None


@pytest.mark.slow
def test_killed_training_leaves_its_folder_free_though_its_workers_live_on(data, tmp_path):
    folder = tmp_path / "run"
    process = start(["tools/train_multilabel.py", DIGITS, "--work-dir", folder, *options(data, **LONG)])
    wait_for(folder / "best.pth", process)
    with pytest.raises(FolderInUseError):
        require_unused(folder)
    process.send_signal(signal.SIGKILL)
    process.wait()
    require_unused(folder)
    with locked(folder):
        pass
    process.communicate()


def test_two_trainings_one_after_the_other_in_one_process(data, tmp_path):
    train(data, tmp_path, max_epochs=1)
    train(data, tmp_path, "--overwrite", max_epochs=1)
    train(data, tmp_path, "--resume", max_epochs=2)
    require_unused(tmp_path)


def test_training_that_fails_releases_its_folder(data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data/pictures/train_00.jpg").write_bytes(b"damaged")
    refuses_to_train(tmp_path / "data", tmp_path / "run", "train_00.jpg")
    assert (tmp_path / "run/run_id").exists()  # it had begun
    require_unused(tmp_path / "run")


def test_lock_is_one_per_folder_and_ends_with_the_block(tmp_path):
    with locked(tmp_path):
        with pytest.raises(FolderInUseError), locked(tmp_path):
            pass
        with pytest.raises(FolderInUseError):
            require_unused(tmp_path)
    with locked(tmp_path):
        pass


def test_checking_a_lock_creates_no_file(tmp_path):
    require_unused(tmp_path)
    require_unused(tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []


def test_processes_that_only_check_a_lock_do_not_block_each_other(tmp_path):
    with locked(tmp_path):
        pass
    looking = os.open(tmp_path / folder_lock.LOCK, os.O_RDWR)
    folder_lock._flock(looking, tmp_path, shared=True)
    require_unused(tmp_path)
    os.close(looking)


@pytest.mark.parametrize("missing", ["flock", "fcntl"])
def test_file_system_without_locks_is_reported_in_one_line(tmp_path, monkeypatch, capsys, missing):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    if missing == "fcntl":
        monkeypatch.setattr(folder_lock, "fcntl", None)
    else:
        monkeypatch.setattr(folder_lock.fcntl, "flock", no_locks)
    with locked(tmp_path):
        require_unused(tmp_path)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"note: {tmp_path}: cannot be locked")


@pytest.mark.slow
def test_first_of_several_processes_locks_and_all_are_refused(data, running, tmp_path):
    folder, _ = running
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "tools/train_multilabel.py"]
    for work_dir, expected in ((tmp_path / "new", 0), (folder, 1)):
        arguments = [DIGITS, "--launcher", "pytorch", "--work-dir", work_dir, *options(data, max_epochs=1)]
        process = start([*torchrun, *arguments])
        out, err = process.communicate(timeout=240)
        assert process.returncode == expected, out + err
        assert (f"{folder}: another training runs" in err) == bool(expected)
