"""Trainings with class weights or sampling: reported and stored settings, resuming, and errors."""

import json
import re
import signal

import numpy as np
import pytest
import torch
from running.small_data import CLASSES, CUSTOM, DIGITS, call, options, refuses_to_train, train
from running.small_folders import make_class_folders
from running.small_folders import train as train_folders
from running.test_mid_epoch import RANDOM, config_with
from running.test_resume import assert_bit_for_bit_equal, read
from running.torchrun import train_on_processes
from torch.utils.data import Dataset

from tresnet_downstream.classification import MultiLabelDataset
from tresnet_downstream.registry import DATASETS, MODELS
from tresnet_downstream.running.signals import TrainingStopped

# 32 draws of 24 images: even batches, of one process and of two.
SAMPLED = {"sampling": "repeat_factor", "repeat_threshold": 0.8}


def counts_of(data):
    """How many training images show each class, from the file."""
    content = json.loads((data / "train.json").read_text())
    shown = {(one["image_id"], one["category_id"]) for one in content["annotations"]}
    return [sum(category == number for _, category in shown) for number in (1, 2, 3)]


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """The work dir of a training with all three keys, and what it printed."""
    work_dir = tmp_path_factory.mktemp("rare") / "run"
    keys = {"class_weights": "inverse", "initial_bias": "frequencies"}
    return work_dir, train(data, work_dir, **SAMPLED, **keys)


def test_settings_are_printed_before_the_training_and_stored_in_the_checkpoint(data, trained):
    work_dir, printed = trained
    counts = counts_of(data)
    weights = sum(counts) / 3 / np.array(counts)
    lines = printed.splitlines()
    begins = next(place for place, line in enumerate(lines) if line.startswith("epoch 1/2"))
    told = {line.split(":")[0]: line for line in lines[:begins]}
    assert told["class_weights"].startswith(f"class_weights: inverse, from {weights.min():.3g} (")
    draws = int(re.search(r"sampling: repeat_factor .*: (\d+) draws of 24 images", told["sampling"])[1])
    assert "note: sampling and class_weights both favour rare classes; their effects multiply" in lines[:begins]
    low, high = min(counts) / 24, max(counts) / 24
    assert told["initial_bias"] == f"initial_bias: the head starts with probabilities from {low:.3g} to {high:.3g}"
    checkpoint = read(work_dir / "epoch_2.pth")
    described = checkpoint["meta"]["model"]["training"]
    assert described["class_images"] == counts
    assert described["weights_of_classes"] == pytest.approx(weights.tolist())
    assert (described["sampling"], described["class_weights"]) == ("repeat_factor", "inverse")
    assert described["draws"] == draws
    assert checkpoint["meta"]["iter"] == 2 * -(-draws // 8)
    assert not [name for name in checkpoint["state_dict"] if "class_weights" in name]


def test_a_checkpoint_that_is_scored_alone_has_head_middle_and_tail(data, trained, tmp_path):
    changes = {"val_annotations": "val.json", "val_images": "pictures", "data_root": data, "num_workers": 0}
    given = ["--cfg-options", *(f"{key}={value}" for key, value in changes.items()), "frequency_cutoffs=(13,14)"]
    arguments = [trained[0] / "epoch_2.pth", "--work-dir", tmp_path / "scored", *given]
    status, out, err = call("test_multilabel", arguments)
    assert status == 0, err
    assert "mAP by frequency in training" in out
    content = json.loads((tmp_path / "scored/run.json").read_text())["training"]
    assert content == {"images": dict(zip(CLASSES, counts_of(data), strict=True)), "cutoffs": [13, 14]}
    groups = json.loads((tmp_path / "scored/scores.json").read_text())["by_frequency"]
    per_class = json.loads((tmp_path / "scored/scores.json").read_text())["per_class"]
    ap = {row["class"]: row["ap"] for row in per_class}
    for group in groups:
        assert group["score"] == pytest.approx(np.mean([ap[name] for name in group["classes"]]))
    assert sorted(name for group in groups for name in group["classes"]) == sorted(CLASSES)
    status, out, _ = call(
        "test_multilabel", [arg if arg != "frequency_cutoffs=(13,14)" else "seed=0" for arg in arguments]
    )
    assert status == 0
    assert "by frequency" not in out  # the classes are even, and no cutoffs are set


@pytest.mark.parametrize("number", [signal.SIGTERM])
def test_a_training_with_sampling_that_is_stopped_within_an_epoch_continues_bit_for_bit(data, tmp_path, number):
    changes = {**RANDOM, **SAMPLED, "class_weights": "effective", "initial_bias": "frequencies"}
    train(data, tmp_path / "whole", config=CUSTOM, **changes)
    config = config_with(tmp_path, number, 10, "step")
    with pytest.raises(TrainingStopped):
        train(data, tmp_path / "run", config=config, **changes)
    (stopped,) = (tmp_path / "run").glob("epoch_*_step_*.pth")
    assert stopped.name.startswith("epoch_2_")
    # Another threshold would give the rest of the epoch other images.
    other = {**changes, "repeat_threshold": 0.7}
    refuses_to_train(
        data, tmp_path / "run", "repeat_threshold was 0.8 and is now 0.7", config=CUSTOM, flags=["--resume"], **other
    )
    printed = train(data, tmp_path / "run", "--resume", config=CUSTOM, **{**changes, "num_workers": 1})
    assert "resumed with a change" not in printed
    assert "initial_bias" not in printed  # the weights are the checkpoint's
    assert_bit_for_bit_equal(tmp_path / "run/epoch_3.pth", tmp_path / "whole/epoch_3.pth")


def test_changes_of_weights_and_sampling_between_epochs_are_reported_and_take_effect(data, trained, tmp_path):
    train(data, tmp_path / "run", max_epochs=2, stop_epoch=1)
    printed = train(data, tmp_path / "run", "--resume", sampling="class_balanced", class_weights="inverse")
    told = [line for line in printed.splitlines() if line.startswith("resumed with a change")]
    assert [line.split(": ", 1)[1].split(" was ")[0] for line in told] == [
        "sampling",
        "class_weights",
        "training labels",
        "labels of class_weights",
    ]
    assert "sampling: class_balanced: 24 draws of 24 images in an epoch" in printed
    refuses_to_train(
        data,
        tmp_path / "run",
        "initial_bias was None and is now 'frequencies'",
        flags=["--resume"],
        max_epochs=3,
        initial_bias="frequencies",
    )


@pytest.mark.slow
def test_two_processes_visit_the_images_of_one(data, tmp_path):
    changes = {**SAMPLED, "class_weights": "inverse", "initial_bias": "frequencies", "max_epochs": 1}
    norm = {"model__backbone__norm": "sync"}
    printed = train(data, tmp_path / "alone", **changes, **norm)
    ended = train_on_processes(
        2, DIGITS, tmp_path / "two", *options(data, **{**changes, **norm, "batch_size": 4}), timeout=120
    )
    assert ended.status == 0, ended.err
    line = re.compile(r"epoch 1/1: loss per image ([\d.]+)")
    assert float(line.search(ended.out)[1]) == pytest.approx(float(line.search(printed)[1]), rel=1e-3)
    one, two = (read(tmp_path / name / "epoch_1.pth") for name in ("alone", "two"))
    assert one["meta"]["iter"] == two["meta"]["iter"]
    assert one["meta"]["model"]["training"] == two["meta"]["model"]["training"]
    assert ended.out.count("sampling: repeat_factor") == 1


def test_a_head_from_a_file_keeps_its_bias_and_a_fresh_one_gets_the_frequencies(data, trained, tmp_path):
    source = trained[0] / "epoch_2.pth"
    printed = train(data, tmp_path / "same", load_from=source, initial_bias="frequencies", max_epochs=1)
    assert "note: initial_bias is not applied: the head's weights and bias were loaded from a file" in printed
    other = {"model__head__type": "BottleneckHead"}
    printed = train(data, tmp_path / "other", load_from=source, initial_bias="frequencies", max_epochs=1, **other)
    assert "the head is not loaded" in printed
    assert "initial_bias: the head starts with probabilities" in printed


def test_one_label_for_each_image_has_weights_and_sampling_too(tmp_path):
    folders = make_class_folders(tmp_path / "data", (6, 3))
    for name in ("1", "2", "3", "4"):
        (folders / f"train/red/{name}.jpg").unlink()
    keys = {"sampling": "class_balanced", "class_weights": "inverse", "initial_bias": "frequencies"}
    mixed = {"model__batch_transforms": "[dict(type='Mixup',mixup_alpha=0.8)]"} if _has_timm() else {}
    printed = train_folders(folders, tmp_path / "run", max_epochs=1, **keys, **mixed)
    assert "sampling: class_balanced: 14 draws of 14 images in an epoch, each image 0.778 to 2.33 times" in printed
    assert "class_weights: inverse, from 0.778 ('blue') to 2.33 ('red')" in printed
    assert "initial_bias: the head starts with probabilities from 0.143 to 0.429" in printed
    arguments = ["configs/folders_tresnet_m_224.py", tmp_path / "run/epoch_1.pth", "--work-dir", tmp_path / "scored"]
    status, out, err = call("test_classifier", [*arguments, "--cfg-options", f"data_root={folders}", "num_workers=0"])
    assert status == 0, err
    assert [line.split()[0] for line in out.splitlines() if "to" in line or line.startswith("tail")][-1] == "tail"
    assert json.loads((tmp_path / "scored/run.json").read_text())["training"]["images"] == {
        "blue": 6,
        "green": 6,
        "red": 2,
    }


def _has_timm():
    try:
        import timm.data  # noqa: F401
    except ImportError:
        return False
    return True


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"class_weights": "inverted"}, ["class_weights='inverted'", "'inverse', 'effective'"]),
        ({"class_weights": "dict(disk=2)"}, ["there is no class 'disk'; nearest: disc"]),
        ({"class_weights": "[1,2]"}, ["has 2 numbers, but there are 3 classes"]),
        ({"class_weights": "[1,-1,1]"}, ["'square' is -1"]),
        ({"class_weights": "effective", "effective_beta": 1}, ["effective_beta=1"]),
        ({"class_weights": "inverse", "model__loss__class_weights": "[1,1,1]"}, ["leave one of them out"]),
        ({"model__loss__class_weights": "[1,1]"}, ["model.loss.class_weights: has 2 numbers", "3 classes"]),
        ({"sampling": "repeated"}, ["sampling='repeated'"]),
        ({"sampling": "repeat_factor", "repeat_threshold": 2}, ["repeat_threshold=2"]),
        ({"initial_bias": "prior"}, ["initial_bias='prior'", "'frequencies'"]),
        ({"frequency_cutoffs": "(100,10)"}, ["frequency_cutoffs=(100, 10)"]),
    ],
)
def test_wrong_values_are_refused_in_one_line(data, tmp_path, changes, words):
    refuses_to_train(data, tmp_path / "run", *words, **changes)


def test_a_custom_loss_that_takes_no_weights_is_refused(data, tmp_path, monkeypatch):
    class OwnLoss(torch.nn.Module):
        def forward(self, logits, targets):
            return (logits * (1 - 2 * targets)).clamp(min=-1).mean()

    class WeightedLoss(OwnLoss):
        reduction = "mean"

        def __init__(self, class_weights=None):
            super().__init__()
            given.append(class_weights)

    given = []
    monkeypatch.setitem(MODELS.module_dict, "OwnLoss", OwnLoss)
    monkeypatch.setitem(MODELS.module_dict, "WeightedLoss", WeightedLoss)
    config = tmp_path / "mine.py"
    config.write_text(f"_base_ = ['{DIGITS}']\nmodel = dict(loss=dict(_delete_=True, type='OwnLoss'))\n")
    refuses_to_train(
        data, tmp_path / "run", "class_weights: OwnLoss has no argument", config=config, class_weights="inverse"
    )
    config.write_text(f"_base_ = ['{DIGITS}']\nmodel = dict(loss=dict(_delete_=True, type='WeightedLoss'))\n")
    train(data, tmp_path / "run", config=config, class_weights="dict(disc=3)", max_epochs=1)
    assert given == [[3, 1, 1]]


def test_a_custom_data_set_without_labels_is_refused(data, tmp_path, monkeypatch):
    class OwnData(Dataset):
        def __init__(self, pipeline=(), classes=None, **_):
            self.inner = MultiLabelDataset(str(data / "train.json"), str(data / "pictures"), pipeline, classes=classes)
            self.classes, self.metainfo = self.inner.classes, self.inner.metainfo

        def __len__(self):
            return len(self.inner)

        def __getitem__(self, key):
            return self.inner[key]

    class TellingData(OwnData):
        def get_cat_ids(self, index):
            return np.flatnonzero(self.inner.target(index).numpy() == 1).tolist()

    monkeypatch.setitem(DATASETS.module_dict, "OwnData", OwnData)
    monkeypatch.setitem(DATASETS.module_dict, "TellingData", TellingData)
    config = tmp_path / "mine.py"
    text = (
        "_base_ = ['{}']\ntrain_dataloader = dict(dataset=dict(_delete_=True, type='{}', file='$train_annotations',"
        "folder='$train_images', pipeline='$train_pipeline'))\n"
    )
    config.write_text(text.format(DIGITS, "OwnData"))
    for key, value in (("sampling", "repeat_factor"), ("class_weights", "inverse"), ("initial_bias", "frequencies")):
        words = (f"{key}: OwnData does not provide the labels of its images", "get_cat_ids(index)")
        refuses_to_train(data, tmp_path / "run", *words, config=config, **{key: value})
    train(data, tmp_path / "run", config=config, max_epochs=1)
    assert "class_images" not in read(tmp_path / "run/epoch_1.pth")["meta"]["model"]["training"]
    config.write_text(text.format(DIGITS, "TellingData"))
    printed = train(data, tmp_path / "telling", config=config, max_epochs=1, **SAMPLED)
    assert "draws of 24 images in an epoch" in printed
    assert read(tmp_path / "telling/epoch_1.pth")["meta"]["model"]["training"]["class_images"] == counts_of(data)
