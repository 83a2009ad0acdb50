"""The check infers the format of boxes from all boxes of a file."""

from data_check.faulty_data import change, kinds, source


def as_corners(content):
    for one in content["annotations"]:
        left, top, width, height = one["bbox"]
        one["bbox"] = [left, top, left + width, top + height]


def test_boxes_of_corners_are_one_error_and_not_one_for_each_box(own_boxes):
    change(own_boxes / "train.json", as_corners)
    found = kinds(source(own_boxes, "detection"))
    assert "box-convention" in found["error"]
    assert "box-beyond-edge" not in found["warning"]


def test_single_box_of_corners_is_a_box_beyond_the_edge(own_boxes):
    change(own_boxes / "train.json", lambda content: content["annotations"][0].update(bbox=[30, 30, 60, 60], area=900))
    found = kinds(source(own_boxes, "detection"))
    assert found["warning"] == {"box-beyond-edge"}
    assert not found["error"]


def test_classifiers_do_not_look_at_boxes(own_boxes):
    change(own_boxes / "train.json", as_corners)
    assert not kinds(source(own_boxes))["error"]
