"""MMDetection's own tools on our configs, as users call them: in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

mmdet = pytest.importorskip("mmdet", reason="needs the detection set-up")
pytest.importorskip("mim", reason="needs the detection set-up")

from detection.small_boxes import CONFIG, call, flags, train  # noqa: E402

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
    run(*train, *flags(boxes, train_cfg__max_epochs=1))
    printed = run(*train, "--resume", *flags(boxes, train_cfg__max_epochs=2))
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


@pytest.mark.slow
def test_mim_tells_of_missing_data_and_of_options_without_effect_as_our_tool_does(boxes, tmp_path):
    train = ["-m", "mim", "train", "mmdet", CONFIG, "--gpus", 0, "--work-dir", tmp_path / "work"]
    printed = run(*train, *flags(tmp_path / "nowhere"), ends_well=False)
    assert "nowhere/train.json: no such annotation file; set `data_root`" in printed
    printed = run(*train, *flags(boxes, max_epoch=3), ends_well=False)
    assert "max_epoch: nothing in" in printed
    assert "nearest: train_cfg.max_epochs" in printed


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
