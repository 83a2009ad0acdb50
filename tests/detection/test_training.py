"""Detectors from config to checkpoint: training, resuming, scoring, and what is refused."""

import ast
import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("mmdet", reason="needs the detection set-up")

from detection.small_boxes import (
    CONFIG,
    ROOT,
    call,
    data_options,
    flags,
    make_boxes,
    mask_rcnn_flags,
    train,
    write_faster_rcnn,
)
from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from running.test_resume_point import KINDS, damage

from tresnet_downstream.detection.runner import DetectionRunner
from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation import read_run
from tresnet_downstream.running.config import load_config
from tresnet_downstream.weights import read_checkpoint

SIX = ["retinanet_tresnet_m", "retinanet_tresnet_l", "fcos_tresnet_m", "atss_tresnet_m", "faster_rcnn_tresnet_m"]
SIX += ["mask_rcnn_tresnet_m"]


def refused(arguments, *words, tool="train_detection"):
    status, _, err = call(tool, arguments)
    assert status == 2, err
    line = [line for line in err.splitlines() if line.startswith("error:")]
    assert len(line) == 1
    for word in words:
        assert word in line[0], line[0]


def test_training_prints_a_line_for_each_epoch_and_leaves_plain_checkpoints(trained_detector):
    work_dir, out = trained_detector
    lines = out.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["epoch 1/2", "epoch 2/2"]
    assert "val AP" in lines[0]
    assert "AP50" in lines[0]
    assert lines[2].startswith("best val AP")
    checkpoint = torch.load(work_dir / "epoch_2.pth", weights_only=True)  # without any allow-list
    assert checkpoint["meta"]["dataset_meta"]["classes"] == ("disc", "square")  # by category id
    assert checkpoint["meta"]["model"]["detector"]["bbox_head"]["num_classes"] == 2
    assert {"optimizer", "param_schedulers"} <= checkpoint.keys()
    assert not list(work_dir.glob("*.partial*"))


def test_resumed_training_continues_and_keeps_the_best_score(trained_detector, boxes, tmp_path):
    work_dir = tmp_path / "work"
    shutil.copytree(trained_detector[0], work_dir)
    out = train(boxes, work_dir, "--resume", train_cfg__max_epochs=3)
    assert [line.split(":")[0] for line in out.splitlines() if line.startswith("epoch")] == ["epoch 3/3"]
    best = [torch.load(folder / "epoch_2.pth", weights_only=True) for folder in (trained_detector[0], work_dir)]
    info = best[1]["message_hub"]["runtime_info"]
    assert info["best_score"] == best[0]["message_hub"]["runtime_info"]["best_score"]
    assert torch.load(work_dir / "epoch_3.pth", weights_only=True)["message_hub"]["runtime_info"]["best_score"] >= 0


@pytest.mark.slow
def test_a_resumed_training_first_validates_the_epoch_whose_validation_was_interrupted(
    trained_detector, boxes, tmp_path
):
    """As after Ctrl-C: the epoch's checkpoint is there, its scores are not; also where it was the last epoch."""
    work_dir = tmp_path / "work"
    shutil.copytree(trained_detector[0], work_dir)
    note = work_dir / "last_validation.json"
    before = json.loads(note.read_text())
    assert before["epoch"] == 2
    note.write_text(json.dumps({"epoch": 1}))
    out = train(boxes, work_dir, "--resume")
    first, second, third, *_ = out.splitlines()
    assert first == "nothing is left to train: the run has completed all 2 epochs"
    assert second == "epoch 2/2 has not been validated; validating it now"
    assert re.match(r"epoch 2/2: loss [\d.]+, val AP ", third)
    assert "best val AP" in out
    assert json.loads(note.read_text())["epoch"] == 2
    assert json.loads(note.read_text())["best_score"] == before["best_score"]
    out = train(boxes, work_dir, "--resume", train_cfg__max_epochs=3)
    assert [line.split(":")[0] for line in out.splitlines() if line.startswith("epoch")] == ["epoch 3/3"]


@pytest.mark.slow
def test_a_detector_killed_in_its_validation_is_validated_on_resume(boxes, tmp_path):
    """A real kill, by a hook of a file that the tool imports."""
    hook = tmp_path / "killed_validation.py"
    hook.write_text(
        "import os\n"
        "from mmengine.hooks import Hook\n"
        "from mmengine.registry import HOOKS\n\n\n"
        "@HOOKS.register_module(force=True)\n"
        "class KilledValidation(Hook):\n"
        "    def before_val_iter(self, runner, *_, **__):\n"
        "        os.kill(os.getpid(), 9)\n"
    )
    config = tmp_path / "digits_retinanet_tresnet.py"
    config.write_text(f"_base_ = [{str(CONFIG)!r}]\ncustom_hooks = [dict(type='mmengine.KilledValidation')]\n")
    work_dir = tmp_path / "work"
    given = ["--import", hook, "--work-dir", work_dir, *flags(boxes, train_cfg__max_epochs=1)]
    command = [sys.executable, ROOT / "tools/train_detection.py", config, *given]
    assert subprocess.run(list(map(str, command)), capture_output=True, check=False).returncode == -9
    assert (work_dir / "epoch_1.pth").exists()
    assert not list(work_dir.glob("best_*"))
    out = train(boxes, work_dir, "--resume", train_cfg__max_epochs=1)
    assert re.search(r"epoch 1/1: loss [\d.]+, val AP ", out)
    assert "best val AP" in out


def test_a_resumed_training_knows_the_best_score_of_the_last_epoch(trained_detector, boxes, tmp_path):
    """A checkpoint is written before its epoch is validated."""
    work_dir = tmp_path / "work"
    shutil.copytree(trained_detector[0], work_dir)
    note = work_dir / "last_validation.json"
    noted = json.loads(note.read_text())
    note.write_text(json.dumps({**noted, "best_score": 0.99}))
    out = train(boxes, work_dir, "--resume", train_cfg__max_epochs=3)
    assert f"best val AP 99.00, in {work_dir / Path(noted['best_ckpt']).name}" in out


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_training_continues_from_the_checkpoint_before_a_damaged_one_and_says_so(
    trained_detector, boxes, tmp_path, kind
):
    work_dir = tmp_path / "work"
    shutil.copytree(trained_detector[0], work_dir)
    damage(work_dir / "epoch_2.pth", kind, random.Random(1))
    out = train(boxes, work_dir, "--resume")
    assert (work_dir / "epoch_2.pth.damaged").is_file()
    assert sum("resumed from epoch_1.pth" in line for line in out.splitlines()) == 1
    assert "epoch 2/2: loss" in out
    assert read_checkpoint(work_dir / "epoch_2.pth")["meta"]["epoch"] == 2


@pytest.mark.slow
def test_a_training_without_amp_can_be_resumed_with_it(trained_detector, boxes, tmp_path):
    work_dir = tmp_path / "work"
    shutil.copytree(trained_detector[0], work_dir)
    assert "epoch 3/3: loss" in train(boxes, work_dir, "--resume", "--amp", train_cfg__max_epochs=3)
    assert "epoch 4/4: loss" in train(boxes, work_dir, "--resume", train_cfg__max_epochs=4)


def test_a_config_that_keeps_no_best_checkpoint_tells_the_last_score(boxes, tmp_path):
    out = train(boxes, tmp_path, train_cfg__max_epochs=1, default_hooks__checkpoint__save_best="None")
    assert "last val AP" in out
    assert "keeps no best checkpoint (save_best)" in out
    assert "nothing was scored" not in out


def test_resuming_runs_no_config_that_a_checkpoint_holds(trained_detector, boxes, tmp_path):
    """MMEngine would run the text under ``meta.config``."""
    work_dir = tmp_path / "work"
    shutil.copytree(trained_detector[0], work_dir)
    content = torch.load(work_dir / "epoch_2.pth", weights_only=True)
    content["meta"]["config"] = f"import os\nos.mkdir({str(tmp_path / 'made')!r})\n"
    torch.save(content, work_dir / "epoch_2.pth")
    train(boxes, work_dir, "--resume", train_cfg__max_epochs=3)
    assert not (tmp_path / "made").exists()


@pytest.mark.slow
def test_scoring_writes_scores_classes_and_predictions_alike_with_both_libraries(trained_detector, boxes, tmp_path):
    found = {}
    for backend in ("pycocotools", "faster_coco_eval"):
        arguments = [CONFIG, trained_detector[0] / "epoch_2.pth", "--work-dir", tmp_path / backend]
        status, out, err = call("test_detection", [*arguments, *flags(boxes, coco_eval=backend)])
        assert status == 0, err
        assert "AP50  IoU 0.50" in out
        content = json.loads((tmp_path / backend / "scores.json").read_text())
        found[backend] = {key: content[key] for key in ("bbox",)}
        predictions = read_run(tmp_path / backend).predictions["bbox"]
        assert {row["category_id"] for row in predictions} <= {7, 40}
    assert found["pycocotools"] == found["faster_coco_eval"]
    assert [row["class"] for row in found["pycocotools"]["bbox"]["per_class"]] == ["disc", "square"]


@pytest.mark.slow
def test_mmengines_own_runner_settings_give_the_same_scores(trained_detector, boxes):
    """As MMDetection's test.py: a config, ``runner_type``, ``load_from``; nothing of our tools."""
    config = Config.fromfile(CONFIG)
    options = dict(option.split("=", 1) for option in flags(boxes)[1:])
    config.merge_from_dict({key: literal(value) for key, value in options.items()})
    config.update(work_dir=str(trained_detector[0] / "again"), load_from=str(trained_detector[0] / "epoch_2.pth"))
    runner = DetectionRunner.from_cfg(config)
    metrics = runner.test()
    arguments = [CONFIG, trained_detector[0] / "epoch_2.pth", "--work-dir", trained_detector[0] / "ours", *flags(boxes)]
    assert call("test_detection", arguments)[0] == 0
    ours = json.loads((trained_detector[0] / "ours" / "scores.json").read_text())["bbox"]["headline"]
    assert 100 * metrics["coco/bbox_mAP"] == pytest.approx(ours["AP"], abs=1e-9)
    assert 100 * metrics["coco/bbox_mAP_50"] == pytest.approx(ours["AP50"], abs=1e-9)
    assert ours["AP50"] > 0
    # Not in the folder of the training, though this process has that one's visualizer too.
    assert list((trained_detector[0] / "again").glob("*/vis_data/config.py"))


def literal(text):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def test_checkpoints_with_mmengines_log_history_are_read(trained_detector, tmp_path):
    """MMEngine 0.10.7 stores objects that safe loading refuses; its loader here leaves them out."""
    import numpy as np
    from mmengine.logging import HistoryBuffer

    checkpoint = torch.load(trained_detector[0] / "epoch_2.pth", weights_only=True)
    checkpoint["message_hub"]["log_scalars"] = {"train/loss": HistoryBuffer([1.0], [1])}
    checkpoint["meta"]["score"] = np.float64(0.5)
    torch.save(checkpoint, tmp_path / "theirs.pth")
    with pytest.raises(Exception, match="weights_only"):
        torch.load(tmp_path / "theirs.pth", weights_only=True)
    read = CheckpointLoader.load_checkpoint(str(tmp_path / "theirs.pth"), map_location="cpu")
    assert read["state_dict"].keys() == checkpoint["state_dict"].keys()


@pytest.mark.slow
def test_training_can_start_from_a_detector_with_other_classes(trained_detector, boxes, tmp_path):
    one_class = make_boxes(tmp_path / "data")
    for split in ("train", "val"):
        content = json.loads((one_class / f"{split}.json").read_text())
        content["categories"] = [{"id": 1, "name": "thing"}]
        content["annotations"] = [{**a, "category_id": 1} for a in content["annotations"]]
        (one_class / f"{split}.json").write_text(json.dumps(content))
    out = train(one_class, tmp_path / "work", load_from=trained_detector[0] / "epoch_2.pth", train_cfg__max_epochs=1)
    assert "epoch 1/1" in out
    arguments = [CONFIG, trained_detector[0] / "epoch_2.pth", "--work-dir", tmp_path / "test", *flags(one_class)]
    refused(arguments, "val.json", "has no class 'disc'", "checkpoint", tool="test_detection")
    resumed = tmp_path / "resumed"
    shutil.copytree(trained_detector[0], resumed)
    refused(
        [CONFIG, "--work-dir", resumed, "--resume", *flags(one_class, train_cfg__max_epochs=3)],
        "epoch_2.pth",
        "bbox_head.retina_cls",
        "shape",
    )


def test_scoring_refuses_other_classes_also_where_the_config_names_them(trained_detector, boxes, tmp_path):
    checkpoint = trained_detector[0] / "epoch_2.pth"
    arguments = [CONFIG, checkpoint, "--work-dir", tmp_path]
    swapped = {f"{split}_dataloader__dataset__metainfo": "{'classes':('square','disc')}" for split in ("train", "val")}
    refused(
        [*arguments, *flags(boxes, **swapped)],
        "class 0 is 'disc' in the checkpoint and 'square'",
        tool="test_detection",
    )
    one = dict.fromkeys(swapped, "{'classes':('disc',)}")
    refused([*arguments, *flags(boxes, **one)], "another model", "bbox_head.retina_cls", tool="test_detection")


@pytest.mark.slow
def test_options_of_the_validation_data_reach_the_test(trained_detector, boxes, tmp_path):
    """Also what is no path: the tool that scores has another set of data than training validated on otherwise."""
    wide = flags(boxes, val_dataloader__dataset__pipeline__1__scale="(32,32)")
    arguments = [CONFIG, trained_detector[0] / "epoch_2.pth", "--work-dir", tmp_path]
    status, _, err = call("test_detection", [*arguments, *wide])
    assert status == 0, err
    small = read_run(tmp_path).predictions["bbox"]
    assert call("test_detection", [*arguments, *flags(boxes)])[0] == 0
    assert read_run(tmp_path).predictions["bbox"] != small


def test_mixed_precision_trains_on_a_cpu_too(boxes, tmp_path):
    out = train(boxes, tmp_path, "--amp", train_cfg__max_epochs=1)
    assert "epoch 1/1: loss" in out


@pytest.mark.slow
@pytest.mark.parametrize("name", SIX)
def test_each_detector_trains_a_step_with_finite_losses_and_predicts(name, boxes, tmp_path):
    """Of the real size, on pictures of 64 pixels; one batch has a picture without boxes."""
    content = json.loads((boxes / "train.json").read_text())
    empty = content["images"][0]["id"]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != empty]
    (boxes / "some_empty.json").write_text(json.dumps(content))
    options = data_options(boxes) | {
        "train_dataloader.dataset.ann_file": "some_empty.json",
        "train_dataloader.dataset.filter_cfg.filter_empty_gt": "False",
        "model.backbone.init_cfg": "None",
    }
    for split in ("train", "val"):
        options[f"{split}_dataloader.num_workers"] = "0"
    config = load_config(ROOT / "configs" / f"{name}.py", [f"{key}={value}" for key, value in options.items()])
    for split in ("train", "val"):
        for step in config[f"{split}_dataloader"].dataset.pipeline:
            if step.type == "Resize":
                step.scale = (96, 96)
    config.work_dir = str(tmp_path)
    runner = DetectionRunner.from_cfg(config)
    dataset = runner.train_dataloader.dataset
    batch = [dataset[0], dataset[1]]
    assert len(batch[0]["data_samples"].gt_instances) == 0
    inputs = {key: [sample[key] for sample in batch] for key in ("inputs", "data_samples")}
    model = runner.model.train()
    data = model.data_preprocessor(inputs, training=True)
    losses, values = model.parse_losses(model(**data, mode="loss"))
    assert all(torch.isfinite(torch.as_tensor(value)) for value in values.values())
    losses.backward()
    frozen = [p for part in (model.backbone.stem, model.backbone.layer1) for p in part.parameters()]
    assert all(parameter.grad is None for parameter in frozen)
    assert any(parameter.grad is not None for parameter in model.backbone.layer2.parameters())
    found = model.eval().test_step(inputs)
    assert len(found) == 2
    assert found[0].pred_instances.bboxes.shape[1] == 4


def test_stages_for_the_neck_are_those_of_the_classifier_bit_for_bit():
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    from tresnet_downstream.classification import ImageClassifier

    init_default_scope("mmdet")
    config = Config.fromfile(ROOT / "configs/retinanet_tresnet_m.py")
    config.model.backbone.init_cfg = None
    detector = MODELS.build(config.model).eval()
    backbone = {"type": "TResNet", "variant": "m", "out_indices": (0, 1, 2, 3)}
    classifier = ImageClassifier(backbone, {"type": "LinearHead", "num_classes": 3}).eval()
    # Its convolutions lie channels-last, for which torch has other kernels; MMDetection keeps the plain layout.
    classifier.to(memory_format=torch.contiguous_format)
    detector.load_state_dict(classifier.state_dict(), strict=False)
    pixels = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    bgr = [picture.flip(0) for picture in pixels]
    seen = {}
    hook = detector.backbone.register_forward_hook(lambda *given: seen.update(stages=given[2]))
    with torch.no_grad():
        inputs = detector.data_preprocessor({"inputs": bgr, "data_samples": []})["inputs"]
        detector.extract_feat(inputs)
        hook.remove()
        stages = classifier.backbone(pixels.float() / 255)
    assert type(detector.backbone) is type(classifier.backbone)
    assert len(seen["stages"]) == 4
    for one, other in zip(seen["stages"], stages, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(annotations=[]), ("no boxes",)),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), ("annotation 1", "`bbox` is [1, 2, 3]")),
        (lambda c: c["images"][0].pop("width"), ("`width`",)),
        (lambda c: c["annotations"][0].update(image_id=99), ("there is no image 99",)),
        (lambda c: c["annotations"][1].update(id=1), ("annotation id 1 is there twice",)),
        (lambda c: c["images"][1].update(file_name="train_01.png"), ("'train_01.png' is there twice",)),
        (lambda c: c["images"][1].update(file_name="./train_01.png"), ("'./train_01.png'", "the same image")),
    ],
)
def test_a_wrong_file_is_reported_in_one_line(change, words, boxes, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(boxes, data)
    content = json.loads((data / "train.json").read_text())
    change(content)
    (data / "train.json").write_text(json.dumps(content))
    refused([CONFIG, "--work-dir", tmp_path / "work", *flags(data)], "train.json", *words)


def test_pictures_that_are_not_trained_on_are_counted_and_named(boxes, tmp_path):
    data = shutil.copytree(boxes, tmp_path / "data")
    content = json.loads((data / "train.json").read_text())
    empty = content["images"][2]
    content["annotations"] = [given for given in content["annotations"] if given["image_id"] != empty["id"]]
    (data / "train.json").write_text(json.dumps(content))
    out = train(data, tmp_path / "work", train_cfg__max_epochs=1)
    assert "1 of 12 images left out" in out
    assert "left_out_train.csv in the work dir lists them" in out
    assert (tmp_path / "work/left_out_train.csv").read_text() == f"image,reason\n{empty['file_name']},has no box\n"


@pytest.mark.slow
def test_missing_files_and_classes_are_reported_in_one_line(boxes, trained_detector, tmp_path):
    work = ["--work-dir", tmp_path / "work"]
    refused([CONFIG, *work, *flags(tmp_path / "nowhere")], "nowhere/train.json", "no such", "data_root")
    classes = flags(boxes, train_dataloader__dataset__metainfo="{'classes':('disc','dog')}")
    refused([CONFIG, *work, *classes], "train.json", "no class 'dog'")
    refused([CONFIG, tmp_path / "no.pth", *work, *flags(boxes)], "no.pth", "no such file", tool="test_detection")
    refused([CONFIG, *work, *flags(boxes, coco_eval="fast")], "coco_eval='fast'")
    refused([CONFIG, *work, *flags(boxes), "train_cfg.max_epoch=3"], "train_cfg.max_epoch")
    data = tmp_path / "data"
    shutil.copytree(boxes, data)
    (data / "pictures" / "train_03.png").write_bytes(b"")
    refused([CONFIG, "--work-dir", tmp_path / "other", *flags(data)], "train_03.png", "unreadable image")


def test_empty_boxes_are_dropped_and_counted_in_a_message(boxes, tmp_path, capsys):
    from tresnet_downstream.detection.datasets import CocoBoxes

    content = json.loads((boxes / "val.json").read_text())
    number = len(content["annotations"])
    for box in ([3, 3, 0, 9], [3, 3, 9, -1], [70, 10, 5, 5], [-9, 1, 9, 9]):
        extra = {"id": len(content["annotations"]) + 1, "image_id": 1, "category_id": 7, "bbox": box}
        content["annotations"].append(extra)
    file = tmp_path / "odd.json"
    file.write_text(json.dumps(content))
    dataset = CocoBoxes(ann_file=str(file), data_prefix={"img": str(boxes / "pictures")}, test_mode=True, pipeline=[])
    assert dataset.dropped == {"without area": 2, "outside the image": 2}
    told = "odd.json: 4 boxes dropped (2 without area, 2 outside the image)"
    assert told in "".join(capsys.readouterr())
    assert sum(len(dataset.get_data_info(i)["instances"]) for i in range(len(dataset))) == number


def test_boxes_that_mmdetection_skips_are_corrected_or_counted(boxes, tmp_path):
    from tresnet_downstream.detection.datasets import CocoBoxes, read_boxes

    content = json.loads((boxes / "train.json").read_text())
    number = len(content["annotations"])
    for annotation in content["annotations"]:
        annotation["area"] = 0
    content["annotations"][0]["bbox"][2] = 0.6
    file = tmp_path / "odd.json"
    file.write_text(json.dumps(content))
    dataset = CocoBoxes(ann_file=str(file), data_prefix={"img": str(boxes / "pictures")}, pipeline=[])
    assert dataset.dropped == {"narrower than a pixel": 1}
    assert sum(len(dataset.get_data_info(i)["instances"]) for i in range(len(dataset))) == number - 1
    assert len(read_boxes(str(file))[0].content["annotations"]) == number  # scores count it


def test_test_pictures_need_no_annotations(boxes, tmp_path):
    from tresnet_downstream.detection.datasets import CocoBoxes
    from tresnet_downstream.detection.metrics import DetectionMetric

    content = json.loads((boxes / "val.json").read_text())
    del content["annotations"]
    (tmp_path / "image_info.json").write_text(json.dumps(content))
    given = {"ann_file": str(tmp_path / "image_info.json")}
    assert len(CocoBoxes(**given, data_prefix={"img": str(boxes / "pictures")}, test_mode=True, pipeline=[])) == 6
    DetectionMetric(**given, format_only=True, outfile_prefix=str(tmp_path / "found"))


def test_options_that_would_change_cocos_rules_are_refused(boxes):
    from tresnet_downstream.detection.metrics import DetectionMetric

    for option in ({"iou_thrs": [0.5]}, {"metric_items": ["mAP"]}):
        with pytest.raises(UserError, match=f"val_evaluator.{next(iter(option))}: .*leave it out"):
            DetectionMetric(str(boxes / "val.json"), **option)


def test_labels_follow_the_order_of_the_classes_asked_for(boxes):
    from tresnet_downstream.detection.datasets import CocoBoxes

    given = {"ann_file": str(boxes / "val.json"), "data_prefix": {"img": str(boxes / "pictures")}, "pipeline": []}
    by_id = CocoBoxes(**given, test_mode=True)
    asked = CocoBoxes(**given, test_mode=True, metainfo={"classes": ("square", "disc")})
    assert by_id.metainfo["classes"] == ("disc", "square")
    for place in range(len(by_id)):
        one, other = (
            [instance["bbox_label"] for instance in dataset.get_data_info(place)["instances"]]
            for dataset in (by_id, asked)
        )
        assert one == [1 - label for label in other]


def test_a_missing_operator_of_mmcv_is_named_with_the_detector(boxes, tmp_path):
    pytest.importorskip("mmcv_on_torchvision", reason="compiled mmcv has every operator")
    config = tmp_path / "config.py"
    base = write_faster_rcnn(tmp_path)
    config.write_text(
        f"_base_ = [{str(base)!r}]\n"
        "layer = dict(_delete_=True, type='PrRoIPool', output_size=7)\n"
        "model = dict(roi_head=dict(bbox_roi_extractor=dict(roi_layer=layer)))\n"
    )
    arguments = [config, "--work-dir", tmp_path / "run", *mask_rcnn_flags(boxes)]
    refused(arguments, "FasterRCNN needs an operator that is not installed", "prroi_pool_forward", "compile mmcv")
