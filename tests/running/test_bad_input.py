"""A user's mistake ends with exit status 2 and one line that says how to correct it."""

import json
import os
import pickle
import shutil

import pytest
import torch
from running.small_data import (
    CUSTOM,
    DIGITS,
    ROOT,
    call,
    make_small_data,
    options,
    refused,
    refuses_to_train,
    start,
    train,
)

from tresnet_downstream.registry import MODELS


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_small_data(tmp_path_factory.mktemp("shapes") / "data")


@pytest.fixture
def data(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "data")


@pytest.fixture(scope="module")
def trained(whole, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp("trained")
    train(whole, work_dir, max_epochs=1)
    return work_dir


def change_annotations(data, change, split="train"):
    path = data / f"{split}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("name", "source"), [("coco_tresnet_m_224", "cocodataset.org"), ("digits_tresnet", "make_digits")]
)
def test_missing_data_root_says_where_the_data_comes_from(tmp_path, name, source):
    arguments = [ROOT / f"configs/{name}.py", "--work-dir", tmp_path / "work"]
    arguments += ["--cfg-options", f"data_root={tmp_path / 'nowhere'}"]
    refused("train_multilabel", arguments, "data_root", tmp_path / "nowhere", source)
    assert not (tmp_path / "work").exists()


def test_missing_pictures_are_counted_and_the_first_is_named(data, tmp_path):
    (data / "pictures/train_03.jpg").unlink()
    (data / "pictures/train_07.jpg").unlink()
    refuses_to_train(data, tmp_path / "work", "2 of 24", "train_03.jpg")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_truncated_picture_is_named(data, tmp_path, num_workers):
    picture = data / "pictures/train_05.jpg"
    picture.write_bytes(picture.read_bytes()[:-300])
    message = refuses_to_train(data, tmp_path / "work", picture, "on_bad_image", num_workers=num_workers)
    assert message.startswith(f"error: {picture}: ")


def test_skipped_pictures_are_counted_in_the_line_of_the_epoch(data, tmp_path):
    for number in (5, 9):
        picture = data / f"pictures/train_{number:02}.jpg"
        picture.write_bytes(picture.read_bytes()[:-300])
    printed = train(data, tmp_path / "work", on_bad_image="skip", max_epochs=1)
    assert "2 bad images skipped" in printed


def test_malformed_json_is_named_with_its_place(data, tmp_path):
    (data / "train.json").write_text('{"images": [1, 2')
    refuses_to_train(data, tmp_path / "work", data / "train.json", "malformed JSON", "line 1 column")


@pytest.mark.parametrize(("key", "lacking"), [("image_id", "no image 999"), ("category_id", "no category 999")])
def test_annotation_of_something_unknown_is_named(data, tmp_path, key, lacking):
    path = change_annotations(data, lambda content: content["annotations"][4].update({key: 999}))
    refuses_to_train(data, tmp_path / "work", path, "annotation 5", lacking)


@pytest.mark.parametrize("split", ["train", "val"])
def test_data_set_without_pictures_is_named(data, tmp_path, split):
    path = change_annotations(data, lambda content: content.update(images=[], annotations=[]), split)
    refuses_to_train(data, tmp_path / "work", path, "lists no image")


def test_data_set_without_labels_is_named(data, tmp_path):
    path = change_annotations(data, lambda content: content.update(annotations=[]))
    refuses_to_train(data, tmp_path / "work", path, "no image has an annotation", "keep_empty=True")


def test_validation_with_other_classes_than_training_is_named(data, tmp_path):
    path = change_annotations(data, lambda content: content["categories"][1].update(name="cube"), "val")
    refuses_to_train(data, tmp_path / "work", path, "square", "cube")


def test_validation_that_cannot_be_scored_trains_and_says_so(data, tmp_path):
    change_annotations(data, lambda content: content.update(annotations=[]), "val")
    printed = train(data, tmp_path / "work", keep_empty=True, max_epochs=1)
    assert "no val mAP" in printed
    assert not (tmp_path / "work/best.pth").exists()


def test_wrong_number_of_classes_names_both(data, tmp_path):
    refuses_to_train(data, tmp_path / "work", "num_classes=5", "3 classes", model__head__num_classes=5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model__backbone__variant": "xxl"}, ["variant='xxl'", "v2_l"]),
        ({"model__backbone__norm": "group"}, ["norm='group'", "inplace"]),
        ({"amp": "int8"}, ["amp='int8'", "bfloat16"]),
        ({"model__loss__reduction": "max"}, ["reduction='max'"]),
        ({"on_bad_image": "ignore"}, ["on_bad_image", "'ignore'"]),
        ({"model__backbone__type": "TResNext"}, ["'TResNext'", "no model"]),
        ({"model__loss__type": "Hinge"}, ["'Hinge'", "no model"]),
        ({"optim_wrapper__optimizer__type": "Adamant"}, ["'Adamant'", "no optimizer"]),
        ({"batch_size": 0}, ["batch_size=0"]),
        ({"max_epochs": 0}, ["max_epochs=0"]),
        ({"max_epochs": 2.5}, ["max_epochs=2.5", "whole number"]),
        ({"max_lr": "fast"}, ["max_lr='fast'"]),
        ({"threshold": 2}, ["threshold=2", "from 0 to 1"]),
        ({"average_decay": 2}, ["average_decay=2", "below 1"]),
        ({"average_decay": 1}, ["average_decay=1", "below 1"]),
        ({"val_evaluator__threshold": 1.5}, ["MultilabelMetric", "threshold=1.5"]),
        ({"optim_wrapper__clip_grad": 1}, ["clip_grad=1", "dict(max_norm=1)"]),
        ({"model__loss": None}, ["model.loss", "AsymmetricLoss"]),
        ({"visualizer__vis_backends__0__type": "WandbVisBackend"}, ["WandbVisBackend", "pip install wandb"]),
        ({"visualizer__vis_backends__0__type": "MLflowVisBackend"}, ["MLflowVisBackend", "pip install mlflow"]),
        ({"image_size": 33}, ["33 x 33", "divisible by 4"]),
        ({"image_size": "large"}, ["SquashResize", "large"]),
    ],
)
def test_value_that_does_not_exist_is_named(whole, tmp_path, changes, words):
    refuses_to_train(whole, tmp_path / "work", *words, **changes)


def test_argument_that_a_component_does_not_take_is_named(whole, tmp_path):
    (tmp_path / "mine.py").write_text(f"_base_ = ['{DIGITS}']\nmodel = dict(head=dict(num_groups=2))\n")
    refuses_to_train(whole, tmp_path / "work", "LinearHead", "'num_groups'", config=tmp_path / "mine.py")


@pytest.mark.parametrize("key", ["image_sise", "model.backbone.with_pc", "train_pipeline.7.size", "seed.value"])
def test_unknown_option_is_named_and_known_ones_are_listed(whole, tmp_path, key):
    message = refuses_to_train(whole, tmp_path / "work", "--cfg-options", key, **{key.replace(".", "__"): 1})
    assert "has no key" in message or "items, no" in message


def test_option_that_a_component_takes_need_not_be_in_the_config(whole, tmp_path):
    train(whole, tmp_path / "work", max_epochs=1, model__backbone__with_cp=True)


def test_option_without_a_value_is_named(tmp_path):
    refused("train_multilabel", [DIGITS, "--cfg-options", "image_size"], "image_size", "key=value")


def test_missing_config_is_named(tmp_path):
    refused("train_multilabel", [tmp_path / "no.py"], tmp_path / "no.py", "no such config")


def test_config_with_a_syntax_error_is_named_with_its_line(tmp_path):
    (tmp_path / "mine.py").write_text("max_epochs = 3\nmodel = dict(\n")
    refused("train_multilabel", [tmp_path / "mine.py"], tmp_path / "mine.py", "line 2")


def test_config_that_lacks_a_part_names_it(tmp_path):
    (tmp_path / "mine.py").write_text("max_epochs = 3\n")
    refused("train_multilabel", [tmp_path / "mine.py"], tmp_path / "mine.py", "model")


def test_own_data_without_paths_names_the_first_that_is_missing(tmp_path):
    refused("train_multilabel", [CUSTOM, "--work-dir", tmp_path], "train_annotations", "--cfg-options")


def test_checkpoint_of_another_model_is_refused_for_scores(whole, trained, tmp_path):
    path = trained / "best.pth"
    arguments = [DIGITS, path, "--work-dir", tmp_path, *options(whole, model__backbone__width=0.5)]
    refused("test_multilabel", arguments, path, "another model", "has shape")


def test_checkpoint_of_another_model_is_refused_for_resuming(whole, trained, tmp_path):
    work_dir = shutil.copytree(trained, tmp_path / "work")
    words = (work_dir / "epoch_1.pth", "another model", "layer3.1", "missing")
    refuses_to_train(whole, work_dir, *words, flags=["--resume"], model__backbone__layers="(1,1,2,1)")


def test_checkpoint_trained_on_other_classes_is_refused(data, trained, tmp_path):
    work_dir = shutil.copytree(trained, tmp_path / "work")
    for split in ("train", "val"):
        change_annotations(data, lambda content: content["categories"][1].update(name="cube"), split)
    arguments = [DIGITS, work_dir / "best.pth", "--work-dir", tmp_path, *options(data)]
    refused("test_multilabel", arguments, "classes", "square", "cube")
    words = ("other classes", "'square'", "'cube'")
    refuses_to_train(data, work_dir, work_dir / "epoch_1.pth", *words, flags=["--resume"])


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        (None, None),
        ([1], None),
        ({"dataset_meta": None}, None),
        ({"dataset_meta": {"classes": 5}}, "'5' instead of a list of class names"),
        ({"dataset_meta": {"classes": [1, 2, 3]}}, "'[1, 2, 3]' instead of a list of class names"),
    ],
)
def test_a_damaged_description_is_no_traceback_when_a_checkpoint_is_scored(whole, trained, tmp_path, meta, words):
    checkpoint = torch.load(trained / "best.pth", weights_only=True)
    torch.save({**checkpoint, "meta": meta}, tmp_path / "a.pth")
    arguments = [DIGITS, tmp_path / "a.pth", "--work-dir", tmp_path / "run", *options(whole)]
    if words is None:
        status, _, err = call("test_multilabel", arguments)
        assert (status, err) == (0, "")
    else:
        refused("test_multilabel", arguments, tmp_path / "a.pth", words)


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def damaged(path, kind, whole_file):
    content = whole_file.read_bytes()
    if kind == "harmful":
        torch.save({"state_dict": {}, "meta": Harmful(path.with_name("harm"))}, path)
    elif kind == "harmful pickle":
        path.write_bytes(pickle.dumps(Harmful(path.with_name("harm"))))
    elif kind == "a list":
        torch.save([1, 2], path)
    elif kind == "without weights":
        torch.save({"meta": {}, "epoch": 3}, path)
    else:
        path.write_bytes({"text": b"not a checkpoint\n", "empty": b"", "truncated": content[: len(content) // 2]}[kind])


KINDS = ["text", "empty", "truncated", "harmful", "harmful pickle", "a list", "without weights"]


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_checkpoint_is_named_and_runs_nothing(whole, trained, tmp_path, kind):
    path = tmp_path / "epoch_1.pth"
    damaged(path, kind, trained / "epoch_1.pth")
    (tmp_path / "last_checkpoint").write_text(path.name)
    refused("test_multilabel", [DIGITS, path, "--work-dir", tmp_path, *options(whole)], path)
    refuses_to_train(whole, tmp_path, path, flags=["--resume"])
    refuses_to_train(whole, tmp_path / "new", path, config=CUSTOM, pretrained=path)
    assert not (tmp_path / "harm").exists()


def test_missing_checkpoint_is_named(whole, tmp_path):
    path = tmp_path / "no.pth"
    refused("test_multilabel", [DIGITS, path, "--work-dir", tmp_path, *options(whole)], path, "no such")
    refuses_to_train(whole, tmp_path, path, "no such", config=CUSTOM, pretrained=path)


def test_averaged_weights_that_a_checkpoint_does_not_have_are_named(whole, trained, tmp_path):
    checkpoint = torch.load(trained / "best.pth", weights_only=True)
    del checkpoint["averaged_state_dict"]
    path = tmp_path / "raw.pth"
    torch.save(checkpoint, path)
    arguments = [DIGITS, path, "--weights", "averaged", "--work-dir", tmp_path, *options(whole)]
    refused("test_multilabel", arguments, path, "no averaged weights")


def test_pretrained_file_of_another_network_is_refused(whole, tmp_path):
    path = tmp_path / "linear.pth"
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)
    refuses_to_train(whole, tmp_path / "work", path, "weight", config=CUSTOM, pretrained=path)


@pytest.mark.parametrize(("key", "other"), [("load_from", "pretrained"), ("pretrained", "load_from")])
def test_a_missing_start_file_is_reported_with_its_config_key(whole, tmp_path, key, other):
    arguments = [CUSTOM, "--work-dir", tmp_path / "work", *options(whole, **{key: tmp_path / "none.pth"})]
    status, _, error = call("train_multilabel", arguments)
    assert status == 2
    assert f"{key}=None" in error
    assert f"{other}=None" not in error


def test_pretrained_file_of_another_variant_is_refused(whole, trained, tmp_path):
    words = (
        trained / "best.pth",
        "another variant",
        "stem.conv.weight is (16, 48, 3, 3) in the file and (32, 48, 3, 3) in the network",
    )
    changes = {"pretrained": trained / "best.pth", "model__backbone__width": 0.5}
    refuses_to_train(whole, tmp_path / "work", *words, config=CUSTOM, **changes)


def test_pretrained_backbone_is_loaded(whole, trained, tmp_path):
    train(whole, tmp_path / "work", config=CUSTOM, pretrained=trained / "best.pth", max_lr=1e-30, max_epochs=1)
    taken = torch.load(tmp_path / "work/epoch_1.pth", weights_only=True)["state_dict"]["backbone.stem.conv.weight"]
    best = torch.load(trained / "best.pth", weights_only=True)
    name = "averaged_state_dict" if best["score"]["weights"] == "averaged" else "state_dict"
    assert torch.equal(taken, best[name]["backbone.stem.conv.weight"])


@pytest.mark.slow
def test_a_process_prints_one_line_only(data, tmp_path):
    picture = data / "pictures/train_05.jpg"
    picture.write_bytes(picture.read_bytes()[:-300])
    arguments = ["--work-dir", tmp_path / "work", *options(data, num_workers=2)]
    process = start([ROOT / "tools/train_multilabel.py", DIGITS, *arguments])
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert err.startswith(f"error: {picture}: ")
    assert err.count("\n") == 1, err


def test_loss_of_single_labels_is_refused_by_name(whole, tmp_path):
    text = "model = dict(loss=dict(_delete_=True, type='AsymmetricLossSingleLabel'))\n"
    (tmp_path / "mine.py").write_text(f"_base_ = ['{DIGITS}']\n{text}")
    words = ("model.loss", "AsymmetricLossSingleLabel", "one class per image")
    refuses_to_train(whole, tmp_path / "work", *words, config=tmp_path / "mine.py")


def test_loss_that_does_not_say_its_reduction_trains_and_is_reported(whole, tmp_path):
    @MODELS.register_module(name="OwnLoss", force=True)
    class OwnLoss(torch.nn.Module):
        def forward(self, logits, targets):
            return torch.nn.functional.binary_cross_entropy_with_logits(logits, targets.clamp(min=0).float())

    (tmp_path / "mine.py").write_text(
        f"_base_ = ['{DIGITS}']\nmodel = dict(loss=dict(_delete_=True, type='OwnLoss'))\n"
    )
    try:
        printed = train(whole, tmp_path / "work", config=tmp_path / "mine.py", max_epochs=1)
    finally:
        MODELS.module_dict.pop("OwnLoss")
    assert "OwnLoss has no attribute `reduction`, so it is assumed to be a mean" in printed


@pytest.mark.parametrize(
    ("split", "kind", "advice"),
    [
        ("val", "RepeatDataset", "one annotation file"),
        ("val", "ConcatDataset", "one annotation file"),
        ("train", "ClassBalancedDataset", "sampling='repeat_factor' repeats images of rare classes"),
    ],
)
def test_data_sets_that_cannot_join_others_there_are_refused_by_name(whole, tmp_path, split, kind, advice):
    paths = f"annotation_file='${split}_annotations', image_folder='${split}_images'"
    inner = f"dict(type='MultiLabelDataset', {paths}, pipeline=[])"
    loader = f"dict(dataset=dict(_delete_=True, type='{kind}', dataset={inner}))"
    (tmp_path / "mine.py").write_text(f"_base_ = ['{DIGITS}']\n{split}_dataloader = {loader}\n")
    words = (f"{split}_dataloader.dataset: {kind}", advice)
    refuses_to_train(whole, tmp_path / "work", *words, config=tmp_path / "mine.py")


def test_file_name_that_is_listed_twice_is_refused(data, tmp_path):
    change_annotations(data, lambda content: content["images"][3].update(file_name="train_02.jpg"))
    refuses_to_train(data, tmp_path / "work", data / "train.json", "'train_02.jpg'", "twice")


def test_clipping_is_written_as_in_a_config(whole, tmp_path):
    train(whole, tmp_path / "work", optim_wrapper__clip_grad="dict(max_norm=1)", max_epochs=1)


def test_a_training_of_five_steps_runs(whole, tmp_path):
    train(whole, tmp_path / "work", batch_size=100, max_epochs=5)


def test_one_class_trains_and_scores(data, tmp_path):
    for split in ("train", "val"):
        path = data / f"{split}.json"
        content = json.loads(path.read_text())
        content["categories"] = content["categories"][:1]
        content["annotations"] = [one for one in content["annotations"] if one["category_id"] == 1]
        path.write_text(json.dumps(content))
    changes = {"model__head__num_classes": 1, "keep_empty": True}
    printed = train(data, tmp_path / "work", max_epochs=1, **changes)
    assert "1 class, 'disc', in" in printed
    assert "warning" not in printed
    arguments = [DIGITS, tmp_path / "work/best.pth", "--work-dir", tmp_path / "work", "--report", tmp_path / "report"]
    status, out, err = call("test_multilabel", [*arguments, *options(data, **changes)])
    assert status == 0, err
    assert "classes 1" in out
    printed = train(data, tmp_path / "again", max_epochs=1, model__head__num_classes=1)
    assert "warning: train: all images show the class 'disc', so training has no example" in printed
    assert "keep_empty=True" in printed
