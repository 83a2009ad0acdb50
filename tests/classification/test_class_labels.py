"""The classes that the images of each kind of data set show."""

import json

import numpy as np
import pytest
from made_data import make_cifar
from running.small_data import CLASSES, make_small_data
from running.small_folders import make_class_folders

from tresnet_downstream.classification import (
    ConcatDataset,
    MultiLabelDataset,
    RepeatDataset,
    SingleLabelDataset,
    TorchvisionDataset,
)
from tresnet_downstream.classification.class_labels import class_labels_of, class_labels_or_none
from tresnet_downstream.registry import DATASETS

PIPELINE = [{"type": "SquashResize", "size": 16}]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_small_data(tmp_path_factory.mktemp("labels") / "data")


def part(data, split="train", **changes):
    paths = {"data_root": str(data), "annotation_file": f"{split}.json", "image_folder": "pictures"}
    return {"type": "tresnet_downstream.MultiLabelDataset", **paths, "pipeline": PIPELINE, **changes}


def alone(data, split="train"):
    return DATASETS.build(part(data, split))


def rows(labels):
    return [labels.indices[labels.indptr[i] : labels.indptr[i + 1]].tolist() for i in range(len(labels))]


def shown(dataset):
    return [np.flatnonzero(np.asarray(dataset.target(index)) == 1).tolist() for index in range(len(dataset))]


def test_labels_of_several_are_the_targets_that_are_present(data):
    dataset = alone(data)
    labels = class_labels_of(dataset, "sampling")
    assert rows(labels) == shown(dataset)
    assert labels.classes == CLASSES
    np.testing.assert_array_equal(labels.positives(), dataset.annotations.positives_per_class())
    np.testing.assert_allclose(labels.frequencies(), labels.positives() / 24)


def test_unknown_labels_are_neither_shown_nor_counted_in_frequencies(data, tmp_path):
    lines = ["path,label,unknown", "train_00.jpg,cat,dog", "train_01.jpg,,cat"]
    lines += ["train_02.jpg,dog,", "train_03.jpg,dog,"]
    (tmp_path / "one.csv").write_text("\n".join(lines) + "\n")
    dataset = MultiLabelDataset(str(tmp_path / "one.csv"), str(data / "pictures"), PIPELINE)
    labels = class_labels_of(dataset, "sampling")
    assert rows(labels) == shown(dataset) == [[0], [], [1], [1]]
    assert labels.unknown.tolist() == [1, 1]
    np.testing.assert_allclose(labels.frequencies(), [1 / 3, 2 / 3])


def test_joined_data_sets_have_their_parts_labels_one_after_the_other(data):
    twice = {"type": "tresnet_downstream.RepeatDataset", "dataset": part(data, "val"), "times": 2}
    both = ConcatDataset([part(data), twice])
    labels = class_labels_of(both, "sampling")
    first, second = shown(alone(data)), shown(alone(data, "val"))
    assert rows(labels) == first + second + second
    # Head, middle and tail go by images: one that is repeated is one.
    images = alone(data).annotations.positives_per_class() + alone(data, "val").annotations.positives_per_class()
    assert labels.images.tolist() == images.tolist()
    assert len(labels) == len(both)
    assert rows(class_labels_of(RepeatDataset(part(data), 3), "sampling")) == first * 3


def test_class_folders_have_a_label_for_each_image(tmp_path):
    dataset = SingleLabelDataset(str(make_class_folders(tmp_path, (3, 1)) / "train"), PIPELINE)
    labels = class_labels_of(dataset, "sampling")
    assert rows(labels) == [[0]] * 3 + [[1]] * 3 + [[2]] * 3


def test_the_digest_changes_with_a_label_and_with_nothing_else(data, tmp_path):
    labels = class_labels_of(alone(data), "sampling")
    assert labels.digest() == class_labels_of(alone(data), "sampling").digest()
    content = json.loads((data / "train.json").read_text())
    content["annotations"] = content["annotations"][1:]
    (tmp_path / "train.json").write_text(json.dumps(content))
    other = DATASETS.build(part(data, annotation_file=str(tmp_path / "train.json"), keep_empty=True))
    assert class_labels_of(other, "sampling").digest() != labels.digest()


def test_a_data_set_without_a_method_for_labels_has_none():
    assert class_labels_or_none(range(3)) is None


def test_torchvisions_data_sets_have_labels(tmp_path, monkeypatch):
    made = make_cifar(tmp_path, monkeypatch)
    dataset = TorchvisionDataset("CIFAR10", PIPELINE, data_root=str(tmp_path))
    labels = class_labels_of(dataset, "sampling")
    assert rows(labels) == [[dataset[index]["targets"]] for index in range(len(dataset))]
    assert len(labels) == sum(len(each) for file, (_, each) in made.items() if file.startswith("data"))
    assert labels.positives().sum() == len(labels)
