"""A resumed run equals an uninterrupted one."""

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from running.small_data import CUSTOM, RANDOM_NETWORK, ROOT, options, start, train

# All that is random or has a memory: augmentation, dropout, stochastic depth, worker processes, weight average.
RANDOM = {
    **RANDOM_NETWORK,
    "num_workers": 2,
    "max_epochs": 4,
    "keep_checkpoints": 4,
}


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp("uninterrupted")
    train(data, work_dir, config=CUSTOM, **RANDOM)
    return work_dir


def read(path):
    return torch.load(path, weights_only=True)


def leaves(node, name=""):
    """Every tensor and value of a checkpoint, by its path."""
    if isinstance(node, dict | list | tuple):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        return {key: leaf for part, child in items for key, leaf in leaves(child, f"{name}/{part}").items()}
    return {name: node}


def assert_bit_for_bit_equal(one, other):
    one, other = ({**read(path), "meta": None} for path in (one, other))
    one, other = leaves(one), leaves(other)
    assert one.keys() == other.keys()
    for name, value in one.items():
        same = torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
        assert same, name


def left_over(work_dir):
    names = [path.name for pattern in ("*.writing", "*.partial", ".*") for path in Path(work_dir).glob(pattern)]
    return [name for name in names if name != ".lock"]


@pytest.mark.slow
def test_resumed_run_equals_the_uninterrupted_one_bit_for_bit(data, uninterrupted, tmp_path):
    train(data, tmp_path, config=CUSTOM, **RANDOM, stop_epoch=2)
    assert (tmp_path / "last_checkpoint").read_text() == "epoch_2.pth"
    printed = train(data, tmp_path, "--resume", config=CUSTOM, **RANDOM)
    assert "epoch 3/4" in printed
    assert "epoch 2/4" not in printed
    assert_bit_for_bit_equal(tmp_path / "epoch_4.pth", uninterrupted / "epoch_4.pth")
    assert read(tmp_path / "best.pth")["score"] == read(uninterrupted / "best.pth")["score"]
    assert not left_over(tmp_path)


def interrupted_after_epoch_2(data, work_dir):
    """Starts a training and sends Ctrl-C; gives exit status, standard output and standard error."""
    command = [ROOT / "tools/train_multilabel.py", CUSTOM, "--work-dir", work_dir, *options(data, **RANDOM)]
    # A terminal sends the signal to the whole group: to the data loader's workers as well.
    process = start(command, start_new_session=True)
    while not (work_dir / "epoch_2.pth").exists() and process.poll() is None:
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.slow
def test_run_interrupted_by_control_c_ends_in_one_line_and_resumes_bit_for_bit(data, uninterrupted, tmp_path):
    work_dir = tmp_path / "work"
    status, out, err = interrupted_after_epoch_2(data, work_dir)
    assert status == 130, err
    assert err == ""
    (line,) = [line for line in out.splitlines() if "SIGINT" in line]
    assert line.startswith("stopped by SIGINT after step ")
    assert "--resume continues from epoch_" in line
    assert not left_over(work_dir)
    assert not (work_dir / "epoch_4.pth").exists()
    for path in work_dir.glob("*.pth"):
        assert read(path)["state_dict"]

    train(data, work_dir, "--resume", config=CUSTOM, **RANDOM)
    assert_bit_for_bit_equal(work_dir / "epoch_4.pth", uninterrupted / "epoch_4.pth")


@pytest.mark.slow
def test_accumulation_that_does_not_divide_the_epoch_resumes_bit_for_bit(data, tmp_path):
    changes = {"accumulation": 2, "max_epochs": 3}  # of 3 batches in an epoch
    train(data, tmp_path / "whole", **changes)
    train(data, tmp_path / "parts", **changes, stop_epoch=1)
    train(data, tmp_path / "parts", "--resume", **changes)
    assert_bit_for_bit_equal(tmp_path / "parts/epoch_3.pth", tmp_path / "whole/epoch_3.pth")
    assert read(tmp_path / "whole/epoch_3.pth")["averaged_steps"] == 6


def test_resume_without_a_checkpoint_starts_from_the_beginning(data, tmp_path):
    printed = train(data, tmp_path, "--resume", max_epochs=1)
    assert "epoch 1/1" in printed


def test_resume_of_a_finished_run_trains_no_more(data, tmp_path):
    train(data, tmp_path, stop_epoch=1)
    before = (tmp_path / "epoch_1.pth").read_bytes()
    printed = train(data, tmp_path, "--resume", stop_epoch=1)
    assert "best val mAP" in printed
    assert "loss" not in printed
    assert (tmp_path / "epoch_1.pth").read_bytes() == before
    assert not (tmp_path / "epoch_2.pth").exists()


def test_best_score_survives_a_resume(data, tmp_path):
    train(data, tmp_path, stop_epoch=1)
    best = read(tmp_path / "best.pth")
    best["score"]["mAP"] = 100.5  # better than any
    torch.save(best, tmp_path / "best.pth")
    printed = train(data, tmp_path, "--resume")
    assert "best val mAP 100.50" in printed
    assert read(tmp_path / "best.pth")["score"]["epoch"] == 1


def test_run_resumed_from_an_earlier_epoch_keeps_its_own_checkpoints(data, tmp_path):
    train(data, tmp_path, max_epochs=3, keep_checkpoints=3)
    (tmp_path / "last_checkpoint").write_text("epoch_1.pth")
    printed = train(data, tmp_path, "--resume", max_epochs=3, stop_epoch=2, keep_checkpoints=1)
    assert "epoch 2/3" not in printed  # the bar counts to the epoch that it stops at
    assert "epoch 2/2" in printed
    assert sorted(path.name for path in tmp_path.glob("epoch_*")) == ["epoch_2.pth", "epoch_3.pth"]
    assert (tmp_path / "last_checkpoint").read_text() == "epoch_2.pth"


def test_resumed_run_removes_the_checkpoints_that_a_killed_one_had_not_yet_removed(data, tmp_path):
    train(data, tmp_path, keep_checkpoints=1)
    for name in ("epoch_1.pth", "epoch_1_step_2.pth", "epoch_2_step_6.pth", "epoch_3.pth"):
        shutil.copy(tmp_path / "epoch_2.pth", tmp_path / name)
    train(data, tmp_path, "--resume", keep_checkpoints=1)
    # Later ones stay, as they do when a run is resumed from an earlier checkpoint.
    assert sorted(path.name for path in tmp_path.glob("epoch_*")) == ["epoch_2.pth", "epoch_3.pth"]


def test_checkpoints_contain_only_tensors_and_plain_values(uninterrupted):
    plain = torch.Tensor | str | int | float | bool | None
    for path in uninterrupted.glob("*.pth"):
        kinds = {type(leaf) for leaf in leaves(read(path)).values()}
        assert all(issubclass(kind, plain) for kind in kinds), kinds
