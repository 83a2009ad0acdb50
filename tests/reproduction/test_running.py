"""A stage trains, scores and compares. It resumes after a kill, and repeats no finished work."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tresnet_downstream.errors import UserError
from tresnet_downstream.reproduction.records import read, write
from tresnet_downstream.reproduction.running import STATE, Settings, run_stage
from tresnet_downstream.reproduction.stages import STAGES, Stage, Training

trains = pytest.mark.slow

SMALL = {
    "data_root": "{tiny_imagenet}",
    "image_size": "32",
    "batch_size": "8",
    "num_workers": "0",
    "max_epochs": "3",
    "model.backbone.width": "0.125",
}
STAGE = Stage(
    "small",
    "Two seeds",
    {
        "first": Training("tiny_imagenet_tresnet_64", SMALL),
        "second": Training("tiny_imagenet_tresnet_64", {**SMALL, "seed": "1"}),
    },
    (("first", ("second",)),),
    "top1",
    "top-1",
)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("class_folders")
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for number, name in enumerate(("dark", "light", "mid")):
            (root / split / name).mkdir(parents=True)
            for image in range(16):
                noise = generator.integers(0, 90, (32, 32, 3)) + 80 * number
                Image.fromarray(noise.astype(np.uint8)).save(root / split / name / f"{image}.png")
    return root


def _kill_after_an_epoch(folder):
    """SIGKILLs the training in the folder once it has a checkpoint."""

    def watch():
        until = time.monotonic() + 120
        while time.monotonic() < until and not (folder / "epoch_1.pth").exists():
            time.sleep(0.01)
        for process in os.listdir("/proc"):
            if process.isdigit() and str(folder) in _command_of(process):
                os.kill(int(process), signal.SIGKILL)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def _command_of(process):
    try:
        with open(f"/proc/{process}/cmdline", "rb") as file:
            return file.read().decode(errors="replace")
    except OSError:
        return ""


@pytest.fixture(scope="module")
def stage_run(images, tmp_path_factory):
    """The record of a stage whose first training was killed once, and what was said."""
    out, lines = tmp_path_factory.mktemp("reproduction"), []
    settings = Settings({"tiny_imagenet": images}, out, tell=lines.append)
    killer = _kill_after_an_epoch(out / "small" / "first")
    with pytest.raises(UserError, match="run the same command again to continue"):
        run_stage(STAGE, settings)
    killer.join()
    return run_stage(STAGE, settings), settings, lines


@trains
def test_a_killed_training_is_resumed_and_the_stage_finishes(stage_run):
    record, settings, lines = stage_run
    assert any(line.startswith("small/first: resuming") for line in lines)
    assert list(record.trainings) == ["first", "second"]
    assert record.images == 48
    for each in record.trainings.values():
        assert 0 <= each.scores["top1"].low <= each.scores["top1"].value <= 100
        assert len(each.sha256) == 64
        assert each.hours >= 0
        assert str(settings.out) not in each.command
    gap = record.trainings["second"].scores["top1"].value - record.trainings["first"].scores["top1"].value
    assert record.difference("second", "first", "top1").value == pytest.approx(gap, abs=2e-3)


@trains
def test_finished_work_is_not_repeated(stage_run):
    record, settings, _ = stage_run
    files = [settings.out / "small" / name / "best.pth" for name in STAGE.trainings]
    before = [path.stat().st_mtime_ns for path in files]
    again = run_stage(STAGE, settings)
    assert [path.stat().st_mtime_ns for path in files] == before
    assert again == record


@trains
def test_other_options_in_the_same_folder_are_refused(stage_run):
    _, settings, _ = stage_run
    longer = STAGE.trainings["first"].with_options(max_epochs="4")
    changed = replace(STAGE, trainings={"first": longer})
    with pytest.raises(UserError, match="another command"):
        run_stage(changed, settings)


@trains
def test_records_survive_writing_and_reading(stage_run, tmp_path):
    record, _, _ = stage_run
    assert read(write(record, tmp_path)) == record
    (tmp_path / "small.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(UserError, match="not a record"):
        read(tmp_path / "small.json")


@trains
def test_a_damaged_state_is_reported_in_one_line(stage_run):
    _, settings, _ = stage_run
    path = settings.out / "small" / "first" / STATE
    whole = path.read_text()
    try:
        path.write_text("{}")
        with pytest.raises(UserError, match="is damaged"):
            run_stage(STAGE, settings)
    finally:
        path.write_text(whole)


def test_missing_data_and_missing_stages_are_reported(tmp_path):
    with pytest.raises(UserError, match="needs `tiny_imagenet`"):
        run_stage(STAGES["pretraining"], Settings({}, tmp_path))
    data = dict.fromkeys(("tiny_imagenet", "voc2007", "lite0"), tmp_path)
    with pytest.raises(UserError, match="run the stage pretraining first"):
        run_stage(STAGES["detection"], Settings(data, tmp_path))
    with pytest.raises(UserError, match="does not exist"):
        run_stage(STAGES["pretraining"], Settings({"tiny_imagenet": tmp_path / "none"}, tmp_path))


def test_every_stage_compares_trainings_that_exist():
    for stage in STAGES.values():
        for reference, others in stage.comparisons:
            for name in (reference, *others):
                home, _, training = name.rpartition("/")
                assert training in STAGES[home or stage.name].trainings
                assert not home or home in stage.after
    assert all(stage.needs for stage in STAGES.values())


@trains
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_the_trainings_in_order(images, tmp_path, number, status):
    command = [sys.executable, "-m", "tresnet_downstream", "reproduce", "pretraining", "--jobs", "2"]
    command += ["--tiny-imagenet", str(images), "--out", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as driver:
        until = time.monotonic() + 240
        while not all((tmp_path / "pretraining" / name / "epoch_1.pth").exists() for name in ("tresnet", "resnet")):
            assert driver.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        driver.send_signal(number)
        _, errors = driver.communicate(timeout=120)
    assert driver.returncode == status
    assert "run the same command again to continue" in errors
    for name in ("tresnet", "resnet"):
        assert "stopped by SIGTERM" in (tmp_path / "pretraining" / f"{name}.log").read_text()
    left = [process for process in os.listdir("/proc") if process.isdigit() and str(tmp_path) in _command_of(process)]
    assert not left, "a training goes on alone"
