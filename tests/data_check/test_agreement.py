"""The check reports an error for all data that a training refuses, and counts the same images as left out."""

import json

import pytest
from data_check.faulty_data import change, classification_error, detection_error, kinds, source, table_source
from hostile import each_of, number_of_inputs
from test_hostile_files import coco_files, tables, write_images

from tresnet_downstream.data_check import Source, check_data

FIRST = "train_00.jpg"


def annotation(key, value, position=0):
    return lambda content: content["annotations"][position].update({key: value})


def image(key, value, position=0):
    return lambda content: content["images"][position].update({key: value})


def category(key, value, position=0):
    return lambda content: content["categories"][position].update({key: value})


def without(part, key):
    return lambda content: content[part][0].pop(key)


def repeat_name(content, prefix=""):
    content["images"][0]["file_name"] = prefix + content["images"][1]["file_name"]


OF_BOTH = {
    "unknown image": (annotation("image_id", 999), "unknown-id"),
    "unknown category": (annotation("category_id", 999), "unknown-id"),
    "image id used twice": (image("id", 2), "repeated-id"),
    "category id used twice": (lambda content: category("id", content["categories"][1]["id"])(content), "repeated-id"),
    "category name used twice": (
        lambda content: category("name", content["categories"][1]["name"])(content),
        "repeated-id",
    ),
    "image id of text": (image("id", "1"), "malformed-entry"),
    "image id of more than 64 bits": (image("id", 2**63), "malformed-entry"),
    "no file name": (without("images", "file_name"), "malformed-entry"),
    "file name of a number": (image("file_name", 3), "malformed-entry"),
    "empty file name": (image("file_name", ""), "malformed-entry"),
    "no category name": (without("categories", "name"), "malformed-entry"),
    "no image of an annotation": (without("annotations", "image_id"), "malformed-entry"),
    "entry that is a number": (lambda content: content["images"].append(7), "malformed-entry"),
    "images that are no list": (lambda content: content.update(images={}), "unreadable-file"),
    "no annotations": (lambda content: content.pop("annotations"), "unreadable-file"),
    "no labels": (lambda content: content["annotations"].clear(), "no-labels"),
    "file name listed twice": (lambda content: repeat_name(content), "repeated-name"),
    "file name in two spellings": (lambda content: repeat_name(content, "./"), "repeated-name"),
    "missing image": (image("file_name", "none.jpg"), "missing-image"),
    "name with NUL": (image("file_name", "a\0b.jpg"), "impossible-name"),
    "name with a lone surrogate": (image("file_name", "a\ud800.jpg"), "unreadable-file"),
    "number of 200 digits": (image("license", 10**200), "unreadable-file"),
    "name beyond PATH_MAX": (image("file_name", "a/" * 3000 + "b.jpg"), "impossible-name"),
    "name beyond NAME_MAX": (image("file_name", "a" * 300 + ".jpg"), "impossible-name"),
}
OF_BOXES = {
    "no width": (without("images", "width"), "malformed-entry"),
    "height of 0": (image("height", 0), "malformed-entry"),
    "annotation id used twice": (annotation("id", 2), "repeated-id"),
    "no annotation id": (without("annotations", "id"), "malformed-entry"),
    "no box": (without("annotations", "bbox"), "malformed-box"),
    "box of three numbers": (annotation("bbox", [1, 2, 3]), "malformed-box"),
    "box of NaN": (annotation("bbox", [1, 2, 3, float("nan")]), "malformed-box"),
    "box beyond what masks can hold": (annotation("bbox", [1, 2, 3, 2**27]), "malformed-box"),
    "iscrowd of 2": (annotation("iscrowd", 2), "malformed-entry"),
    "image of too many pixels": (
        lambda content: content["images"][0].update(width=2**14, height=2**13),
        "malformed-entry",
    ),
    "box of text": (annotation("bbox", [1, 2, 3, "4"]), "malformed-box"),
    "boxes in fractions of the image": (
        lambda content: [one.update(bbox=[side / 64 for side in one["bbox"]]) for one in content["annotations"]],
        "box-convention",
    ),
}


@pytest.mark.parametrize("fault", [*OF_BOTH, "no image", "no category"])
def test_what_a_classifier_refuses_is_an_error(labels, fault):
    more = {
        "no image": (lambda content: content.update(images=[], annotations=[]), "no-images"),
        "no category": (lambda content: content.update(categories=[], annotations=[]), "no-classes"),
    }
    edit, kind = (OF_BOTH | more)[fault]
    change(labels / "train.json", edit)
    assert classification_error(source(labels)) is not None
    assert kind in kinds(source(labels))["error"]


@pytest.mark.parametrize("fault", [*OF_BOTH, *OF_BOXES])
def test_what_a_detector_refuses_is_an_error(own_boxes, fault):
    edit, kind = (OF_BOTH | OF_BOXES)[fault]
    change(own_boxes / "train.json", edit)
    assert detection_error(source(own_boxes, "detection"))[0] is not None
    assert kind in kinds(source(own_boxes, "detection"))["error"]


@pytest.mark.parametrize("task", ["classification", "detection"])
def test_sound_data_trains_and_has_no_error_or_warning(labels, own_boxes, task):
    of = source(labels) if task == "classification" else source(own_boxes, task)
    error = classification_error(of) if task == "classification" else detection_error(of)[0]
    assert error is None
    found = kinds(of)
    assert not found["error"] | found["warning"]


@pytest.mark.parametrize("content", ["{", "[" * 100_000, "7", "\xff", '{"images": ' + "9" * 5000 + "}"])
def test_file_that_cannot_be_parsed_is_an_error(labels, content):
    (labels / "train.json").write_bytes(content.encode("latin-1"))
    assert classification_error(source(labels)) is not None
    assert kinds(source(labels))["error"] == {"unreadable-file"}


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        (f"{FIRST},disc,square,extra\n", "malformed-entry"),
        (f"{FIRST}\n", "malformed-entry"),
        (",disc\n", "malformed-entry"),
        ('train_00.jpg,"disc\n', "malformed-entry"),
        ("path,labels,other\ntrain_00.jpg,disc,\n", "malformed-entry"),
        (f"{FIRST},disc\n{FIRST},disc\n", "repeated-name"),
        (f"{FIRST},disc\n./{FIRST},disc\n", "repeated-name"),
        (f"{FIRST},disc,disc\n", "malformed-entry"),
        (f"{FIRST},\n", "no-labels"),
        ("", "no-images"),
        ("none.jpg,disc\n", "missing-image"),
    ],
)
def test_what_is_refused_of_a_table_is_an_error(labels, lines, kind):
    (labels / "train.csv").write_text(lines)
    assert classification_error(table_source(labels)) is not None
    assert kind in kinds(table_source(labels))["error"]


def test_all_faults_of_a_table_are_collected(labels):
    (labels / "train.csv").write_text(f"{FIRST},disc\n,disc\ntrain_01.jpg\n{FIRST},square\n")
    places = [finding.place for finding in check_data([table_source(labels)]).findings if finding.severity == "error"]
    assert places == ["line 2", "line 3", "line 4"]


@pytest.mark.parametrize("fault", ["missing", "broken", "outside"])
@pytest.mark.parametrize("task", ["classification", "detection"])
def test_image_without_a_label_that_is_left_out_stops_no_training(labels, own_boxes, fault, task):
    data = labels if task == "classification" else own_boxes
    content = json.loads((data / "train.json").read_text())
    number, name = content["images"][0]["id"], content["images"][0]["file_name"]
    path = data / "pictures" / name
    if fault == "outside":
        path.rename(data / name)
        content["images"][0]["file_name"] = f"../{name}"
    else:
        path.unlink()
        if fault == "broken":
            path.write_bytes(b"no image")
    of = source(data, task)
    for annotations in (
        content["annotations"],
        [one for one in content["annotations"] if one["image_id"] != number],
    ):
        (data / "train.json").write_text(json.dumps({**content, "annotations": annotations}))
        error = classification_error(of) if task == "classification" else detection_error(of)[0]
        assert (error is not None) == bool(kinds(of)["error"]), (error, kinds(of))
    assert (error is None) == (fault != "outside" or task == "classification")


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["classification", "detection", "table"])
def test_damaged_files_are_errors_exactly_where_training_refuses_them(tmp_path, kind):
    write_images(tmp_path)
    file = tmp_path / ("train.csv" if kind == "table" else "train.json")
    task = "detection" if kind == "detection" else "classification"
    of = Source("train", str(file), str(tmp_path), task, needs_masks=task == "detection")

    @each_of(tables() if kind == "table" else coco_files(), number_of_inputs(60))
    def compare(content):
        file.write_bytes(content)
        error = detection_error(of)[0] if kind == "detection" else classification_error(of)
        assert (error is not None) == bool(kinds(of)["error"]), error

    compare()


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "folder"])
@pytest.mark.parametrize("task", ["classification", "detection"])
def test_broken_image_is_an_error_unless_training_does_without(labels, own_boxes, damage, task):
    data, name = (labels, FIRST) if task == "classification" else (own_boxes, "train_01.png")
    path = data / "pictures" / name
    content = {"truncated": path.read_bytes()[:-300], "empty": b"", "text": b"no image", "folder": None}[damage]
    path.unlink()
    path.mkdir() if content is None else path.write_bytes(content)
    assert "broken-image" in kinds(source(data, task))["error"]
    error_of = classification_error if task == "classification" else lambda of: detection_error(of)[0]
    assert error_of(source(data, task)) is not None
    tolerant = source(data, task, tolerates_bad_images=True)
    assert error_of(tolerant) is None
    found = kinds(tolerant)
    assert "broken-image" in found["warning"]
    assert not found["error"]


def test_image_of_another_size_is_an_error_unless_training_does_without_or_trusts_the_boxes(own_boxes):
    change(own_boxes / "train.json", image("width", 80))
    assert detection_error(source(own_boxes, "detection"))[0] is not None
    assert "other-size" in kinds(source(own_boxes, "detection"))["error"]
    for option in ("tolerates_bad_images", "trusts_boxes"):
        of = source(own_boxes, "detection", **{option: True})
        assert detection_error(of)[0] is None
        found = kinds(of)
        assert "other-size" in found["warning"]
        assert not found["error"]


def test_boxes_of_corners_are_an_error_unless_they_are_trusted(own_boxes):
    def as_corners(content):
        for one in content["annotations"]:
            one["bbox"] = [*one["bbox"][:2], one["bbox"][0] + one["bbox"][2], one["bbox"][1] + one["bbox"][3]]

    change(own_boxes / "train.json", as_corners)
    assert detection_error(source(own_boxes, "detection"))[0] is not None
    trusted = source(own_boxes, "detection", trusts_boxes=True)
    assert detection_error(trusted)[0] is None
    found = kinds(trusted)
    assert {"box-convention", "box-beyond-edge"} <= found["warning"]
    assert not found["error"]


def test_boxes_that_are_all_crowds_are_an_error(own_boxes):
    change(own_boxes / "train.json", lambda content: [one.update(iscrowd=1) for one in content["annotations"]])
    assert detection_error(source(own_boxes, "detection"))[0] is not None
    assert "no-labels" in kinds(source(own_boxes, "detection"))["error"]


def test_boxes_that_a_detector_drops_are_counted_alike(own_boxes):
    def edit(content):
        for position, box in enumerate(
            ([1, 1, 0, 5], [1, 1, 5, -2], [64, 1, 5, 5], [-9, 1, 5, 5], [3, 3, 0.5, 9], [50, 50, 40, 4])
        ):
            content["annotations"][position]["bbox"] = box

    change(own_boxes / "train.json", edit)
    error, dropped = detection_error(source(own_boxes, "detection"))
    assert error is None
    findings = check_data([source(own_boxes, "detection")]).findings
    count = {kind: sum(finding.kind == kind for finding in findings) for kind in {f.kind for f in findings}}
    assert dropped["without area"] == count["box-without-area"] == 2
    assert dropped["outside the image"] == count["box-outside"] == 2
    assert dropped["narrower than a pixel"] == count["narrow-box"] == 1
    assert count["box-beyond-edge"] == 1
    assert not any(finding.severity == "error" for finding in findings)


def test_class_that_the_file_lacks_is_an_error(own_boxes):
    of = source(own_boxes, "detection", classes=("square", "ring"))
    assert detection_error(of)[0] is not None
    assert "other-classes" in kinds(of)["error"]


@pytest.mark.parametrize("name", ["cube", "disc "])
def test_validation_with_other_classes_is_an_error(labels, name):
    change(labels / "val.json", category("name", name))
    of = source(labels, split="val", classes=("disc", "square", "stripe"))
    assert classification_error(of) is not None
    assert "other-classes" in kinds(source(labels), source(labels, split="val"))["error"]


def test_images_too_small_for_the_filter_are_an_error(own_boxes):
    of = source(own_boxes, "detection", min_size=100)
    assert detection_error(of)[0] is not None
    assert "no-labels" in kinds(of)["error"]


@pytest.mark.parametrize("mask", [None, [], [[1, 1, 5, 1]], [[1, 1, 5, 1, 5, 5]]])
def test_annotation_without_a_mask_is_an_error_where_the_model_needs_masks(own_boxes, mask):
    def edit(content):
        for one in content["annotations"]:
            one["segmentation"] = [[1, 1, 5, 1, 5, 5]]
        content["annotations"][0]["segmentation"] = mask

    change(own_boxes / "train.json", edit)
    with_masks = source(own_boxes, "detection", needs_masks=True)
    is_refused = detection_error(with_masks)[0] is not None
    assert is_refused == ("malformed-mask" in kinds(with_masks)["error"]) == (mask != [[1, 1, 5, 1, 5, 5]])
    assert detection_error(source(own_boxes, "detection"))[0] is None
    assert not kinds(source(own_boxes, "detection"))["error"]
