import json
import time

import numpy as np
import pytest

from tresnet_downstream.classification.annotations import read_annotations
from tresnet_downstream.errors import UserError


def coco():
    return {
        "images": [
            {"id": 30, "file_name": "c.jpg"},
            {"id": 10, "file_name": "sub/ä.jpg"},
            {"id": 20, "file_name": "empty.jpg"},
        ],
        "annotations": [
            {"id": 1, "image_id": 10, "category_id": 7, "iscrowd": 0},
            {"id": 2, "image_id": 10, "category_id": 7, "iscrowd": 0},
            {"id": 3, "image_id": 30, "category_id": 90, "iscrowd": 1},
            {"id": 4, "image_id": 10, "category_id": 90, "iscrowd": 0},
        ],
        "categories": [{"id": 90, "name": "zebra"}, {"id": 7, "name": "dog"}, {"id": 8, "name": "ant"}],
    }


@pytest.fixture
def write(tmp_path):
    def write(content, name=None):
        if isinstance(content, dict | list):
            content, name = json.dumps(content), name or "instances.json"
        file = tmp_path / (name or "table.csv")
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    return write


def expect_error(read, *words):
    with pytest.raises(UserError) as caught:
        read()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_coco_classes_follow_category_ids_and_images_the_file(write):
    annotations = read_annotations(write(coco()))
    assert annotations.classes == ("dog", "ant", "zebra")
    assert [annotations.path(index) for index in range(len(annotations))] == ["c.jpg", "sub/ä.jpg"]


def test_coco_class_is_present_when_any_annotation_names_it_crowds_included(write):
    annotations = read_annotations(write(coco()))
    assert annotations.targets().tolist() == [[0, 0, 1], [1, 0, 1]]
    assert annotations.positives_per_class().tolist() == [1, 0, 2]


def test_images_without_annotation_stay_on_request(write):
    annotations = read_annotations(write(coco()), keep_empty=True)
    assert annotations.path(2) == "empty.jpg"
    assert annotations.targets().tolist() == [[0, 0, 1], [1, 0, 1], [0, 0, 0]]


def test_annotations_are_arrays_and_single_targets_equal_the_rows_of_all(write):
    annotations = read_annotations(write(coco()), keep_empty=True)
    targets = annotations.targets()
    assert targets.dtype == annotations.target(0).dtype == annotations.values.dtype == np.int8
    assert annotations.indices.dtype == np.int32
    assert annotations.indptr.dtype == annotations.name_offsets.dtype == np.int64
    assert annotations.name_bytes.dtype == np.uint8
    assert np.array_equal(targets, [annotations.target(index) for index in range(3)])


@pytest.mark.slow
def test_coco_of_the_size_of_ms_coco_is_read_in_seconds(write):
    draw = np.random.default_rng(0)
    images = [{"id": int(i), "file_name": f"{i:012d}.jpg"} for i in draw.permutation(82000)]
    pairs = zip(draw.integers(0, 82000, 600_000).tolist(), draw.integers(1, 81, 600_000).tolist(), strict=True)
    content = {
        "images": images,
        "annotations": [{"id": n, "image_id": i, "category_id": c} for n, (i, c) in enumerate(pairs)],
        "categories": [{"id": i, "name": str(i)} for i in range(1, 81)],
    }
    file = write(content)
    start = time.process_time()
    annotations = read_annotations(file)
    assert time.process_time() - start < 15
    first = {a["category_id"] - 1 for a in content["annotations"] if a["image_id"] == images[0]["id"]}
    assert set(np.flatnonzero(annotations.target(0)).tolist()) == first


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop("annotations"), ["instances", "`annotations`"]),
        (lambda c: c["annotations"].append({"id": 77, "image_id": 5, "category_id": 7}), ["77", "5", "7"]),
        (
            lambda c: c["annotations"].append({"id": 77, "image_id": 10, "category_id": 55}),
            ["annotation 77", "image_id 10", "category_id 55", "no category 55"],
        ),
        (lambda c: c["annotations"].append({"image_id": 11, "category_id": 7}), ["position 4", "no image 11"]),
        (lambda c: c["annotations"].append({"id": 5, "category_id": 7}), ["entry 4", "`image_id`"]),
        (lambda c: c["annotations"].append("dog"), ["entry 4", "`annotations`"]),
        (lambda c: c["images"].append({"id": 10, "file_name": "x.jpg"}), ["image id 10", "twice"]),
        (lambda c: c["images"].append({"id": "ten", "file_name": "x.jpg"}), ["'ten'", "whole number"]),
        (lambda c: c["images"].append({"id": 11, "file_name": 3}), ["`file_name`", "3"]),
        (lambda c: c["categories"].append({"id": 7, "name": "cat"}), ["category id 7", "twice"]),
        (lambda c: c["categories"].append({"id": 9, "name": "dog"}), ["category name 'dog'", "twice"]),
        (lambda c: c["annotations"].clear(), ["no image", "keep_empty"]),
        (lambda c: (c["images"].clear(), c["annotations"].clear()), ["lists no image"]),
        (lambda c: (c["categories"].clear(), c["annotations"].clear()), ["lists no class"]),
        (lambda c: c["categories"].clear(), ["annotation 1", "no category 7"]),
    ],
)
def test_wrong_coco_file_is_a_user_error_that_says_where(write, change, words):
    content = coco()
    change(content)
    expect_error(lambda: read_annotations(write(content)), "instances.json", *words)


def test_missing_malformed_and_foreign_files_are_user_errors(write, tmp_path):
    expect_error(lambda: read_annotations(tmp_path / "none.json"), "none.json", "No such file")
    expect_error(lambda: read_annotations(write('{"images": [\n 1, }', "a.json")), "a.json", "line 2 column 5")
    expect_error(lambda: read_annotations(write([1, 2])), "instances.json", "not a COCO instances file")
    expect_error(lambda: read_annotations(write(b'{"a": "\xff"}', "b.json")), "b.json", "UTF-8")
    expect_error(lambda: read_annotations(write("a", "labels.tsv")), "labels.tsv", ".json", ".csv")


def test_csv_with_and_without_header_byte_order_mark_and_quotes(write):
    body = 'a.jpg,dog;cat\n\n"b, c.jpg","big, bad wolf ; dog"\n'
    for text in (body, "path,labels\n" + body, "\ufeffpath,label\n" + body, "\ufeff" + body):
        annotations = read_annotations(write(text))
        assert annotations.classes == ("big, bad wolf", "cat", "dog")
        assert [annotations.path(index) for index in range(2)] == ["a.jpg", "b, c.jpg"]
        assert annotations.targets().tolist() == [[0, 1, 1], [1, 0, 1]]


def test_csv_labels_of_unknown_state_get_minus_one(write):
    annotations = read_annotations(write("path,label,unknown\na.jpg,dog,cat;emu\nb.jpg,,dog\nc.jpg,cat,\n"))
    assert annotations.classes == ("cat", "dog", "emu")
    assert annotations.targets().tolist() == [[-1, 1, -1], [0, -1, 0], [1, 0, 0]]
    assert annotations.positives_per_class().tolist() == [1, 1, 0]


def test_csv_rows_without_label_stay_on_request(write):
    file = write("a.jpg,dog\nb.jpg,\nc.jpg,cat;;cat\n")
    assert len(read_annotations(file)) == 2
    assert read_annotations(file, keep_empty=True).targets().tolist() == [[0, 1], [0, 0], [1, 0]]
    empty = write("a.jpg,\n", "empty.csv")
    assert read_annotations(empty, classes=["dog"], keep_empty=True).targets().tolist() == [[0]]


def test_csv_classes_given_fix_the_columns(write):
    annotations = read_annotations(write("a.jpg,dog\n"), classes=["emu", "dog"])
    assert annotations.classes == ("emu", "dog")
    assert annotations.targets().tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("text", "classes", "words"),
    [
        ("a.jpg,dog\nb.jpg,dgo\n", ["dog"], ["line 2", "'dgo'", "classes"]),
        ("a.jpg,dog\n", ["dog", "dog"], ["'dog'", "twice"]),
        ("a.jpg,dog\nb.jpg\n", None, ["line 2", "1 columns", "path,label"]),
        ("a.jpg,dog,,\n", None, ["line 1", "4 columns"]),
        ("path,label\na.jpg,dog,cat\n", None, ["line 2", "3 columns, not 2"]),
        ("path,label,score\na.jpg,dog,cat\n", None, ["header", "path,label,score"]),
        ("path,label\na.jpg,dog\nb.jpg,\na.jpg,cat\n", None, ["line 4", "'a.jpg'", "line 2"]),
        ("a.jpg,dog,dog\n", None, ["line 1", "'dog'", "unknown"]),
        (",dog\n", None, ["line 1", "no path"]),
        ('a.jpg,"dog\n', None, ["line 1"]),
        ("", None, ["lists no image"]),
        ("path,label\n", None, ["lists no image"]),
        ("a.jpg,\n", ["dog"], ["no image has an annotation", "keep_empty"]),
        ("a.jpg,\n", None, ["lists no class"]),
        (b"a.jpg,dog\nb.jpg,h\xe4h\n", None, ["UTF-8", "line 2"]),
    ],
)
def test_wrong_csv_file_is_a_user_error_that_says_where(write, text, classes, words):
    expect_error(lambda: read_annotations(write(text), classes), "table.csv", *words)


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (["ant", "dog", "zebra"], ["order", "class 0 is 'dog', not 'ant'"]),
        (["dog", "ant"], ["2 expected", "adds 1 (zebra)"]),
        (["dog", "emu", "ant", "zebra"], ["lacks 1 (emu)"]),
        (["dog", "dog", "ant", "zebra"], ["'dog'", "twice"]),
    ],
)
def test_coco_classes_must_be_the_expected_ones_in_the_same_order(write, classes, words):
    file = write(coco())
    assert read_annotations(file, ["dog", "ant", "zebra"]).classes == ("dog", "ant", "zebra")
    expect_error(lambda: read_annotations(file, classes), "instances.json", *words)


def test_file_name_that_is_listed_twice_is_refused(write):
    content = coco()
    content["images"].append({"id": 40, "file_name": "c.jpg"})
    expect_error(lambda: read_annotations(write(content)), "instances.json", "file_name 'c.jpg'", "twice")


@pytest.mark.parametrize("name", ["./c.jpg", "sub/../c.jpg", "sub//.././c.jpg"])
def test_image_that_is_listed_under_two_spellings_is_refused(write, name):
    content = coco()
    content["images"].append({"id": 40, "file_name": name})
    expect_error(lambda: read_annotations(write(content)), "instances.json", "'c.jpg'", repr(name), "same image")
    table = write(f"c.jpg,dog\n{name},cat\n", "table.csv")
    expect_error(lambda: read_annotations(table), "line 2", repr(name), "line 1", "'c.jpg'")


def test_names_stay_as_the_file_has_them(write):
    assert read_annotations(write("./a.jpg,dog\nsub/../b.jpg,dog\n", "table.csv")).paths() == [
        "./a.jpg",
        "sub/../b.jpg",
    ]


def test_images_left_out_and_unknown_labels_are_counted(write):
    assert read_annotations(write(coco())).num_unlabelled == 1
    assert read_annotations(write(coco())).unlabelled() == ["empty.jpg"]
    assert read_annotations(write(coco()), keep_empty=True).num_unlabelled == 0
    table = read_annotations(write("a.jpg,cat,dog\nb.jpg,dog,\nc.jpg,,\n", "table.csv"))
    assert table.num_unlabelled == 1
    assert table.positives_per_class().tolist() == [1, 1]
    assert table.unknown_per_class().tolist() == [0, 1]
