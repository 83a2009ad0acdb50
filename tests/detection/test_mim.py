"""MMDetection's own tools run our configs, each in a new process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

mmdet = pytest.importorskip("mmdet", reason="needs the detection set-up")
pytest.importorskip("mim", reason="needs the detection set-up")

from detection.small_boxes import (  # noqa: E402
    CONFIG,
    as_corners,
    call,
    changed_boxes,
    flags,
    mask_rcnn_flags,
    train,
    write_mask_rcnn,
)

from tresnet_downstream.running.folder_lock import locked  # noqa: E402


def run(*arguments, ends_well=True):
    """Runs a Python tool, which must end well, or not; gives all that it printed."""
    environment = {
        **os.environ,
        "NO_ALBUMENTATIONS_UPDATE": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert (done.returncode == 0) == ends_well, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def work_dir(boxes, tmp_path_factory):
    """What ``mim train`` leaves after one epoch, and after one more with ``--resume``."""
    folder = tmp_path_factory.mktemp("mim")
    train = ["-m", "mim", "train", "mmdet", CONFIG, "--gpus", 0, "--work-dir", folder]
    # Persistent workers, as MMDetection's configs have them: Python must not wait for them at exit.
    workers = {"train_dataloader__num_workers": 1, "val_dataloader__num_workers": 1}
    run(*train, *flags(boxes, train_cfg__max_epochs=1, **workers))
    printed = run(*train, "--resume", *flags(boxes, train_cfg__max_epochs=2, **workers))
    assert "resumed epoch: 1" in printed
    return folder


@pytest.mark.slow
def test_mim_trains_resumes_and_tests_with_the_scores_of_our_tool(boxes, work_dir, tmp_path):
    checkpoint = work_dir / "epoch_2.pth"
    test = ["-m", "mim", "test", "mmdet", CONFIG, "--checkpoint", checkpoint, "--gpus", 0]
    run(*test, "--work-dir", tmp_path / "mim", *flags(boxes))
    theirs = json.loads(next((tmp_path / "mim").glob("*/*.json")).read_text().splitlines()[-1])
    status, _, err = call("test_detection", [CONFIG, checkpoint, "--work-dir", tmp_path / "ours", *flags(boxes)])
    assert status == 0, err
    ours = json.loads((tmp_path / "ours" / "scores.json").read_text())["bbox"]["headline"]
    for key, name in (("mAP", "AP"), ("mAP_50", "AP50"), ("mAP_75", "AP75")):
        assert 100 * theirs[f"coco/bbox_{key}"] == pytest.approx(ours[name], abs=1e-9)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="what MMEngine lacks on a machine without a GPU")
def test_mim_trains_in_mixed_precision_and_on_two_processes_without_a_gpu(boxes, tmp_path):
    train = [
        "-m",
        "mim",
        "train",
        "mmdet",
        CONFIG,
        "--work-dir",
        tmp_path,
        "--gpus",
        2,
        "--launcher",
        "pytorch",
        "--amp",
    ]
    printed = run(*train, *flags(boxes, train_cfg__max_epochs=1))
    assert printed.count("note: there is no GPU, so mixed precision is bfloat16") == 1
    assert (tmp_path / "epoch_1.pth").is_file()
    # 12 images in batches of 4, in two processes.
    assert "Epoch(train) [1][2/2]" in next(tmp_path.glob("2*/*.log")).read_text().replace("  ", " ")


@pytest.mark.slow
def test_mim_validates_by_steps_as_our_tool_does(boxes, tmp_path):
    steps = {"val_steps": 4, "train_cfg__max_epochs": 3}
    printed = run("-m", "mim", "train", "mmdet", CONFIG, "--gpus", 0, "--work-dir", tmp_path, *flags(boxes, **steps))
    train(boxes, tmp_path / "ours", **steps)
    for place in ("step 4/9 (epoch 2/3)", "step 8/9 (epoch 3/3)", "step 9/9 (epoch 3/3)"):
        assert f"{place}  Epoch(val)" in printed
    theirs, ours = (
        [json.loads(line) for line in next(folder.glob("2*/vis_data/scalars.json")).read_text().splitlines()]
        for folder in (tmp_path, tmp_path / "ours")
    )
    for key in ("step", "epoch", "coco/bbox_mAP", "mean_loss"):
        values = [[row[key] for row in rows if "coco/bbox_mAP" in row] for rows in (theirs, ours)]
        assert values[0] == pytest.approx(values[1], rel=1e-4), key
    assert [path.name for path in tmp_path.glob("best_*")] == [path.name for path in (tmp_path / "ours").glob("best_*")]


def spoilt(boxes, folder, name, content):
    """A copy of the data with one picture of other content; None removes it."""
    data = changed_boxes(boxes, folder / "data", lambda _: None)
    (data / "pictures" / name).unlink()
    if content is not None:
        (data / "pictures" / name).write_bytes(content)
    return data


def error_of(printed):
    """The error's line; it must end what our part printed, without a traceback and without the config before it.

    mim itself adds a traceback to every failure of MMDetection's tools: its last line says their exit status.
    """
    lines = printed.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("error: "))
    start = next(
        number for number, line in enumerate(lines) if line.startswith(("Training command", "Testing command"))
    )
    ours = [line for line in lines[start + 1 : place] if "pkg_resources" not in line and "_bootstrap._exec" not in line]
    assert not any(line.startswith("Traceback") for line in ours)
    assert len(ours) < 15, ours
    assert lines[place + 1] == "Traceback (most recent call last):"
    assert lines[-1].startswith("subprocess.CalledProcessError"), lines[-1]
    assert lines[-1].endswith("returned non-zero exit status 2.")
    return lines[place]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data_root": "nowhere/"}, ("nowhere/train.json: no such annotation file; set `data_root`",)),
        ({"max_epoch": 3}, ("max_epoch: nothing in", "nearest: train_cfg.max_epochs")),
        ({"train_cfg__max_epoch": 3}, ("takes no argument 'max_epoch'",)),
        ({"model__neck__in_channels": "[256,512,1024,2048]"}, ("model.neck.in_channels", "the backbone returns")),
    ],
)
def test_mim_ends_in_one_line_at_a_mistake_in_the_config(boxes, tmp_path, changes, words):
    train = ["-m", "mim", "train", "mmdet", CONFIG, "--gpus", 0, "--work-dir", tmp_path / "work"]
    told = error_of(run(*train, *flags(boxes, **changes), ends_well=False))
    for word in words:
        assert word in told


def renamed(content):
    content["categories"][0]["name"] = "cube"


@pytest.mark.slow
@pytest.mark.parametrize(
    "mistake", ["missing image", "unreadable image", "unreadable image in a worker", "corners", "class"]
)
def test_mim_ends_in_one_line_at_a_mistake_in_the_data(boxes, tmp_path, mistake):
    changes, words = {}, "train_03.png"
    if mistake == "corners":
        data, words = changed_boxes(boxes, tmp_path / "data", as_corners), "fit as left, top, right, bottom"
    elif mistake == "class":
        data, words = changed_boxes(boxes, tmp_path / "data", renamed, "val"), "val.json: has no class 'square'"
    else:
        data = spoilt(boxes, tmp_path, "train_03.png", None if mistake == "missing image" else b"no image")
    if "worker" in mistake:
        changes = {"train_dataloader__num_workers": 1, "train_dataloader__persistent_workers": False}
    train = ["-m", "mim", "train", "mmdet", CONFIG, "--gpus", 0, "--work-dir", tmp_path / "work"]
    assert words in error_of(run(*train, *flags(data, **changes), ends_well=False))


@pytest.mark.slow
def test_mim_ends_in_one_line_at_a_detector_whose_masks_are_missing(boxes, tmp_path):
    config = write_mask_rcnn(tmp_path)
    data = changed_boxes(boxes, tmp_path / "data", lambda content: content["annotations"][0].pop("segmentation"))
    train = ["-m", "mim", "train", "mmdet", config, "--gpus", 0, "--work-dir", tmp_path / "work"]
    told = error_of(run(*train, *mask_rcnn_flags(data), ends_well=False))
    assert "1 of 17 annotations have no `segmentation`" in told


@pytest.mark.slow
def test_mim_ends_in_one_line_at_a_checkpoint_that_cannot_be_used(boxes, trained_detector, tmp_path):
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes((trained_detector[0] / "epoch_2.pth").read_bytes()[:3000])
    test = ["-m", "mim", "test", "mmdet", CONFIG, "--gpus", 0, "--work-dir", tmp_path / "work"]
    assert "damaged.pth" in error_of(run(*test, "--checkpoint", damaged, *flags(boxes), ends_well=False))
    told = error_of(run(*test, "--checkpoint", tmp_path / "none.pth", *flags(boxes), ends_well=False))
    assert "none.pth" in told


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="has no limit on file sizes")
def test_mim_ends_in_one_line_where_no_checkpoint_can_be_written(boxes, tmp_path):
    """As on a full disk: the limit holds for the process of mim and those that it starts."""
    limited = "import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, (2**17, 2**17)); "
    limited += "runpy.run_module('mim', run_name='__main__', alter_sys=True)"
    train = ["-c", limited, "train", "mmdet", CONFIG, "--gpus", 0, "--work-dir", tmp_path / "work"]
    told = error_of(run(*train, *flags(boxes, train_cfg__max_epochs=1), ends_well=False))
    assert "epoch_1.pth" in told
    assert "limit on file sizes" in told


@pytest.mark.slow
def test_mim_skips_and_names_pictures_that_cannot_be_read(boxes, tmp_path, trained_detector):
    data = spoilt(boxes, tmp_path, "train_03.png", b"no image")
    (data / "pictures/val_02.png").write_bytes(b"no image")
    skip = flags(data, train_cfg__max_epochs=1, on_bad_image="skip")
    run("-m", "mim", "train", "mmdet", CONFIG, "--gpus", 0, "--work-dir", tmp_path / "work", *skip)
    assert "train_03.png" in (tmp_path / "work/left_out_train.csv").read_text()
    assert "val_02.png" in (tmp_path / "work/left_out_val.csv").read_text()
    checkpoint = trained_detector[0] / "epoch_2.pth"
    test = ["-m", "mim", "test", "mmdet", CONFIG, "--checkpoint", checkpoint, "--gpus", 0]
    printed = run(*test, "--work-dir", tmp_path / "test", *skip)
    assert "1 of 6 images cannot be read and are not scored" in printed
    assert "val_02.png" in next((tmp_path / "test").glob("2*/left_out_test.csv")).read_text()


@pytest.mark.slow
def test_mim_trains_in_no_folder_in_which_a_training_runs(boxes, tmp_path):
    train = ["-m", "mim", "train", "mmdet", CONFIG, "--gpus", 0, "--work-dir", tmp_path]
    with locked(tmp_path):
        printed = run(*train, *flags(boxes, train_cfg__max_epochs=1), ends_well=False)
    assert f"{tmp_path}: another training runs in this folder" in printed
    assert not (tmp_path / "run_id").exists()


@pytest.mark.slow
def test_mmdetections_flops_counter_takes_our_configs(boxes):
    counter = Path(mmdet.__file__).parent / ".mim/tools/analysis_tools/get_flops.py"
    # The counter builds MMDetection's own loader, which our runner does not reach.
    options = [option for option in flags(boxes) if "metainfo" not in option]
    options += [f"val_dataloader.dataset.data_root={boxes}/", "val_dataloader.persistent_workers=False"]
    printed = run(counter, CONFIG, "--num-images", 1, *options)
    assert "Flops:" in printed
    assert "Params:" in printed
