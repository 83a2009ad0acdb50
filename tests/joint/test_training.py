"""Joint models from config to checkpoint: training, resuming, scoring, predicting, and what is refused."""

import json
import shutil
import signal

import numpy as np
import pytest
import torch

pytest.importorskip("mmdet", reason="needs the detection set-up")

from detection.small_boxes import CONFIG as DETECTOR
from detection.small_boxes import call, flags
from detection.small_boxes import train as train_detector
from detection.test_training import refused as refused_by
from joint.small_joint import CONFIG, train
from mmengine.config import Config
from running.small_data import ROOT
from running.test_mid_epoch import INTERRUPTING
from running.torchrun import train_on_processes

from tresnet_downstream import load_model, predict
from tresnet_downstream.classification.annotations import read_annotations
from tresnet_downstream.deployment.sharing import share
from tresnet_downstream.detection.predict import detect, load_detector
from tresnet_downstream.evaluation.runs import read_outcome
from tresnet_downstream.running.signals import TrainingStopped
from tresnet_downstream.weights import is_detector, read_checkpoint


@pytest.fixture(scope="module")
def trained(boxes, tmp_path_factory):
    """The work dir of a joint model that was trained for two epochs, and what was printed."""
    work_dir = tmp_path_factory.mktemp("joint")
    return work_dir, train(boxes, work_dir)


def refused(arguments, *words, tool="train_joint"):
    refused_by(arguments, *words, tool=tool)


def same_weights(one, other):
    first, second = (read_checkpoint(path)["state_dict"] for path in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_training_prints_both_scores_and_leaves_one_checkpoint(trained):
    work_dir, out = trained
    lines = out.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["epoch 1/2", "epoch 2/2"]
    assert "val AP" in lines[0]
    assert "mAP of labels" in lines[0]
    assert lines[2].startswith("best val AP ")
    checkpoint = torch.load(work_dir / "epoch_2.pth", weights_only=True)  # without any allow-list
    described = checkpoint["meta"]["model"]["detector"]
    assert described["label_head"] == {"type": "tresnet_downstream.LinearHead", "num_classes": 2}
    assert described["detector"]["bbox_head"]["num_classes"] == 2
    assert is_detector(work_dir / "epoch_2.pth")


@pytest.mark.slow
def test_a_resumed_training_equals_one_that_was_not_interrupted(trained, boxes, tmp_path):
    train(boxes, tmp_path / "cut", train_cfg__max_epochs=1)
    train(boxes, tmp_path / "cut", "--resume")
    assert same_weights(trained[0] / "epoch_2.pth", tmp_path / "cut" / "epoch_2.pth")


def test_the_config_in_the_work_dir_trains_the_same_model(trained, tmp_path):
    config = trained[0] / Config.fromfile(CONFIG).filename.rpartition("/")[2]
    status, _, err = call("train_joint", [config, "--work-dir", tmp_path])
    assert status == 0, err
    assert same_weights(trained[0] / "epoch_2.pth", tmp_path / "epoch_2.pth")


def test_scoring_writes_a_run_of_the_labels_and_one_of_the_boxes(trained, boxes, tmp_path):
    status, out, err = call("test_joint", [CONFIG, trained[0] / "epoch_2.pth", "--work-dir", tmp_path, *flags(boxes)])
    assert status == 0, err
    assert "mAP " in out
    assert "AP50  IoU 0.50" in out
    run = read_outcome(tmp_path)
    assert run.labels.classes == run.boxes.classes == ("disc", "square")
    truth = read_annotations(boxes / "val.json")
    assert run.labels.images == truth.paths()
    assert (run.labels.targets == truth.targets()).all()
    last = next(line for line in trained[1].splitlines() if line.startswith("epoch 2/2"))
    scores = [json.loads((tmp_path / part / "scores.json").read_text()) for part in ("labels", "boxes")]
    assert "mAP of labels {:.2f}".format(scores[0]["headline"]["mAP"]) in last


def test_predict_gives_labels_and_boxes(trained, boxes, tmp_path):
    checkpoint, image = trained[0] / "epoch_2.pth", boxes / "pictures" / "val_01.png"
    status, out, err = call("predict", [checkpoint, image, "--json", "--threshold", 0, "--top-k", 3, "--out", tmp_path])
    assert status == 0, err
    line = json.loads(out)
    assert list(line) == ["image", "labels", "boxes"]
    assert len(line["boxes"]) == 3
    found = next(detect(load_detector(checkpoint), str(image)))
    shown = {name: p for name, p in zip(("disc", "square"), found.label_probabilities.tolist(), strict=True) if p > 0.5}
    assert {entry["label"]: entry["probability"] for entry in line["labels"]} == pytest.approx(shown, abs=1e-6)
    assert len(list(tmp_path.glob("val_01.*"))) == 1
    status, out, _ = call("predict", [checkpoint, image, "--threshold", 0.99])
    assert status == 0
    assert out.strip().endswith("; nothing")


def test_a_detectors_checkpoint_starts_the_boxes_and_equals_them(trained_detector, boxes, tmp_path):
    start = trained_detector[0] / "epoch_2.pth"
    changes = {"labels__start_from__boxes": start, "optim_wrapper__optimizer__lr": 0, "train_cfg__max_epochs": 1}
    changes |= {"model__backbone__norm_eval": True}
    train(boxes, tmp_path, **changes)
    weights, before = (read_checkpoint(path)["state_dict"] for path in (tmp_path / "epoch_1.pth", start))
    assert all(torch.equal(weights[f"detector.{name}"], tensor) for name, tensor in before.items())
    images = sorted(map(str, (boxes / "pictures").glob("val*")))
    for one, other in zip(
        detect(load_detector(tmp_path / "epoch_1.pth"), images), detect(load_detector(start), images), strict=True
    ):
        assert (one.boxes == other.boxes).all()
        assert (one.scores == other.scores).all()


@pytest.mark.slow
def test_a_training_of_another_task_is_refused(trained, boxes, tmp_path):
    refused([CONFIG, "--work-dir", tmp_path, *flags(boxes)], "tools/train_joint.py", tool="train_detection")
    refused([DETECTOR, "--work-dir", tmp_path, *flags(boxes)], "is for a detector", "tools/train_detection.py")
    train_detector(boxes, tmp_path / "boxes", train_cfg__max_epochs=1)
    refused(
        [CONFIG, tmp_path / "boxes" / "epoch_1.pth", "--work-dir", tmp_path, *flags(boxes)],
        "another model",
        tool="test_joint",
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels__hed": "1"}, ["labels"]),
        ({"labels__loss_weights__labels": "-1"}, ["labels.loss_weights.labels=-1"]),
        ({"labels__head__type": "LinearHed"}, ["LinearHed"]),
        ({"labels__start_from__boxes": "nothing.pth"}, ["nothing.pth"]),
        ({"labels__train__ann_file": "nothing.csv"}, ["nothing.csv"]),
    ],
)
def test_options_that_make_no_sense_end_in_one_line(boxes, tmp_path, changes, words):
    refused([CONFIG, "--work-dir", tmp_path, *flags(boxes, **changes)], *words)


def test_classes_that_differ_are_named(boxes, trained_detector, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(boxes, data)
    for split in ("train", "val"):
        content = json.loads((data / f"{split}.json").read_text())
        content["categories"][0]["name"] = "cube"
        (data / f"{split}.json").write_text(json.dumps(content))
    start = {"labels__start_from__boxes": trained_detector[0] / "epoch_2.pth"}
    words = "its classes are not the 2 expected ones: it lacks 1 (cube) and adds 1 (square)"
    refused([CONFIG, "--work-dir", tmp_path / "run", *flags(data, **start)], words)


def write_table(path, rows):
    path.write_text("".join(f"{name},{';'.join(labels)}\n" for name, labels in rows))
    return path


@pytest.fixture
def some_boxes(boxes, tmp_path):
    """Data whose file of boxes lists eight of twelve training images, and a table of labels of eleven."""
    data = tmp_path / "data"
    shutil.copytree(boxes, data)
    content = json.loads((data / "train.json").read_text())
    kept = {image["id"] for image in content["images"][:8]}
    content["images"] = content["images"][:8]
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] in kept]
    (data / "train.json").write_text(json.dumps(content))
    rows = [(f"train_{number:02}.png", ("disc",) if number % 2 else ("disc", "square")) for number in range(2, 13)]
    return data, write_table(data / "labels.csv", rows)


@pytest.mark.slow
def test_labels_for_all_images_and_boxes_for_some(some_boxes, tmp_path):
    data, table = some_boxes
    out = train(data, tmp_path / "run", labels__train__ann_file=table, train_cfg__max_epochs=1)
    assert "8 images train boxes and labels, 4 only labels" in out
    assert "does not list 1 of the images with boxes, such as train_01.png" in out
    assert "mAP of labels" in out
    train(data, tmp_path / "run", "--resume", labels__train__ann_file=table)


@pytest.mark.slow
def test_two_processes_train_images_with_and_without_boxes(some_boxes, tmp_path):
    data, table = some_boxes
    changes = {"labels__train__ann_file": table, "train_cfg__max_epochs": 1, "train_dataloader__batch_size": 2}
    options = flags(data, **changes, optim_wrapper__accumulative_counts=2)
    ended = train_on_processes(2, CONFIG, tmp_path, *options, tool="train_joint")
    assert ended.status == 0, ended.err
    assert "mAP of labels" in ended.out


def test_batches_alternate_between_images_with_boxes_and_without(some_boxes):
    from mmengine.dataset import DefaultSampler

    from tresnet_downstream.joint.data import AlternatingBatchSampler, LabelledBoxes

    data, table = some_boxes
    dataset = LabelledBoxes(
        ann_file=str(data / "train.json"),
        data_prefix={"img": str(data / "pictures")},
        labels={"ann_file": str(table)},
        pipeline=[
            {"type": "mmdet.LoadImageFromFile"},
            {"type": "mmdet.LoadAnnotations", "with_bbox": True},
            {"type": "mmdet.PackDetInputs"},
        ],
    )
    assert dataset.with_boxes.tolist() == [True] * 8 + [False] * 4
    second, last = dataset[1]["data_samples"], dataset[11]["data_samples"]
    assert second.has_boxes
    assert second.image_labels.tolist() == [1, 1]
    assert not last.has_boxes
    assert "image_labels" not in dataset[0]["data_samples"]  # its labels are those of its boxes
    sampler = DefaultSampler(dataset, shuffle=True, seed=3)
    batches = list(AlternatingBatchSampler(sampler, 3))
    assert len(batches) == len(AlternatingBatchSampler(sampler, 3)) == 5
    assert sorted(index for batch in batches for index in batch) == list(range(12))
    assert all(len({index < 8 for index in batch}) == 1 for batch in batches)
    kinds = [batch[0] < 8 for batch in batches]
    assert kinds != sorted(kinds)
    assert kinds != sorted(kinds, reverse=True)
    # Two processes have the same number of batches, each of one kind at a time, and all images together.
    parts = []
    for rank in range(2):
        sampler.rank, sampler.world_size = rank, 2
        parts.append(list(AlternatingBatchSampler(sampler, 2)))
    assert [[index < 8 for index in batch][:1] for batch in parts[0]] == [
        [index < 8 for index in batch][:1] for batch in parts[1]
    ]
    assert sorted({index for part in parts for batch in part for index in batch}) == list(range(12))


def test_a_table_of_other_classes_says_how_they_differ(some_boxes, tmp_path):
    data, table = some_boxes
    table.write_text(table.read_text().replace("square", "cube"))
    arguments = [CONFIG, "--work-dir", tmp_path, *flags(data, labels__train__ann_file=table)]
    refused(arguments, "lacks 1 (square)", "adds 1 (cube)")


def test_images_of_the_table_that_are_not_there_are_named(some_boxes, tmp_path):
    data, table = some_boxes
    table.write_text(table.read_text() + "train_99.png,disc\n")
    arguments = [CONFIG, "--work-dir", tmp_path, *flags(data, labels__train__ann_file=table)]
    refused(arguments, "labels.train.images: 1 of 5 images are not in", "train_99.png", "on_bad_image=skip")


def test_images_that_a_table_names_from_another_folder_are_found_again(some_boxes):
    data, table = some_boxes
    write_table(table, [(f"pictures/train_{number:02}.png", ("disc", "square")) for number in range(2, 13)])
    dataset = labelled(data, table, labels={"ann_file": str(table), "images": str(data)})
    assert dataset.with_boxes.tolist() == [True] * 8 + [False] * 4
    assert [dataset.get_data_info(index)["label_row"] for index in range(12)] == [-1, *range(11)]


def test_one_name_in_two_folders_is_refused(some_boxes, tmp_path):
    from tresnet_downstream.errors import UserError

    data, table = some_boxes
    shutil.copytree(data / "pictures", tmp_path / "copied")
    with pytest.raises(UserError, match="name one folder that has the images of both files"):
        labelled(data, table, labels={"ann_file": str(table), "images": str(tmp_path / "copied")})


@pytest.mark.slow
def test_a_classifiers_checkpoint_starts_the_labels_and_equals_them(boxes, tmp_path):
    places = {"train_annotations": "train.json", "train_images": "pictures", "val_images": "pictures"}
    options = {"data_root": boxes, **places, "val_annotations": "val.json", "image_size": 64, "batch_size": 4}
    options |= {"model.backbone.layers": "(1,1,1,1)", "model.backbone.width": 0.125, "model.head.num_classes": None}
    options |= {"num_workers": 0, "max_epochs": 1}
    arguments = ["--cfg-options", *(f"{key}={value}" for key, value in options.items())]
    status, _, err = call("train_multilabel", [ROOT / "configs/digits_tresnet.py", "--work-dir", tmp_path, *arguments])
    assert status == 0, err
    start = tmp_path / "best.pth"
    changes = {"labels__start_from__labels": start, "optim_wrapper__optimizer__lr": 0, "train_cfg__max_epochs": 1}
    changes |= {"model__backbone__norm_eval": True, "val_dataloader__dataset__pipeline__1__scale": "(64,64)"}
    train(boxes, tmp_path / "joint", **changes)
    model, classifier = load_detector(tmp_path / "joint" / "epoch_1.pth"), load_model(start)
    own = model.detector.backbone.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in classifier.backbone.state_dict().items())
    assert torch.equal(model.label_head.fc.weight, classifier.head.fc.weight)
    images = sorted(map(str, (boxes / "pictures").glob("val*")))
    here = torch.tensor([found.label_probabilities.tolist() for found in detect(model, images)])
    there = torch.from_numpy(predict(classifier.to(memory_format=torch.contiguous_format), images))
    assert torch.allclose(here, there, atol=1e-6)
    both = {**changes, "labels__start_from__boxes": tmp_path / "joint" / "epoch_1.pth"}
    refused([CONFIG, "--work-dir", tmp_path / "both", *flags(boxes, **both)], "epoch_1.pth")


@pytest.mark.slow
def test_the_config_in_the_work_dir_follows_options(some_boxes, tmp_path):
    data, table = some_boxes
    train(data, tmp_path / "run", labels__train__ann_file=table, train_cfg__max_epochs=1)
    (data / "pictures" / "train_02.png").write_bytes(b"nothing")
    changes = [
        "on_bad_image=skip",
        "labels.keep_empty=True",
        "labels.threshold=0.25",
        "train_dataloader.batch_sampler.drop_last=True",
    ]
    copied = tmp_path / "run" / Config.fromfile(CONFIG).filename.rpartition("/")[2]
    status, _, err = call("train_joint", [copied, "--work-dir", tmp_path / "again", "--cfg-options", *changes])
    assert status == 0, err
    used = Config.fromfile(tmp_path / "again" / copied.name)
    metric = used.val_evaluator[-1]
    assert (metric.type, metric.threshold, metric.keep_empty) == ("tresnet_downstream.LabelsMetric", 0.25, True)
    assert len(used.val_evaluator) == 2
    assert used.train_dataloader.dataset.labels.ann_file == str(table)
    assert used.train_dataloader.batch_sampler.drop_last


@pytest.mark.slow
def test_the_config_in_the_work_dir_can_start_without_the_files_of_before(trained_detector, boxes, tmp_path):
    start = trained_detector[0] / "epoch_2.pth"
    train(boxes, tmp_path / "run", labels__start_from__boxes=start, train_cfg__max_epochs=1)
    copied = tmp_path / "run" / Config.fromfile(CONFIG).filename.rpartition("/")[2]
    for changes, file in ((["labels.start_from.boxes=None"], None), ([], str(start))):
        again = [copied, "--work-dir", tmp_path / "again", "--overwrite"]
        status, _, err = call("train_joint", [*again, "--cfg-options", "train_cfg.max_epochs=1", *changes])
        assert status == 0, err
        used = Config.fromfile(tmp_path / "again" / copied.name)
        assert used.model.get("init_cfg", {}).get("boxes") == file


def labelled(data, table, *steps, **options):
    from tresnet_downstream.joint.data import LabelledBoxes

    load = [{"type": "mmdet.LoadImageFromFile"}, {"type": "mmdet.LoadAnnotations", "with_bbox": True}]
    return LabelledBoxes(
        ann_file=str(data / "train.json"),
        data_prefix={"img": str(data / "pictures")},
        pipeline=[*load, *steps, {"type": "mmdet.PackDetInputs"}],
        **{"labels": {"ann_file": str(table)}, **options},
    )


def test_an_unreadable_image_is_replaced_by_one_of_its_kind(some_boxes):
    data, table = some_boxes
    for name in ("train_08.png", "train_12.png"):  # the last with boxes, the last with labels alone
        (data / "pictures" / name).write_bytes(b"nothing")
    dataset = labelled(data, table, on_bad_image="skip")
    assert dataset[7]["data_samples"].img_path.endswith("train_01.png")
    assert dataset[11]["data_samples"].img_path.endswith("train_09.png")
    prepare = dataset.pipeline.transforms[-1].transform
    # The pipeline leaves out an image, as a crop without a box does.
    dataset.pipeline.transforms[-1].transform = lambda given: None if given["img_id"] == 3 else prepare(given)
    assert all(dataset[2]["data_samples"].has_boxes for _ in range(20))


def test_labels_are_those_of_the_images_that_indices_choose(some_boxes):
    data, table = some_boxes
    assert labelled(data, table, indices=[11, 0, 9]).with_boxes.tolist() == [False, True, False]


@pytest.mark.parametrize(
    "step",
    [
        {"type": "mmdet.CachedMosaic", "img_scale": (64, 64)},
        {"type": "mmdet.CopyPaste"},
        {"type": "mmcv.RandomApply", "transforms": [{"type": "mmdet.CachedMixUp", "img_scale": (64, 64)}]},
    ],
    ids=lambda step: step["type"],
)
def test_pipelines_that_mix_images_are_refused_beside_a_file_of_labels(some_boxes, step):
    from tresnet_downstream.errors import UserError

    with pytest.raises(UserError, match="mixes images"):
        labelled(*some_boxes, step)


def test_batches_of_samplers_without_an_end(some_boxes):
    from itertools import islice

    from mmengine.dataset import InfiniteSampler

    from tresnet_downstream.errors import UserError
    from tresnet_downstream.joint.data import AlternatingBatchSampler

    dataset = labelled(*some_boxes)
    sampler = InfiniteSampler(dataset, seed=3)
    parts = []
    for rank in range(2):
        sampler.rank, sampler.world_size = rank, 2
        parts.append(list(islice(AlternatingBatchSampler(sampler, 2), 30)))
    assert all(len(batch) == 2 for part in parts for batch in part)
    for first, second in zip(*parts, strict=True):
        assert len({index < 8 for index in first + second}) == 1
    assert {index for part in parts for batch in part for index in batch} == set(range(12))
    with pytest.raises(UserError, match="RandomSampler"):
        AlternatingBatchSampler(torch.utils.data.RandomSampler(dataset), 2)


def labels_metric(data, **options):
    from tresnet_downstream.joint.metrics import LabelsMetric

    metric = LabelsMetric(ann_file=str(data / "val.json"), **options)
    metric.dataset_meta = {"classes": ("disc", "square")}
    return metric


def test_images_of_another_file_are_not_scored_under_its_names(boxes):
    from tresnet_downstream.errors import UserError

    sample = {"img_id": 2, "label_probabilities": torch.tensor([0.5, 0.5])}
    metric = labels_metric(boxes)
    metric.process({}, [{**sample, "img_path": f"{boxes}/pictures/val_02.png"}])
    assert metric.results[0][0] == "val_02.png"
    for other in ({"img_path": f"{boxes}/pictures/train_02.png"}, {"img_id": 99}):
        with pytest.raises(UserError, match="use the same annotation file for the data loader and the evaluator"):
            metric.process({}, [{**sample, **other}])


def test_images_that_a_file_of_labels_lacks_in_validation_are_counted(boxes, tmp_path, capsys):
    rows = [(f"val_{number:02}.png", ("disc", "square")) for number in range(2, 7)]
    labels_metric(boxes, labels_file=str(write_table(tmp_path / "labels.csv", rows)))
    out = capsys.readouterr()
    assert "has labels of 5 of the 6 images" in out.out + out.err
    assert "such as val_01.png, are not scored" in out.out + out.err


@pytest.mark.slow
def test_a_training_resumed_within_an_epoch_equals_one_that_was_not_interrupted(some_boxes, tmp_path):
    data, table = some_boxes
    exec(compile(INTERRUPTING, "interrupting", "exec"), {"__name__": "interrupting"})
    changes = {"labels__train__ann_file": table, "train_dataloader__batch_size": 2, "train_cfg__max_epochs": 1}
    train(data, tmp_path / "whole", **changes)
    config = tmp_path / "interrupting.py"
    hook = f"dict(type='mmengine.Interrupting', number={int(signal.SIGTERM)}, batch=3, place='step')"
    config.write_text(f"_base_ = [{CONFIG!r}]\ncustom_hooks = [{hook}]\n")
    with pytest.raises(TrainingStopped):
        call("train_joint", [config, "--work-dir", tmp_path / "cut", *flags(data, **changes)])
    assert list((tmp_path / "cut").glob("epoch_1_step_*.pth"))
    train(data, tmp_path / "cut", "--resume", **changes)
    assert same_weights(tmp_path / "whole" / "epoch_1.pth", tmp_path / "cut" / "epoch_1.pth")


def test_a_shared_folder_gives_labels_and_boxes(trained, boxes, tmp_path):
    work_dir, _ = trained
    share(work_dir / "epoch_2.pth", tmp_path / "shared", "mit")
    models = [load_detector(source) for source in (work_dir / "epoch_2.pth", tmp_path / "shared")]
    picture = next((boxes / "pictures").iterdir())
    first, second = (next(detect(model, picture)) for model in models)
    np.testing.assert_array_equal(first.boxes, second.boxes)
    np.testing.assert_array_equal(first.label_probabilities, second.label_probabilities)
