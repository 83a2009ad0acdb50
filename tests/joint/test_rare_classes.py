"""Rare classes in joint models: repeated images, and class weights in the loss of the labels."""

import pytest

pytest.importorskip("mmdet", reason="needs the detection set-up")

from detection.small_boxes import call, flags, make_boxes
from joint.small_joint import CONFIG


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_boxes(tmp_path_factory.mktemp("rare_joint") / "data")


def train(data, folder, weights, **changes):
    (folder / "mine.py").write_text(f"_base_ = ['{CONFIG}']\nlabels = dict(loss=dict(class_weights={weights}))\n")
    keys = {"train_cfg__max_epochs": 1, "sampling": "repeat_factor", "repeat_threshold": 0.9, **changes}
    return call("train_joint", [folder / "mine.py", "--work-dir", folder / "run", *flags(data, **keys)])


@pytest.mark.slow
def test_a_joint_model_trains_with_repeated_images_and_weighted_labels(data, tmp_path):
    status, out, err = train(data, tmp_path, [1, 3])
    assert status == 0, err
    assert "24 draws of 12 images in an epoch" in out
    assert "mAP of labels" in out


def test_weights_for_another_number_of_classes_are_refused_in_one_line(data, tmp_path):
    status, _, err = train(data, tmp_path, [1, 3, 4])
    assert (status, err) == (2, "error: class_weights: has 3 numbers, but there are 2 classes\n")


def test_images_with_labels_alone_are_not_mixed_with_repeated_ones(data, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("path,label\n" + "".join(f"train_{number:02}.png,square\n" for number in range(1, 5)))
    status, _, err = train(data, tmp_path, [1, 3], labels__train__ann_file=labels)
    assert status == 2
    assert "labels.train: images with labels but no boxes cannot be mixed with others" in err
