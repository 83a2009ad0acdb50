"""The table and files of single-label scores."""

import csv
import json

from tresnet_downstream.evaluation.single_label_scores import single_label_scores
from tresnet_downstream.evaluation.single_label_tables import format_single_label_table, write_single_label_scores

PROBABILITIES = [[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.3, 0.6, 0.1], [0.1, 0.8, 0.1]]


def scores():
    return single_label_scores(PROBABILITIES, [0, 0, 0, 1], ("cat", "dog", "emu"))


def test_table_has_the_means_the_confusions_and_the_classes_worst_first():
    text = format_single_label_table(scores(), "best.pth")
    lines = text.splitlines()
    assert lines[0] == "best.pth"
    assert lines[2].startswith("top-1 50.00  top-5 100.00  mean per class 66.67  images 4  classes 3")
    assert "1 classes have no image" in text
    assert [line.split() for line in lines[6:8]] == [["class", "taken", "for", "images"], ["cat", "dog", "2"]]
    assert [line.split()[:3] for line in lines[-2:]] == [["cat", "33.33", "3"], ["dog", "100.00", "1"]]


def test_files_hold_all_numbers(tmp_path):
    json_path, csv_path = write_single_label_scores(scores(), tmp_path / "out", {"checkpoint": "best.pth"})
    content = json.loads(json_path.read_text())
    assert content["headline"]["top1"] == 50
    assert content["headline"]["absent"] == ["emu"]
    assert content["confusions"] == [{"label": "cat", "predicted": "dog", "images": 2}]
    assert content["run"] == {"checkpoint": "best.pth"}
    assert content["per_class"][2]["recall"] is None
    rows = list(csv.DictReader(csv_path.read_text().splitlines()))
    assert [row["class"] for row in rows] == ["cat", "dog", "emu"]
    assert rows[2]["recall"] == ""
