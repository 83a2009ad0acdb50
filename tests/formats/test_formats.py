"""All formats are read into one type, and a user's format can be used wherever the built-in ones can."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from running.small_data import ROOT

from tresnet_downstream import formats
from tresnet_downstream.classification.annotations import read_annotations
from tresnet_downstream.data_check import Source, check_data
from tresnet_downstream.errors import UserError
from tresnet_downstream.formats import FORMATS, Format, LabelledImages

XML = """<annotation><filename>{}</filename><size><width>60</width><height>40</height></size>{}</annotation>"""
OBJECT = "<object><name>{}</name><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>11</xmax><ymax>22</ymax></bndbox></object>"
LABELS = {"a.jpg": ["cat", "dog"], "b.jpg": ["bird"], "c.jpg": ["dog", "dog"]}
CLASSES = ["bird", "cat", "dog"]


def write_coco(root):
    number = {name: place for place, name in enumerate(LABELS)}
    annotations = [
        {"id": 10 * number[name] + place, "image_id": number[name], "category_id": CLASSES.index(label)}
        for name, labels in LABELS.items()
        for place, label in enumerate(labels)
    ]
    content = {
        "images": [{"id": place, "file_name": name} for name, place in number.items()],
        "annotations": annotations,
        "categories": [{"id": place, "name": name} for place, name in enumerate(CLASSES)],
    }
    (root / "labels.json").write_text(json.dumps(content))
    return root / "labels.json"


def write_table(root):
    (root / "labels.csv").write_text("".join(f"{name},{';'.join(labels)}\n" for name, labels in LABELS.items()))
    return root / "labels.csv"


def write_voc(root):
    (root / "Annotations").mkdir()
    for name, labels in LABELS.items():
        text = XML.format(name, "".join(map(OBJECT.format, labels)))
        (root / "Annotations" / name.replace(".jpg", ".xml")).write_text(text)
    (root / "labels.txt").write_text("".join(f"{name.removesuffix('.jpg')}\n" for name in LABELS))
    return root / "labels.txt"


@pytest.mark.parametrize("write", [write_coco, write_table, write_voc])
def test_every_format_is_read_into_the_same_labels(write, tmp_path):
    file = write(tmp_path)
    images = formats.read_file(file)
    assert images.names == list(LABELS)
    assert images.classes == tuple(CLASSES) == formats.read_classes(file)
    assert bool(images.content) == formats.format_of(file).has_boxes
    assert read_annotations(file).targets().tolist() == [[0, 1, 1], [1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("write", [write_table, write_voc])
def test_further_classes_follow_where_they_may_be_there(write, tmp_path):
    file = write(tmp_path)
    images = formats.read_file(file, ["dog"], others=True)
    assert images.classes == ("dog", "bird", "cat")
    assert read_annotations(file, images.classes).targets().tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 0]]
    with pytest.raises(UserError, match="not among the 1"):
        formats.read_file(file, ["dog"])


def test_a_suffix_of_no_format_is_reported_with_those_of_all():
    with pytest.raises(UserError, match=r"labels.xml: the suffix '\.xml' is not supported; .* \.json \(COCO\), \.csv"):
        formats.read_file("labels.xml")


PAGE = ROOT / "docs/extending/annotation_format.md"
OWN = re.search(r"```python\n# own_format\.py\n(.+?)```", PAGE.read_text(), re.DOTALL)[1]


def read_boxes_of_lines(file, classes=None, others=False):
    """A line for each box, with ! before the label of a difficult object."""
    rows = [line.split() for line in Path(file).read_text().splitlines()]
    names, labels = list(dict.fromkeys(name for name, _ in rows)), [label.strip("!") for _, label in rows]
    found = sorted(set(labels))
    image_of, class_of = [names.index(name) for name, _ in rows], [found.index(label) for label in labels]
    boxes = [
        {"id": number, "image_id": image, "category_id": label, "bbox": [2, 3, 20, 10], "iscrowd": 0}
        for number, (image, label) in enumerate(zip(image_of, class_of, strict=True))
    ]
    images = [{"id": number, "file_name": name, "width": 60, "height": 40} for number, name in enumerate(names)]
    return LabelledImages(
        names=names,
        classes=tuple(found),
        image_of=np.array(image_of),
        class_of=np.array(class_of),
        unknown=np.zeros(len(rows), bool),
        difficult=np.array([row[1].startswith("!") for row in rows]),
        content={
            "images": images,
            "annotations": boxes,
            "categories": [{"id": number, "name": name} for number, name in enumerate(found)],
        },
    )


@pytest.fixture
def own_format(tmp_path, monkeypatch):
    """The file that registers the format; afterwards it is forgotten."""
    monkeypatch.setitem(FORMATS, ".lines", Format("to be replaced", FORMATS[".csv"].read))
    path = tmp_path / "lines_format.py"
    path.write_text(OWN)
    return path


def test_boxes_of_a_custom_format_train_a_detector_and_difficult_ones_are_skipped(monkeypatch, tmp_path):
    pytest.importorskip("mmdet", reason="needs the detection set-up")
    from tresnet_downstream.detection.box_files import read_boxes

    file = tmp_path / "labels.lines"
    file.write_text("a.jpg dog\na.jpg !cat\nb.jpg !dog\nc.jpg !dog\nc.jpg dog\n")
    monkeypatch.setitem(FORMATS, ".lines", Format("lines", read_boxes_of_lines, has_boxes=True))
    annotations = read_boxes(str(file))[0].content["annotations"]
    assert [each["iscrowd"] for each in annotations] == [0, 1, 1, 1, 0]
    assert annotations[0]["area"] == 200
    assert read_annotations(file).targets().tolist() == [[-1, 1], [0, -1], [0, 1]]
    assert read_annotations(file, difficult="positive").targets().tolist() == [[1, 1], [0, 1], [0, 1]]
    (listing,) = check_data([Source("train", str(file), str(tmp_path), "detection")]).listings
    assert {finding.kind for finding in listing.findings if finding.severity == "error"} == {"missing-image"}
    assert listing.classes == ("cat", "dog")
    with pytest.raises(UserError, match=r"labels.csv: has no boxes, .* of .json \(COCO\) or .txt"):
        read_boxes("labels.csv")


def test_a_custom_format_is_checked(own_format, tmp_path):
    exec(own_format.read_text(), {})
    file = tmp_path / "labels.lines"
    file.write_text("a.jpg dog cat?\nb.jpg dog\n")
    (listing,) = check_data([Source("train", str(file), str(tmp_path), "classification")]).listings
    assert {finding.kind for finding in listing.findings if finding.severity == "error"} == {"missing-image"}
    assert listing.classes == ("cat", "dog")
    assert [(image.shown, image.unverified) for image in listing.images] == [({"dog"}, {"cat"}), ({"dog"}, set())]
    detection = Source("train", str(file), str(tmp_path), "detection")
    (listing,) = check_data([detection]).listings
    assert "has no boxes" in [finding.text for finding in listing.findings]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"image_of": np.array([0.0, 1.0])}, "its reader returns `image_of` as float64"),
        ({"class_of": np.array([0, 2])}, "numbers in `class_of` that are not from 0 to 1"),
        ({"difficult": np.zeros(1, bool)}, "`difficult` with 1 entries for 2 annotations"),
        ({"names": ["a.jpg", "./a.jpg"]}, "are the same image"),
    ],
)
def test_the_result_of_a_reader_is_checked(monkeypatch, changes, told):
    no = np.zeros(2, bool)
    given = {"names": ["a.jpg", "b.jpg"], "classes": ("cat", "dog"), "image_of": np.array([0, 1])}
    given |= {"class_of": np.array([0, 1]), "unknown": no, "difficult": no, **changes}
    monkeypatch.setitem(FORMATS, ".lines", Format("lines", lambda *_: LabelledImages(**given)))
    with pytest.raises(UserError, match=told):
        read_annotations("labels.lines")


@pytest.mark.parametrize("header", ["image,class", "filename,label", "ID,labels"])
def test_a_header_of_another_tool_is_reported(tmp_path, header):
    (tmp_path / "labels.csv").write_text(f"{header}\na.jpg,cat\n")
    with pytest.raises(UserError, match=r"labels.csv: line 1 is the header .*write path,label"):
        formats.read_file(tmp_path / "labels.csv")
