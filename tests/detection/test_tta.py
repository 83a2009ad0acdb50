"""Test-time augmentation of detectors: boxes equal those of MMDetection's tool, and the run folder records it."""

import json

import numpy as np
import pytest

pytest.importorskip("mmdet", reason="needs the detection set-up")

import torch
from detection.small_boxes import CONFIG, call, changed_boxes, flags, mask_rcnn_flags, write_mask_rcnn
from detection.test_mim import run
from mmengine.config import Config
from PIL import Image
from running.small_data import ROOT
from torchvision.ops import batched_nms

from tresnet_downstream.detection.predict import detect, load_detector
from tresnet_downstream.detection.tta import check_views, description_of, with_test_time_augmentation
from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.runs import read_run
from tresnet_downstream.text_files import read_text

# A small GFL; MMDetection's has no test-time augmentation of its own.
GFL = """
_base_ = [{base!r}]
model = dict(
    backbone=dict(layers=(1, 1, 1, 1), width=0.125, init_cfg=None, frozen_stages=-1, norm_eval=False),
    neck=dict(in_channels=[8, 16, 128, 256], out_channels=64),
    bbox_head=dict(in_channels=64, feat_channels=64, stacked_convs=1),
    test_cfg=dict(score_thr=0.0))
"""


@pytest.fixture(scope="module")
def gfl(boxes, tmp_path_factory):
    """The config and a checkpoint of a small GFL, and the options of its data."""
    folder = tmp_path_factory.mktemp("gfl")
    config = folder / "small_gfl.py"
    config.write_text(GFL.format(base=str(ROOT / "configs/gfl_tresnet_m.py")))
    options = mask_rcnn_flags(boxes)
    status, _, err = call("train_detection", [config, "--work-dir", folder / "work", *options])
    assert (status, err) == (0, "")
    return config, folder / "work/epoch_1.pth", options


@pytest.fixture(scope="module")
def scored(gfl, tmp_path_factory):
    """A work dir in which the detector is scored without and then with test-time augmentation; and what was printed."""
    config, checkpoint, options = gfl
    folder = tmp_path_factory.mktemp("tta")
    test = [config, checkpoint, "--work-dir", folder]
    assert call("test_detection", [*test, *options])[0] == 0
    status, out, err = call("test_detection", [*test, "--tta", "--report", folder / "report", *options])
    assert status == 0, err
    return folder, out


@pytest.mark.slow
def test_boxes_are_those_of_the_image_and_its_mirror_image_merged(boxes, gfl, scored):
    model = load_detector(gfl[1])
    run = read_run(scored[0])
    for number, image_id in enumerate(run.image_ids, 1):
        pixels = np.asarray(Image.open(boxes / "pictures" / f"val_{number:02}.png"))
        one, other = detect(model, [pixels, np.ascontiguousarray(pixels[:, ::-1])])
        mirrored = other.boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [64, 0, 64, 0]
        corners = torch.tensor(np.concatenate([mirrored, one.boxes]), dtype=torch.float32)
        scores = torch.tensor(np.concatenate([other.scores, one.scores]))
        labels = torch.tensor(np.concatenate([other.labels, one.labels]))
        merged = batched_nms(corners, scores, labels, 0.5)[:100]
        rows = [row for row in run.predictions["bbox"] if row["image_id"] == image_id]
        left, top, right, bottom = corners[merged].T
        sides = torch.stack([left, top, right - left, bottom - top], 1)
        np.testing.assert_allclose([row["score"] for row in rows], scores[merged], atol=1e-5)
        np.testing.assert_allclose([row["bbox"] for row in rows], sides, atol=1e-2)


def test_the_run_its_report_and_the_table_say_so(scored):
    folder, out = scored
    assert "epoch_1.pth, bbox, val split, tta" in out
    tta = read_run(folder).about["tta"]
    assert tta["views"] == "RandomFlip(prob=1.0) or RandomFlip(prob=0.0)"
    assert tta["model"] == "DetTTAModel {'tta_cfg': {'nms': {'type': 'nms', 'iou_threshold': 0.5}, 'max_per_img': 100}}"
    assert read_run(folder).about["model"]["type"] == "GFL"
    assert '"tta": {' in (folder / "scores.json").read_text()
    page = read_text(folder / "report" / "report.md")
    assert "test-time augmentation" in page
    assert "RandomFlip(prob=1.0)" in page


def test_the_result_without_augmentation_is_not_overwritten(scored):
    folder, _ = scored
    without = read_run(folder / "earlier_1")
    assert "tta" not in without.about
    assert without.predictions != read_run(folder).predictions


@pytest.mark.slow
@pytest.mark.parametrize("views", ["its own", "flips"])
def test_mims_scores_with_it_are_equal(boxes, gfl, trained_detector, tmp_path, views):
    config, checkpoint, options = gfl
    if views == "its own":
        config, checkpoint, options = CONFIG, trained_detector[0] / "epoch_2.pth", flags(boxes)
    mim = ["-m", "mim", "test", "mmdet", config, "--checkpoint", checkpoint, "--gpus", 0, "--tta"]
    run(*mim, "--work-dir", tmp_path / "mim", *options)
    theirs = json.loads(next((tmp_path / "mim").glob("*/*.json")).read_text().splitlines()[-1])
    status, _, err = call("test_detection", [config, checkpoint, "--work-dir", tmp_path / "ours", "--tta", *options])
    assert (status, err) == (0, "")
    ours = json.loads((tmp_path / "ours" / "scores.json").read_text())["bbox"]["headline"]
    for key, name in (("mAP", "AP"), ("mAP_50", "AP50"), ("mAP_75", "AP75")):
        assert 100 * theirs[f"coco/bbox_{key}"] == pytest.approx(ours[name], abs=1e-9)
    assert views in ("flips",) or read_run(tmp_path / "ours").about["tta"]["views"].count("Resize") == 3


@pytest.mark.slow
def test_an_image_that_cannot_be_read_is_left_out_as_without_it(boxes, trained_detector, tmp_path):
    data = changed_boxes(boxes, tmp_path / "data", lambda _: None)
    (data / "pictures/val_02.png").write_bytes(b"no image")
    test = [CONFIG, trained_detector[0] / "epoch_2.pth", "--work-dir", tmp_path / "run", "--tta"]
    status, _, err = call("test_detection", [*test, *flags(data, on_bad_image="skip")])
    assert (status, err) == (0, "")
    assert "val_02.png" in (tmp_path / "run/left_out.csv").read_text()
    assert len(read_run(tmp_path / "run").image_ids) == 5


@pytest.mark.slow
def test_a_detector_of_masks_is_refused(boxes, tmp_path):
    config = write_mask_rcnn(tmp_path)
    status, _, err = call("train_detection", [config, "--work-dir", tmp_path / "work", *mask_rcnn_flags(boxes)])
    assert (status, err) == (0, "")
    test = [config, tmp_path / "work/epoch_1.pth", "--work-dir", tmp_path / "run", "--tta", *mask_rcnn_flags(boxes)]
    status, _, err = call("test_detection", test)
    assert (status, err) == (
        2,
        "error: test-time augmentation merges boxes, and this detector has a head for masks\n",
    )


def test_a_config_says_which_views_in_its_own_pipeline():
    config = Config.fromfile(ROOT / "configs/rtmdet_tresnet_m.py")
    changed = with_test_time_augmentation(config)
    check_views(changed)  # pads after the flip
    assert changed.model.module == config.model
    assert changed.test_dataloader.dataset.pipeline == config.tta_pipeline
    assert description_of(changed)["views"].count("Resize(scale=") == 3
    assert "module" not in config.model


def test_views_whose_boxes_padding_would_move_are_refused():
    config = Config.fromfile(ROOT / "configs/rtmdet_tresnet_m.py")
    config.pop("tta_pipeline")
    with pytest.raises(UserError, match="RandomFlip before Pad"):
        check_views(with_test_time_augmentation(config))


def test_a_pipeline_that_does_not_end_by_packing_is_refused():
    config = Config.fromfile(ROOT / "configs/gfl_tresnet_m.py")
    config.test_dataloader.dataset.pipeline.append({"type": "mmdet.RandomFlip", "prob": 0.0})
    with pytest.raises(UserError, match="its last step is RandomFlip"):
        with_test_time_augmentation(config)
