"""Duplicate images within a split, and images that two splits share."""

import shutil

import pytest
from data_check.faulty_data import change, kinds, source, table_source, twin

from tresnet_downstream.data_check import check, check_data, table

ROWS = "train_00.jpg,disc\ntrain_01.jpg,square\n"


def of_kind(kind, *sources):
    return [finding for finding in check_data(sources).findings if finding.kind == kind]


def test_same_content_with_the_same_labels_is_a_duplicate(labels):
    shutil.copy(labels / "pictures/train_00.jpg", labels / "pictures/again.jpg")
    (labels / "train.csv").write_text(f"{ROWS}again.jpg,disc\n")
    (finding,) = of_kind("duplicate-image", table_source(labels))
    assert (finding.place, finding.text) == ("again.jpg", "has the same content as train_00.jpg")


def test_same_pixels_in_another_file_are_a_duplicate(labels):
    twin(labels, "train_00.jpg", "one.png")
    twin(labels, "train_00.jpg", "other.bmp")
    (labels / "train.csv").write_text("one.png,disc\nother.bmp,disc\ntrain_01.jpg,square\n")
    (finding,) = of_kind("duplicate-image", table_source(labels))
    assert finding.text == "has the same pixels as one.png"


def test_same_content_with_other_labels_is_a_contradiction(labels):
    shutil.copy(labels / "pictures/train_00.jpg", labels / "pictures/again.jpg")
    (labels / "train.csv").write_text(f"{ROWS}again.jpg,disc;stripe\n")
    findings = of_kind("contradictory-labels", table_source(labels))
    assert [finding.place for finding in findings] == ["train_00.jpg", "again.jpg"]
    assert "stripe only there" in findings[0].text
    assert not of_kind("duplicate-image", table_source(labels))


def test_same_content_with_other_boxes_is_a_contradiction(own_boxes):
    shutil.copy(own_boxes / "pictures/train_01.png", own_boxes / "pictures/train_02.png")
    assert "contradictory-labels" in kinds(source(own_boxes, "detection"))["warning"]


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_training_image_that_is_in_validation_is_an_error(labels, suffix):
    if suffix == "jpg":
        shutil.copy(labels / "pictures/train_00.jpg", labels / "pictures/val_00.jpg")
    else:
        twin(labels, "train_00.jpg", "val.png")
        change(labels / "val.json", lambda content: content["images"][0].update(file_name="val.png"))
    (finding,) = of_kind("leaked-image", source(labels), source(labels, split="val"))
    assert (finding.split, finding.place, finding.severity) == ("train", "train_00.jpg", "error")


def test_splits_that_read_the_same_file_are_one_error(labels):
    (labels / "val.json").write_text((labels / "train.json").read_text())
    (labels / "val.json").unlink()
    (labels / "val.json").symlink_to(labels / "train.json")
    found = kinds(source(labels), source(labels, split="val"))
    assert found["error"] == {"same-file"}


def test_test_split_with_the_file_of_validation_is_no_finding(labels):
    shutil.copy(labels / "val.json", labels / "other.json")
    (labels / "test.json").symlink_to(labels / "val.json")
    report = check_data([source(labels), source(labels, split="val"), source(labels, split="test")])
    assert [listing.source.split for listing in report.listings] == ["train", "val"]
    assert not report.has_errors


def test_classes_that_no_image_or_every_image_shows_are_warnings(labels):
    (labels / "train.csv").write_text(ROWS.replace("square", "disc;square"))
    assert "class-without-negatives" in kinds(table_source(labels))["warning"]
    change(labels / "train.json", lambda content: content["categories"].append({"id": 9, "name": "ring"}))
    assert "class-without-positives" in kinds(source(labels))["warning"]


def test_similar_images_of_two_splits_are_a_warning_and_within_one_a_note(tmp_path):
    pytest.importorskip("imagehash", reason="needs the extra check")
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for name in ("a", "b"):
        small = Image.fromarray(draw.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        image = small.resize((320, 240), Image.Resampling.BICUBIC)
        for quality in (95, 70, 50):
            image.save(tmp_path / f"pictures/{name}_{quality}.jpg", quality=quality)
    (tmp_path / "train.csv").write_text("a_95.jpg,x\nb_95.jpg,y\nb_70.jpg,y\n")
    (tmp_path / "val.csv").write_text("a_70.jpg,x\n")
    findings = check_data([table_source(tmp_path), table_source(tmp_path, "val")]).findings
    near = [(one.kind, one.severity, one.place) for one in findings if one.kind.startswith("near")]
    assert near == [("near-leak", "warning", "a_95.jpg"), ("near-duplicate", "note", "b_70.jpg")]


def test_without_imagehash_one_line_says_that_similar_images_were_not_looked_for(labels, monkeypatch):
    monkeypatch.setattr(check.near, "can_hash", lambda: False)
    text = table(check_data([source(labels)]))
    assert "tresnet-downstream[check]" in text.splitlines()[-1]


def test_leaked_image_that_training_leaves_out_is_a_warning(labels):
    shutil.copy(labels / "pictures/train_00.jpg", labels / "pictures/val_00.jpg")
    (labels / "val.csv").write_text("val_00.jpg,disc\n")
    for label, keep_empty, severity in (("disc", False, "error"), ("", False, "warning"), ("", True, "error")):
        (labels / "train.csv").write_text(f"train_00.jpg,{label}\ntrain_01.jpg,disc\n")
        train = table_source(labels, keep_empty=keep_empty)
        (finding,) = of_kind("leaked-image", train, table_source(labels, "val"))
        assert finding.severity == severity
