"""Prediction of boxes from a checkpoint alone, as lines and as drawings."""

import json

import numpy as np
import pytest
import torch
from detection.small_boxes import CONFIG, flags
from mmdet.registry import MODELS, TASK_UTILS, TRANSFORMS
from PIL import Image
from running.small_data import ROOT, call

from tresnet_downstream.detection.predict import LoadedDetector, detect, load_detector
from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation import read_run
from tresnet_downstream.images import read_image
from tresnet_downstream.prediction.box_output import detect_in_images, draw_boxes
from tresnet_downstream.prediction.boxes import Detections
from tresnet_downstream.running.config import load_config
from tresnet_downstream.running.provenance import without_start
from tresnet_downstream.running.stored_config import check_stored
from tresnet_downstream.weights import is_detector


@pytest.fixture
def checkpoint(trained_detector):
    return trained_detector[0] / "epoch_2.pth"


@pytest.mark.slow
def test_boxes_are_those_of_the_scoring(boxes, checkpoint, tmp_path):
    """The predictions that test_detection.py writes, without its config."""
    arguments = [CONFIG, checkpoint, "--work-dir", tmp_path, *flags(boxes)]
    assert call("test_detection", arguments)[0] == 0
    rows = read_run(tmp_path).predictions["bbox"]
    first = [row for row in rows if row["image_id"] == 1]
    model = load_detector(checkpoint)
    assert model.classes == ("disc", "square")
    # In batches of 6, as the scoring's loader: sums differ in their last bits with the size of a batch.
    pictures = sorted((boxes / "pictures").glob("val_*.png"))
    found = next(detect(model, pictures, batch_size=16))
    assert len(found.boxes) == len(first)
    assert np.all(np.diff(found.scores) <= 0)
    order = np.argsort([-row["score"] for row in first], kind="stable")
    assert np.allclose(found.scores, [first[i]["score"] for i in order], atol=1e-4)
    sides = np.array([first[i]["bbox"] for i in order])
    assert np.allclose(found.boxes[0], [*sides[0, :2], *(sides[0, :2] + sides[0, 2:])], atol=0.1)


def test_a_threshold_below_that_of_the_config_shows_the_boxes_between(boxes, checkpoint, tmp_path):
    model = load_detector(checkpoint)
    image = str(boxes / "pictures" / "val_01.png")
    scores = np.sort(next(detect(model, image)).scores)[::-1]
    limit = float(scores[len(scores) // 2])
    model.bbox_head.test_cfg["score_thr"] = limit
    fewer = next(detect(model, image)).scores
    (line,) = detect_in_images(LoadedDetector(model), [image], threshold=0.0, as_json=True)
    assert len(json.loads(line)["boxes"]) == (scores > 0).sum() > len(fewer)
    assert model.bbox_head.test_cfg["score_thr"] == limit


@pytest.mark.parametrize("kind", ["jpeg", "png", "palette", "16 bits", "array"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pillow_image_or_array_gives_the_boxes_of_its_file(boxes, checkpoint, tmp_path, kind, orientation):
    model, exif = load_detector(checkpoint), Image.Exif()
    exif[0x0112] = orientation
    source = Image.open(boxes / "pictures" / "val_01.png").crop((0, 0, 64, 48))
    if kind == "16 bits":
        source = Image.fromarray(np.asarray(source.convert("L")).astype(np.uint16) * 257)
    if kind == "palette":
        source = source.quantize(16)
    file = tmp_path / ("a.jpg" if kind == "jpeg" else "a.png")
    source.save(file, exif=exif)
    with Image.open(file) as opened:
        picture = read_image(file) if kind == "array" else opened
        (of_file,), (of_picture,) = detect(model, file), detect(model, picture)
    assert of_picture.image is picture
    assert len(of_file.boxes) > 0
    for name in ("boxes", "scores", "labels"):
        assert np.array_equal(getattr(of_file, name), getattr(of_picture, name))
    assert np.array_equal(
        np.asarray(draw_boxes(of_file, model.classes, [0])), draw_boxes(of_picture, model.classes, [0])
    )


def test_array_that_is_no_picture_is_refused(checkpoint):
    with pytest.raises(UserError, match=r"uint8 of shape \(height, width, 3\), got float64 of \(4, 4, 3\)"):
        next(detect(load_detector(checkpoint), np.zeros((4, 4, 3))))


@pytest.mark.parametrize("option", [["--size", 64], ["--variant", "m"], ["--weights", "averaged"], ["--network", "n"]])
def test_options_of_classifiers_are_refused(boxes, checkpoint, option):
    status, _, err = call("predict", [checkpoint, boxes / "pictures" / "val_01.png", *option])
    assert status == 2
    assert f"is a detector, and {option[0]} is for classifiers" in err


def test_a_detectors_checkpoint_is_not_taken_for_a_classifiers(checkpoint):
    status, _, err = call("test", [checkpoint])
    assert status == 2
    assert "is a detector's checkpoint; name its config first" in err
    status, out, _ = call("weights", ["show", checkpoint])
    assert status == 0
    assert "all finite" in out


def test_tool_prints_json_and_draws(boxes, checkpoint, tmp_path):
    pictures = [str(boxes / "pictures" / f"val_0{number}.png") for number in (1, 2)]
    options = ["--threshold", 0, "--top-k", 2, "--out", tmp_path / "drawn"]
    status, out, err = call("predict", [checkpoint, *pictures, "--json", *options])
    assert (status, err) == (0, ""), err
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["image"] for line in lines] == pictures
    assert all(len(line["boxes"]) == 2 for line in lines)
    assert set(lines[0]["boxes"][0]) == {"label", "score", "box"}
    with Image.open(tmp_path / "drawn" / "val_01.jpg") as drawn:
        assert drawn.size == (512, 512)


def test_explanations_of_detectors_are_refused(boxes, checkpoint, tmp_path):
    picture = boxes / "pictures" / "val_01.png"
    status, out, err = call("predict", [checkpoint, picture, "--explain", "--out", tmp_path])
    assert (status, out) == (2, "")
    assert err == f"error: {checkpoint}: is a detector, and --explain is for classifiers\n"


def test_unreadable_images_are_skipped_and_reported(boxes, checkpoint, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"")
    good = str(boxes / "pictures" / "val_01.png")
    status, out, err = call("predict", [checkpoint, tmp_path / "bad.png", good])
    assert status == 2
    assert out.startswith(good)
    assert "bad.png" in err
    assert "1 of 2 images" in err


def test_a_detector_is_distinguished_from_a_classifier(checkpoint, tmp_path):
    assert is_detector(checkpoint)
    torch.save({"model": {"stem.conv.weight": torch.zeros(1)}}, tmp_path / "other.pth")
    assert not is_detector(tmp_path / "other.pth")


def test_checkpoints_without_description_need_their_config(boxes, checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    del content["meta"]["model"]
    torch.save(content, tmp_path / "theirs.pth")
    with pytest.raises(UserError, match=r"theirs\.pth: does not say which detector.*`config`"):
        load_detector(tmp_path / "theirs.pth")
    config = load_config(CONFIG, [option for option in flags(boxes)[1:] if option.startswith("model.")])
    config.model.bbox_head.num_classes = 2
    ours = load_detector(checkpoint).state_dict()
    assert all(torch.equal(t, ours[n]) for n, t in load_detector(tmp_path / "theirs.pth", config).state_dict().items())


EVALUATES = {"type": "CameraMotionCompensation", "warp_mode": "__import__('os').mkdir('made')"}


@pytest.mark.parametrize(
    "place",
    [
        lambda told: told["detector"].update(type="subprocess.check_output"),
        lambda told: told["detector"]["test_cfg"]["nms"].update(type="print"),
        lambda told: told["pipeline"][0].update(type="os.system"),
        lambda told: told["detector"]["neck"].update(type="mmdet.os.system"),
        lambda told: told["detector"]["bbox_head"].update(anchor_generator=EVALUATES),
        lambda told: told["detector"].update(
            type="KnowledgeDistillationSingleStageDetector", teacher_config="program.py", teacher_ckpt=None
        ),
    ],
)
def test_a_checkpoint_cannot_run_programs(place, checkpoint, tmp_path, monkeypatch):
    """Neither by a function's name, nor by components of MMDetection that evaluate or run what they are given."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "program.py").write_text("import os\nos.mkdir('made')\n")
    content = torch.load(checkpoint, weights_only=True)
    place(content["meta"]["model"])
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(UserError, match=r"odd\.pth: (names the component|sets nms\.type='print')"):
        load_detector(tmp_path / "odd.pth")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["retinanet", "fcos", "atss", "faster_rcnn", "mask_rcnn"])
def test_checkpoints_of_every_detector_describe_parts_that_are_taken(name):
    config = load_config(ROOT / "configs" / f"{name}_tresnet_m.py")
    check_stored("a.pth", without_start(config.model), (MODELS, TASK_UTILS))
    check_stored("a.pth", config.test_dataloader.dataset.pipeline, (TRANSFORMS,))


def test_a_checkpoint_of_other_sizes_is_reported_in_one_line(boxes, checkpoint):
    with pytest.raises(UserError, match=r"another model: bbox_head\.retina_cls\.\w+ has shape"):
        load_detector(checkpoint, load_config(CONFIG, [o for o in flags(boxes)[1:] if o.startswith("model.")]))


def test_drawing_shows_boxes_and_masks_in_the_pictures_own_place(tmp_path):
    Image.new("RGB", (600, 500), (10, 10, 10)).save(tmp_path / "dark.png")
    mask = np.zeros((1, 500, 600), bool)
    mask[0, 100:200, 100:300] = True
    found = Detections(
        str(tmp_path / "dark.png"),
        np.array([[90, 80, 310, 220]], np.float32),
        np.array([0.9], np.float32),
        np.array([1]),
        mask,
    )
    drawn = np.asarray(draw_boxes(found, ("a", "b"), [0])).astype(int)
    assert drawn.shape == (500, 600, 3)
    assert drawn[150, 200].sum() > 200  # within the mask
    assert drawn[210, 305].sum() == 30  # within the box, outside the mask
    assert (drawn[150, 90] == (86, 180, 233)).all()  # the box's left side
    plain = np.asarray(draw_boxes(found, ("a", "b"), []))
    assert (plain == 10).all()
