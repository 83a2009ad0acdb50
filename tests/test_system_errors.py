"""System failures end a command with one line and status 2, and the training can be resumed."""

import errno
import gc
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from running.small_data import DIGITS, call, make_small_data, options, train

from tresnet_downstream import files, interrupts
from tresnet_downstream.command_line import run
from tresnet_downstream.files import whole_file
from tresnet_downstream.running import processes, system
from tresnet_downstream.system_errors import NotWrittenError, explanation, names_folder

pytest.importorskip("resource", reason="limits of the system are set as on Unix")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_small_data(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "", "a.csv"), "no space is left"),
        (OSError(errno.EROFS, "", "a.csv"), "read-only"),
        (OSError(errno.EMFILE, ""), "ulimit -n"),
        (BlockingIOError(errno.EAGAIN, ""), "ulimit -u"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error."), "--shm-size"),
        (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), "num-workers"),
        (RuntimeError("[gloo/pair.cc:544] Connection closed by peer [127.0.0.1]:1"), "another process"),
    ],
)
def test_failure_of_the_system_is_2_and_one_line(error, words, capsys):
    def main(arguments):
        raise RuntimeError("outer") from error

    assert run(main, []) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert words in err.replace("num_workers", "num-workers")


def test_fault_of_the_toolkit_is_no_failure_of_the_system():
    for error in (RuntimeError("shapes differ"), FileNotFoundError(errno.ENOENT, "", __file__), ValueError("x")):
        assert explanation(error) is None


BELOW_A_LIMIT = """
import resource, sys
from pathlib import Path
import numpy as np, safetensors.torch, torch
from PIL import Image
from tresnet_downstream.evaluation import runs
from tresnet_downstream.files import Earlier, whole_file
from tresnet_downstream.images import write_image

folder, limit = Path(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
"""
WRITERS = {
    "weights.pth": 'with whole_file(folder / "weights.pth") as partial: torch.save({"x": torch.ones(10_000)}, partial)',
    "weights.safetensors": (
        'with whole_file(folder / "weights.safetensors") as partial: '
        'safetensors.torch.save_file({"x": torch.ones(10_000)}, partial)'
    ),
    # Pillow and numpy write in C, and report no error where a part of the last bytes was written.
    "picture.jpg": (
        "noise = np.random.RandomState(0).randint(0, 255, (300, 300, 3), np.uint8)\n"
        'write_image(Image.fromarray(noise), "picture.jpg", Earlier(folder))'
    ),
    "array.npy": (
        'with whole_file(folder / "array.npy") as partial, partial.open("wb") as file: '
        "np.save(runs._Stream(file), np.zeros(12164, np.uint8))"
    ),
}


@pytest.mark.parametrize("name", WRITERS)
def test_file_that_does_not_fit_names_itself_and_leaves_the_earlier_one(tmp_path, name):
    path = tmp_path / name
    with whole_file(path) as partial:
        partial.write_bytes(b"earlier")
    # The limit holds for a process of its own: in this one it would cut off what the tests print to a file.
    command = [sys.executable, "-c", BELOW_A_LIMIT + WRITERS[name], tmp_path, "12288"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search(rf"NotWrittenError: .*{re.escape(name)}: cannot be written: .*ulimit -f", done.stderr), done.stderr
    assert path.read_bytes() == b"earlier"
    assert os.listdir(tmp_path) == [name]


def test_folder_that_is_gone_is_named(tmp_path):
    with pytest.raises(NotWrittenError, match="is gone"), whole_file(tmp_path / "gone" / "a.pth") as partial:
        torch.save({}, partial)


def test_training_on_a_full_disk_resumes_to_the_same_weights(data, tmp_path, monkeypatch):
    train(data, tmp_path / "undisturbed")

    def full(source, target):
        if Path(target).name == "epoch_2.pth":
            raise OSError(errno.ENOSPC, "No space left on device", str(source))
        os.rename(source, target)

    monkeypatch.setattr(files.os, "replace", full)
    status, _, err = call("train_multilabel", [DIGITS, "--work-dir", tmp_path / "full", *options(data)])
    monkeypatch.undo()
    assert status == 2
    assert err.count("\n") == 1
    assert "epoch_2.pth: cannot be written: no space is left" in err
    torch.load(tmp_path / "full" / "epoch_1.pth", weights_only=True)
    train(data, tmp_path / "full", "--resume")
    weights = [
        torch.load(tmp_path / name / "epoch_2.pth", weights_only=True)["state_dict"] for name in ("undisturbed", "full")
    ]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_long_folder_of_temporary_files_is_refused_before_workers_start(data, tmp_path, monkeypatch):
    folder = tmp_path / ("x" * 90)
    folder.mkdir()
    monkeypatch.setattr(system.tempfile, "tempdir", str(folder))
    arguments = [DIGITS, "--work-dir", tmp_path, *options(data, num_workers=1)]
    status, _, err = call("train_multilabel", arguments)
    assert status == 2
    assert err.startswith(f"error: TMPDIR={folder}: is too long")
    assert err.count("\n") == 1


def test_too_few_open_files_for_the_workers_are_refused(data, tmp_path, monkeypatch):
    monkeypatch.setattr(system.resource, "getrlimit", lambda _: (40, 40))
    monkeypatch.setattr(system.resource, "setrlimit", lambda *_: None)
    status, _, err = call("train_multilabel", [DIGITS, "--work-dir", tmp_path, *options(data, num_workers=1)])
    assert status == 2
    assert "the limit is 40" in err
    assert err.count("\n") == 1


def test_too_few_processes_for_the_workers_are_refused(data, tmp_path, monkeypatch):
    class Limited(threading.Thread):
        alive = 0

        def start(self):
            if Limited.alive == 7:
                raise RuntimeError("can't start new thread")
            Limited.alive += 1
            super().start()

    before = threading.active_count()
    monkeypatch.setattr(system, "threading", SimpleNamespace(Thread=Limited, Event=threading.Event))
    arguments = [DIGITS, "--work-dir", tmp_path / "run", *options(data, num_workers=2)]
    status, _, err = call("train_multilabel", arguments)
    assert status == 2
    assert err.startswith("error: num_workers=2: needs 16 processes and threads, and the system's limit is reached ")
    assert "after 7: raise it (ulimit -u" in err
    assert err.count("\n") == 1
    assert threading.active_count() == before


@pytest.mark.slow
def test_ten_trainings_leave_no_file_open(data, tmp_path):
    train(data, tmp_path / "first", max_epochs=1)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(10):
        train(data, tmp_path / str(number), max_epochs=1)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_stopped_and_ended_processes_are_recognised():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        assert processes.condition(process.pid) is None
        process.send_signal(signal.SIGSTOP)
        for _ in range(100):
            if processes.condition(process.pid) is not None:
                break
            time.sleep(0.05)
        assert processes.condition(process.pid) == "stopped"
    finally:
        process.kill()
        process.wait()
    assert processes.condition(process.pid) == "ended"


def test_control_c_that_became_another_error_ends_the_block_as_control_c():
    def took_it_for_an_error():
        with interrupts.remembered():
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                raise SyntaxError("cannot format the config")  # noqa: B904

    with pytest.raises(KeyboardInterrupt):
        took_it_for_an_error()


def test_script_that_handles_no_error_ends_with_one_line_and_2():
    code = (
        "from tresnet_downstream.running.system import end_in_one_line\n"
        "from tresnet_downstream.errors import UserError\n"
        "end_in_one_line()\nraise UserError('a.json: has no boxes')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "error: a.json: has no boxes\n")


@pytest.mark.parametrize(("state", "stopped"), [("T", True), ("t", False), ("S", False), ("R", False)])
def test_process_that_a_debugger_holds_is_not_stopped(monkeypatch, state, stopped):
    monkeypatch.setattr(processes.Path, "read_text", lambda path: f"7 (a (odd) name) {state} 1 7 7 0")
    assert (processes.condition(7) == "stopped") is stopped


def test_error_that_names_no_file_names_the_folder_of_the_run(tmp_path):
    words = f"^{tmp_path}: a file in it cannot be written: no space is left"
    with pytest.raises(NotWrittenError, match=words), names_folder(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_error_that_names_its_file_stays():
    for error in (OSError(errno.ENOSPC, "", "a.csv"), NotWrittenError("a.csv: cannot be written"), ValueError("x")):
        with pytest.raises(type(error)) as raised, names_folder("run"):
            raise error
        assert raised.value is error


def test_file_that_was_not_written_is_named_whatever_failed_after_it():
    later = OSError(errno.ENOSPC, "No space left on device")  # as the writer of logs raises it
    later.__context__ = NotWrittenError("epoch_2.pth: cannot be written")
    assert explanation(later) == "epoch_2.pth: cannot be written"


def test_lock_without_shared_memory_is_not_taken_for_a_full_disk(monkeypatch, tmp_path):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("multiprocessing.util.debug", full)  # called by multiprocessing itself, as SemLock is
    with pytest.raises(OSError, match="No space") as raised, names_folder(tmp_path):
        multiprocessing.Lock()
    assert "--shm-size" in explanation(raised.value)


def test_half_built_object_of_a_failed_command_is_freed_without_a_message(capsys):
    class HalfStarted:
        def __init__(self):
            raise OSError(errno.EMFILE, "Too many open files")

        def __del__(self):
            self.workers.clear()

    assert run(lambda _: HalfStarted(), []) == 2
    gc.collect()
    assert capsys.readouterr().err.count("\n") == 1
