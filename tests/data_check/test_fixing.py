"""A cleaned file has no findings of the fixed kinds, is otherwise unchanged, and can be trained on."""

import json
import os
import shutil
from dataclasses import replace

import pytest
from data_check.faulty_data import change, classification_error, detection_error, source, table_source

from tresnet_downstream.data_check import Source, check_data, write_cleaned
from tresnet_downstream.errors import UserError


def spoil_images(data, suffix):
    """One image missing, one truncated, one twice, one leaked: the first four of training."""
    pictures = data / "pictures"
    names = [f"train_{number:02}.{suffix}" for number in range(1, 6)]
    (pictures / names[0]).unlink()
    (pictures / names[1]).write_bytes((pictures / names[1]).read_bytes()[:-300])
    shutil.copy(pictures / names[2], pictures / f"val_01.{suffix}")
    return names


def removable_kinds(report):
    return {finding.kind for finding in report.findings if finding.is_removable}


def recheck(path, of, val):
    cleaned = Source("train", str(path), of.image_folder, of.task)
    return cleaned, check_data([cleaned, val])


def test_cleaned_coco_file_of_a_detector_is_sound_and_trains(own_boxes, tmp_path):
    names = spoil_images(own_boxes, "png")

    def edit(content):
        twin = next(one for one in content["images"] if one["file_name"] == names[3])
        shutil.copy(own_boxes / "pictures" / names[3], own_boxes / "pictures/again.png")
        content["images"].append({**twin, "id": 99, "file_name": "again.png"})
        again = [{**one, "image_id": 99, "id": one["id"] + 500} for one in content["annotations"]]
        content["annotations"] += [
            one for one, old in zip(again, content["annotations"], strict=True) if old["image_id"] == twin["id"]
        ]
        base = {"image_id": 8, "category_id": 40, "iscrowd": 0, "area": 4}
        boxes = ([1, 1, 0, 5], [70, 1, 5, 5], [50, 50, 40, 8])
        content["annotations"] += [{**base, "id": 900 + n, "bbox": box} for n, box in enumerate(boxes)]
        content["annotations"].append({**base, "id": 950, "image_id": 12345, "bbox": [1, 1, 5, 5]})
        content["info"] = {"made by": "a test"}

    change(own_boxes / "train.json", edit)
    of, val = source(own_boxes, "detection"), source(own_boxes, "detection", split="val", needs_labels=False)
    report = check_data([of, val])
    assert detection_error(of)[0] is not None
    expected = {"missing-image", "broken-image", "duplicate-image", "leaked-image"}
    assert removable_kinds(report) == expected | {"unknown-id", "box-without-area", "box-outside", "box-beyond-edge"}
    before = json.loads((own_boxes / "train.json").read_text())
    counts = write_cleaned(report.listings[0], tmp_path / "cleaned.json")
    assert all(counts[kind] == 1 for kind in removable_kinds(report))
    after = json.loads((tmp_path / "cleaned.json").read_text())
    assert after["info"] == before["info"]
    assert len(after["images"]) == len(before["images"]) - 4
    assert len(after["annotations"]) == len(before["annotations"]) - 3 - counts["annotations of removed images"]
    clipped = next(one for one in after["annotations"] if one["id"] == 902)
    assert (clipped["bbox"], clipped["area"]) == ([50, 50, 14, 8], 112)
    cleaned, again = recheck(tmp_path / "cleaned.json", of, val)
    assert not removable_kinds(again)
    assert not again.has_errors
    error, dropped = detection_error(cleaned)
    assert error is None
    assert not dropped


def test_ids_of_any_type_are_no_obstacle_to_cleaning(own_boxes, tmp_path):
    def edit(content):
        content["images"].append({"id": [1], "file_name": "a.png"})
        content["annotations"].append({"id": 900, "image_id": {"a": 1}, "category_id": 7, "bbox": [1, 1, 5, 5]})

    spoil_images(own_boxes, "png")
    change(own_boxes / "train.json", edit)
    of = source(own_boxes, "detection")
    counts = write_cleaned(check_data([of]).listings[0], tmp_path / "cleaned.json")
    assert counts["missing-image"] == counts["broken-image"] == 1


@pytest.mark.parametrize("way", ["..", "absolute", "link"])
def test_image_outside_of_the_folder_is_removed_unless_it_is_allowed(own_boxes, tmp_path, way):
    pictures, elsewhere = own_boxes / "pictures", tmp_path / "elsewhere.png"
    (pictures / "train_01.png").rename(elsewhere)
    if way == "link":
        (pictures / "train_01.png").symlink_to(elsewhere)
    else:
        name = str(elsewhere) if way == "absolute" else os.path.relpath(elsewhere, pictures)
        change(own_boxes / "train.json", lambda content: content["images"][0].update(file_name=name))
    # This name leads back in, which training takes.
    change(own_boxes / "train.json", lambda content: content["images"][1].update(file_name="../pictures/train_02.png"))
    of = source(own_boxes, "detection")
    listing = check_data([of]).listings[0]
    counts = write_cleaned(listing, tmp_path / "cleaned.json")
    assert counts["name-leaves-folder"] == 1
    names = [image["file_name"] for image in json.loads((tmp_path / "cleaned.json").read_text())["images"]]
    assert names[0] == "../pictures/train_02.png"
    assert len(names) == len(listing.images) - 1
    assert detection_error(of)[0] is not None
    assert detection_error(replace(of, annotation_file=str(tmp_path / "cleaned.json")))[0] is None
    allowed = check_data([replace(of, outside_paths=True)]).listings[0]
    assert not write_cleaned(allowed, tmp_path / "allowed.json")


@pytest.mark.parametrize("header", ["", "path,labels\n"])
def test_cleaned_table_is_sound_and_trains(labels, tmp_path, header):
    names = spoil_images(labels, "jpg")
    shutil.copy(labels / "pictures" / names[3], labels / "pictures/again, and again.jpg")
    rows = [f"{name},disc" for name in names] + ['"again, and again.jpg",disc', "train_07.jpg,square"]
    (labels / "train.csv").write_text(header + "\n".join(rows) + "\n")
    (labels / "val.csv").write_text("val_01.jpg,disc\nval_02.jpg,square\n")
    of, val = table_source(labels), table_source(labels, "val")
    report = check_data([of, val])
    counts = write_cleaned(report.listings[0], tmp_path / "cleaned.csv")
    assert counts == dict.fromkeys(("missing-image", "broken-image", "duplicate-image", "leaked-image"), 1)
    expected = f"{header}{names[3]},disc\n{names[4]},disc\ntrain_07.jpg,square\n"
    assert (tmp_path / "cleaned.csv").read_text() == expected
    cleaned, again = recheck(tmp_path / "cleaned.csv", of, val)
    assert not again.has_errors
    assert not removable_kinds(again)
    assert classification_error(of) is not None
    assert classification_error(cleaned) is None


def test_sound_file_stays_as_it_is(own_boxes, tmp_path):
    report = check_data([source(own_boxes, "detection")])
    assert not write_cleaned(report.listings[0], tmp_path / "cleaned.json")
    assert json.loads((tmp_path / "cleaned.json").read_text()) == json.loads((own_boxes / "train.json").read_text())


def test_existing_file_is_not_overwritten_unless_asked_for(labels, tmp_path):
    report = check_data([source(labels)])
    (tmp_path / "cleaned.json").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        write_cleaned(report.listings[0], tmp_path / "cleaned.json")
    assert (tmp_path / "cleaned.json").read_text() == "mine"
    write_cleaned(report.listings[0], tmp_path / "cleaned.json", overwrite=True)
    assert json.loads((tmp_path / "cleaned.json").read_text())["images"]


def test_file_of_corners_is_not_clipped(own_boxes, tmp_path):
    def as_corners(content):
        for one in content["annotations"]:
            one["bbox"] = [*one["bbox"][:2], one["bbox"][0] + one["bbox"][2], one["bbox"][1] + one["bbox"][3]]

    change(own_boxes / "train.json", as_corners)
    report = check_data([source(own_boxes, "detection")])
    with pytest.raises(UserError, match="left, top, width, height"):
        write_cleaned(report.listings[0], tmp_path / "cleaned.json")
    assert not (tmp_path / "cleaned.json").exists()


def test_file_of_which_nothing_would_be_left_is_not_written(labels, tmp_path):
    shutil.rmtree(labels / "pictures")
    (labels / "pictures").mkdir()
    report = check_data([source(labels)])
    with pytest.raises(UserError, match="no image would be left"):
        write_cleaned(report.listings[0], tmp_path / "cleaned.json")
