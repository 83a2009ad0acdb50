"""MMDetection's own tools on our configs, as users call them: in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

mmdet = pytest.importorskip("mmdet", reason="needs the detection set-up")
pytest.importorskip("mim", reason="needs the detection set-up")

from detection.small_boxes import CONFIG, call, flags  # noqa: E402

from tresnet_downstream.running.folder_lock import locked  # noqa: E402


def run(*arguments, ends_well=True):
    """Runs a Python tool; gives all that it printed."""
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
