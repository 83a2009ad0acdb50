"""PASCAL VOC's lists and XML files, for multi-label classification and for boxes."""

import numpy as np
import pytest

from tresnet_downstream.classification.annotations import read_annotations
from tresnet_downstream.errors import UserError
from tresnet_downstream.formats.voc import read_voc_file

BOX = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"


def item(name, box=(2, 3, 11, 22), difficult=0):
    return f"<object><name>{name}</name><difficult>{difficult}</difficult>{BOX.format(*box)}</object>"


def xml(name, *items, size="<size><width>60</width><height>40</height><depth>3</depth></size>"):
    return f"<annotation><filename>{name}.jpg</filename>{size}{''.join(items)}</annotation>"


@pytest.fixture
def write(tmp_path):
    """Writes XML files by name, and a list of all of them; gives the list's path."""

    def write(files, listed=None):
        (tmp_path / "Annotations").mkdir(exist_ok=True)
        (tmp_path / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (tmp_path / "Annotations" / f"{name}.xml").write_text(content)
        path = tmp_path / "ImageSets" / "Main" / "train.txt"
        path.write_text("\n".join(files) if listed is None else listed)
        return path

    return write


FILES = {
    "000001": xml("000001", item("dog"), item("cat", difficult=1), item("dog", difficult=1)),
    "000002": xml("000002", item("cat"), item("bird", (1, 1, 60, 40))),
    "000003": xml("000003"),
}


def test_boxes_count_pixels_from_0_and_include_the_last_ones(write):
    file = read_voc_file(write(FILES))
    assert file.classes == ("bird", "cat", "dog")
    assert file.names == ["000001.jpg", "000002.jpg", "000003.jpg"]
    assert [each["bbox"] for each in file.content["annotations"]][-2:] == [[1, 2, 10, 20], [0, 0, 60, 40]]
    assert [each["area"] for each in file.content["annotations"]][-2:] == [200, 2400]
    assert file.difficult.tolist() == [False, True, True, False, False]
    assert file.content["images"][0] == {"id": 0, "file_name": "000001.jpg", "width": 60, "height": 40}


@pytest.mark.parametrize(("difficult", "first"), [("unknown", [0, -1, 1]), ("positive", [0, 1, 1])])
def test_difficult_objects_leave_a_class_unknown_or_say_that_it_is_there(write, difficult, first):
    annotations = read_annotations(write(FILES), keep_empty=True, difficult=difficult)
    assert annotations.targets().tolist() == [first, [1, 1, 0], [0, 0, 0]]
    assert len(read_annotations(write(FILES), difficult=difficult)) == 2


def test_classes_that_are_given_order_the_columns(write):
    annotations = read_annotations(write(FILES), classes=["dog", "cat", "emu", "bird"])
    assert annotations.targets().tolist() == [[1, -1, 0, 0], [0, 1, 0, 1]]
    with pytest.raises(UserError, match=r"000002\.xml: has the class 'bird', which is not among the 2: dog, cat"):
        read_annotations(write(FILES), classes=["dog", "cat"])


def test_the_stated_file_name_counts_if_it_is_the_listed_name_with_a_suffix(write):
    files = {"a": xml("a").replace("a.jpg", "a.png"), "b": xml("other"), "c": xml("c").replace("c.jpg", "c")}
    assert read_voc_file(write(files)).names == ["a.png", "b.jpg", "c.jpg"]


def test_a_name_that_is_listed_in_a_folder_stays_there(write):
    (write({}).parents[2] / "Annotations" / "c").mkdir()
    files = {"c/d": xml("d").replace("d.jpg", "d.png"), "c/e": xml("other")}
    assert read_voc_file(write(files)).names == ["c/d.png", "c/e.jpg"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("<annotation>", "not well-formed XML"),
        ("<root/>", r"outermost element is <root>"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', "declares a document type or entities"),
        (xml("a", size=""), "has no <size>"),
        (xml("a", size="<size><width>0</width><height>4</height></size>"), "0 x 4, not whole numbers above 0"),
        (xml("a", "<object/>"), "an <object> has no <name>"),
        (xml("a", "<object><name>cat</name></object>"), "has no <bndbox>"),
        (xml("a", item("cat", ("nan", 1, 2, 3))), "<xmin> is 'nan', not a number of pixels"),
        (xml("a", item("cat", ("9" * 30, 1, 2, 3))), "not a number of pixels"),
        (xml("a", item("cat", difficult=2)), "<difficult> is '2', not 0 or 1"),
    ],
)
def test_malformed_files_are_named_in_one_line(write, content, words):
    with pytest.raises(UserError, match=words) as raised:
        read_voc_file(write({"a": content}))
    assert "a.xml: " in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        ("", "lists no image"),
        ("a 1\nb -1", "is the list of one class"),
        ("a\nb c d", "line 2 is 'b c d', not the name of an image"),
        ("a\na", "the name 'a' is there twice"),
        ("none", r"none\.xml: cannot be read"),
    ],
)
def test_wrong_lists_are_refused(write, listed, words):
    with pytest.raises(UserError, match=words):
        read_voc_file(write({"a": xml("a", item("cat"))}, listed))


def test_a_list_without_a_folder_of_annotations_is_reported(tmp_path):
    (tmp_path / "deep" / "er" / "still").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "still" / "train.txt").write_text("a")
    with pytest.raises(UserError, match="there is no folder Annotations"):
        read_voc_file(tmp_path / "deep" / "er" / "still" / "train.txt")


def test_a_long_xml_file_is_refused(write, monkeypatch):
    monkeypatch.setenv("TRESNET_MAX_XML_BYTES", "100")
    with pytest.raises(UserError, match="TRESNET_MAX_XML_BYTES"):
        read_voc_file(write(FILES))


def test_labels_have_the_indices_of_images_and_classes(write):
    file = read_voc_file(write(FILES))
    assert np.array_equal(file.image_of, [0, 0, 0, 1, 1])
    assert np.array_equal(file.class_of, [2, 1, 2, 1, 0])
