"""The check command: configs of both tasks, files without a config, exit status, JSON and cleaned files."""

import json

import pytest
from data_check.faulty_data import change
from detection.small_boxes import CONFIG, data_options
from PIL import Image
from running.small_data import DIGITS, ROOT, call, options, refused
from running.small_data import train as train_classifier
from running.small_folders import FOLDERS

from tresnet_downstream.data_check import KINDS


def check(*arguments):
    status, out, err = call("check_data", [*arguments, "--workers", "0"])
    assert err == ""
    return status, out


def test_valid_data_of_a_classifiers_config_gives_status_0(labels):
    status, out = check(DIGITS, *options(labels))
    assert status == 0
    assert "train: 12 images and 3 classes" in out
    assert "val: 6 images" in out
    assert "0 errors, 0 warnings" in out


def test_fault_gives_status_1_with_an_example_and_the_finding_in_json(labels, tmp_path):
    (labels / "pictures/val_03.jpg").unlink()
    status, out = check(DIGITS, "--json", tmp_path / "report.json", *options(labels))
    assert status == 1
    assert "missing-image" in out
    assert "val_03.jpg: there is no such file" in out
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["format"], report["version"]) == ("tresnet_downstream.data_check", 1)
    assert report["counts"] == {"error": 1, "warning": 0, "note": 0}
    (finding,) = report["findings"]
    assert (finding["kind"], finding["split"], finding["place"]) == ("missing-image", "val", "val_03.jpg")


@pytest.mark.parametrize("wrapper", ["none", "repeat", "concat"])
def test_detectors_config_is_checked_within_wrappers(own_boxes, tmp_path, wrapper):
    change(own_boxes / "train.json", lambda content: content["annotations"][0].update(bbox=[1, 1, 0, 1]))
    (own_boxes / "pictures/val_03.png").unlink()
    config = CONFIG
    if wrapper != "none":
        inner = "_base_.train_dataloader.dataset"
        data_set = f"dict(type='RepeatDataset', times=2, dataset={inner})"
        if wrapper == "concat":
            data_set = f"dict(type='ConcatDataset', datasets=[{inner}])"
        config = tmp_path / "mine.py"
        config.write_text(
            f"_base_ = ['{CONFIG}']\n"
            + "\n".join(
                f"_base_.{split}_dataloader.dataset.update(data_root='{own_boxes}/', ann_file='{file}.json', "
                "data_prefix=dict(img='pictures/'), metainfo=None)"
                for split, file in (("train", "train"), ("val", "val"), ("test", "val"))
            )
            + f"\ntrain_dataloader = dict(dataset=dict(_delete_=True, **{data_set}))\n"
        )
    arguments = (
        [] if wrapper != "none" else ["--cfg-options", *(f"{k}={v}" for k, v in data_options(own_boxes).items())]
    )
    status, out = check(config, *arguments)
    assert status == 1
    assert "box-without-area" in out
    assert "val_03.png" in out
    assert out.count(" images and ") == 2  # the test data is the validation data


@pytest.mark.parametrize("rows", ["cat/1.png,cat;dog", "cat/1.png,cat,dog"])
def test_table_with_one_label_per_image_has_an_error_where_training_refuses_it(tmp_path, rows):
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (20, 24)).save(tmp_path / "cat/1.png")
    (tmp_path / "labels.csv").write_text(f"{rows}\n")
    changes = [
        "--cfg-options",
        f"data_root={tmp_path}",
        "val_images=.",
        "val_annotations=labels.csv",
        "train_images=None",
    ]
    status, out = check(FOLDERS, *changes)
    assert status == 1
    assert "several-labels" in out


def test_data_that_cannot_be_checked_is_refused_and_not_called_sound():
    refused("check_data", ["configs/cifar10_tresnet_xl_224.py"], "TorchvisionDataset cannot be checked")


def test_file_without_a_config_is_checked_for_the_task_that_it_has(labels, own_boxes):
    change(own_boxes / "train.json", lambda content: content["annotations"][0].pop("bbox"))
    arguments = ["--annotations", own_boxes / "train.json", "--images", own_boxes / "pictures"]
    assert check(*arguments)[0] == 1
    assert check(*arguments, "--task", "classification")[0] == 0
    assert check("--annotations", labels / "train.json", "--images", labels / "pictures")[0] == 0


def test_cleaned_files_of_a_config_train(labels, tmp_path):
    (labels / "pictures/train_03.jpg").unlink()
    status, out = check(DIGITS, "--fix", tmp_path / "cleaned", *options(labels))
    assert status == 1
    assert f"wrote {tmp_path / 'cleaned/train.json'}; removed or clipped: missing-image 1, annotations" in out
    assert f"wrote {tmp_path / 'cleaned/val.json'}; removed or clipped: nothing" in out
    train_classifier(labels, tmp_path / "work", max_epochs=1, train_annotations=tmp_path / "cleaned/train.json")
    arguments = [DIGITS, "--fix", tmp_path / "cleaned", *options(labels), "--workers", "0"]
    status, _, err = call("check_data", arguments)
    assert status == 2
    assert "exists already" in err
    assert "--overwrite" in err


def test_untrusted_names_are_escaped_on_the_terminal_and_in_json(labels, tmp_path):
    name = "a\x1b[2J\u202e.jpg"
    change(labels / "train.json", lambda content: content["images"][0].update(file_name=name))
    _, out = check(DIGITS, "--json", tmp_path / "report.json", *options(labels))
    out.encode()
    assert "\x1b" not in out
    findings = json.loads((tmp_path / "report.json").read_text())["findings"]
    assert findings[0]["place"] == name
    change(labels / "train.json", lambda content: content["images"][0].update(file_name=f"{name}\ud800"))
    _, out = check(DIGITS, *options(labels))
    out.encode()
    assert "\x1b" not in out
    assert "an unpaired surrogate" in out


def test_file_may_name_images_outside_of_its_folder_if_asked_to(labels):
    (labels / "pictures/train_00.jpg").rename(labels / "train_00.jpg")
    change(labels / "train.json", lambda content: content["images"][0].update(file_name="../train_00.jpg"))
    arguments = ["--annotations", labels / "train.json", "--images", labels / "pictures"]
    status, out = check(*arguments)
    assert status == 1
    assert "outside_paths=True allows it" in out
    assert check(*arguments, "--outside-paths")[0] == 0


@pytest.mark.parametrize("task", ["classification", "detection"])
def test_config_may_name_images_outside_of_its_folder(labels, own_boxes, task):
    data = labels if task == "classification" else own_boxes
    config = DIGITS if task == "classification" else CONFIG
    arguments = options(data)
    if task == "detection":
        arguments = ["--cfg-options", *(f"{key}={value}" for key, value in data_options(data).items())]
    name = json.loads((data / "train.json").read_text())["images"][0]["file_name"]
    (data / "pictures" / name).rename(data / name)
    change(data / "train.json", lambda content: content["images"][0].update(file_name=f"../{name}"))
    assert check(config, *arguments)[0] == 1
    status, out = check(config, *arguments, "outside_paths=True")
    assert (status, "name-leaves-folder" in out) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["nothing to check"]),
        ([DIGITS, "--annotations", "a.json"], ["leave out", "--annotations"]),
        ([DIGITS, "--outside-paths"], ["leave out", "--outside-paths"]),
        (["--annotations", "a.xyz", "--images", "."], ["a.xyz", ".csv"]),
        (["--annotations", "a.csv", "--images", ".", "--workers", "-1"], ["--workers -1"]),
        (["--annotations", "a.csv", "--images", ".", "--max-distance", "16"], ["--max-distance 16", "15"]),
        (["none.py"], ["none.py", "no such config"]),
        ([ROOT / "configs/custom_tresnet_m_448.py"], ["train_annotations"]),
    ],
)
def test_mistake_in_the_command_gives_status_2(arguments, words):
    refused("check_data", arguments, *words)


def test_files_that_are_not_there_are_errors_of_the_data(tmp_path):
    assert check("--annotations", tmp_path / "a.csv", "--images", tmp_path / "none")[0] == 1


def test_documentation_lists_every_kind_with_its_cure():
    text = (ROOT / "docs/checking_data.md").read_text()
    for name, kind in KINDS.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
        assert row.endswith("| no |") != bool(kind.removable), row
