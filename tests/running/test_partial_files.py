"""Partial files of killed processes are removed, and no other files."""

import os
import subprocess
import sys

from running.small_data import train

from tresnet_downstream.running.partial_files import remove_partial_files


def dead_process():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_files_of_dead_processes_are_removed_and_those_of_living_ones_stay(tmp_path):
    gone = [tmp_path / f".{name.format(dead_process())}" for name in ("best.{}.partial.pth", "run_id.{}.partial")]
    stay = [
        tmp_path / name for name in (f".run_id.{os.getpid()}.partial", "best.1.partial.pth", ".notes", "epoch_1.pth")
    ]
    for path in gone + stay:
        path.touch()
    remove_partial_files(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(stay)


def test_unfinished_checkpoints_of_a_locked_folder_are_removed_whatever_their_process(tmp_path):
    (tmp_path / f".epoch_1.{os.getpid()}.partial.pth").touch()
    remove_partial_files(tmp_path, locked=True)
    assert not list(tmp_path.iterdir())


def test_start_of_a_training_removes_them_from_its_folder_and_the_cache(data, tmp_path):
    process = dead_process()
    partial = [tmp_path / f"run/.epoch_1.{process}.partial.pth", tmp_path / f".cache/.train.{process}.partial.bin"]
    for path in partial:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    train(data, tmp_path / "run", max_epochs=1)
    assert not any(path.exists() for path in partial)
