"""RepeatDataset and ConcatDataset: length, labels, classes, and draws that follow from seed, epoch and index."""

import json

import numpy as np
import pytest
import torch
from running.small_data import CLASSES, DIGITS, make_small_data, refuses_to_train, train

from tresnet_downstream.classification import ConcatDataset, MultiLabelDataset, RepeatDataset
from tresnet_downstream.classification.data_summary import summary
from tresnet_downstream.errors import UserError
from tresnet_downstream.registry import DATASETS

PIPELINE = [{"type": "SquashResize", "size": 16}, {"type": "Cutout", "factor": 0.5}]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_small_data(tmp_path_factory.mktemp("joined") / "data")


def part(data, split="train", **changes):
    paths = {"data_root": str(data), "annotation_file": f"{split}.json", "image_folder": "pictures"}
    return {"type": "tresnet_downstream.MultiLabelDataset", **paths, "pipeline": PIPELINE, "seed": 3, **changes}


def alone(data, split="train", **changes):
    config = part(data, split, **changes)
    return MultiLabelDataset(**{key: value for key, value in config.items() if key != "type"})


def same(one, other):
    return one["image"] == other["image"] and torch.equal(one["inputs"], other["inputs"])


def test_repeated_visits_of_an_image_have_the_draws_of_epochs_of_the_set_alone(data):
    once, thrice = alone(data), RepeatDataset(part(data), 3)
    assert len(thrice) == 3 * len(once)
    for epoch, visit, index in [(0, 0, 5), (0, 2, 5), (4, 1, 0)]:
        assert same(thrice[epoch, visit * len(once) + index], once[epoch * 3 + visit, index])
    assert not same(thrice[0, 5], thrice[0, len(once) + 5])


def test_joined_sets_follow_one_another_and_each_has_draws_of_its_own(data):
    both, first, second = ConcatDataset([part(data), part(data, "val")]), alone(data), alone(data, "val")
    assert len(both) == len(first) + len(second)
    assert same(both[2, 5], first[2, 5])
    later = both[2, len(first) + 4]
    assert later["image"] == second[2, 4]["image"]
    assert torch.equal(later["targets"], second[2, 4]["targets"])
    assert same(later, ConcatDataset([part(data), part(data, "val")])[2, len(first) + 4])
    twice = ConcatDataset([part(data), part(data)])
    assert not same(twice[2, 5], twice[2, len(first) + 5])
    with pytest.raises(IndexError):
        both[0, len(both)]


def test_labels_of_all_parts_are_counted_once(data):
    both = ConcatDataset(
        [part(data), {"type": "tresnet_downstream.RepeatDataset", "dataset": part(data, "val"), "times": 2}]
    )
    assert both.metainfo == {"classes": CLASSES}
    assert len(both) == len(alone(data)) + 2 * len(alone(data, "val"))
    rows = np.concatenate([alone(data).annotations.targets(), alone(data, "val").annotations.targets()])
    np.testing.assert_array_equal(both.annotations.targets(), rows)
    assert both.annotations.paths() == [*alone(data).annotations.paths(), *alone(data, "val").annotations.paths()]
    first = summary("train", both, PIPELINE, "left_out.csv")[0]
    assert first.startswith(f"train: {len(rows)} images of {data}/train.json and {data}/val.json, 2 times in an epoch;")


def test_sets_of_other_classes_are_refused_in_one_line(data, tmp_path):
    content = json.loads((data / "val.json").read_text())
    content["categories"][1]["name"] = "ring"
    (tmp_path / "other.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"other.json: its classes are not the 3 expected ones: it lacks 1 \(square\)"):
        ConcatDataset([part(data), part(data, annotation_file=str(tmp_path / "other.json"))])
    with pytest.raises(UserError, match="datasets is empty"):
        ConcatDataset([])
    with pytest.raises(UserError, match="times=0"):
        RepeatDataset(part(data), 0)


def test_a_subclass_that_passes_its_arguments_on_has_the_classes_of_the_first_set(data, tmp_path, monkeypatch):
    class Renamed(MultiLabelDataset):
        def __init__(self, **options):
            super().__init__(**options)

    monkeypatch.setitem(DATASETS.module_dict, "Renamed", Renamed)
    (tmp_path / "one.csv").write_text(f"path,label\n{alone(data).annotations.path(0)},{CLASSES[1]}\n")
    further = part(data, type="tresnet_downstream.Renamed", annotation_file=str(tmp_path / "one.csv"))
    both = ConcatDataset([part(data), further])
    assert both.classes == CLASSES
    assert both[0, len(alone(data))]["targets"].tolist() == [0, 1, 0]


INNER = """dict(
    type='MultiLabelDataset', data_root='$data_root', annotation_file='{}', image_folder='$train_images',
    seed='$seed', pipeline='$train_pipeline')"""
JOINED = {
    "RepeatDataset": f"dataset={INNER.format('$train_annotations')}, times=2",
    "ConcatDataset": f"datasets=[{INNER.format('$train_annotations')}, {INNER.format('$val_annotations')}]",
}


def config_of(kind, folder):
    dataset = f"dict(_delete_=True, type='{kind}', {JOINED[kind]})"
    (folder / "mine.py").write_text(f"_base_ = ['{DIGITS}']\ntrain_dataloader = dict(dataset={dataset})\n")
    return folder / "mine.py"


@pytest.mark.parametrize(("kind", "steps"), [("RepeatDataset", 6), ("ConcatDataset", 5)])
def test_joined_sets_train(data, tmp_path, kind, steps):
    printed = train(data, tmp_path / "run", config=config_of(kind, tmp_path), max_epochs=1)
    images, files = (24, "train.json, 2 times") if kind == "RepeatDataset" else (35, "val.json")
    assert f"train: {images} images of {data}/train.json" in printed
    assert files in printed
    assert "train: images of 32 x 32 pixels by SquashResize" in printed
    checkpoint = torch.load(tmp_path / "run/epoch_1.pth", weights_only=True)
    assert checkpoint["averaged_steps"] == steps
    assert tuple(checkpoint["meta"]["dataset_meta"]["classes"]) == CLASSES


def test_a_missing_file_of_a_joined_set_is_reported_in_the_configs_words(data, tmp_path):
    config = config_of("ConcatDataset", tmp_path)
    refuses_to_train(data, tmp_path / "run", "train_annotations: no file", config=config, train_annotations="no.json")


@pytest.mark.slow
@pytest.mark.parametrize("kind", JOINED)
def test_a_resumed_training_on_joined_sets_equals_one_that_was_not_interrupted(data, tmp_path, kind):
    config = config_of(kind, tmp_path)
    train(data, tmp_path / "whole", config=config)
    train(data, tmp_path / "resumed", config=config, stop_epoch=1)
    # Whatever the number of workers.
    train(data, tmp_path / "resumed", "--resume", config=config, num_workers=1)
    one, other = (torch.load(tmp_path / name / "epoch_2.pth", weights_only=True) for name in ("whole", "resumed"))
    assert all(torch.equal(other["state_dict"][name], tensor) for name, tensor in one["state_dict"].items())
