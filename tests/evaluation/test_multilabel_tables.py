import csv
import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from tresnet_downstream import files
from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation import format_table, multilabel_scores, write_scores


def scored(num_classes=5, absent=(), unknown=(), classes=None):
    generator = np.random.default_rng(num_classes)
    scores = generator.random((40, num_classes))
    targets = (generator.random((40, num_classes)) < 0.3).astype(int)
    targets[:, list(absent)] = 0
    targets[:4, list(unknown)] = -1
    return multilabel_scores(scores, targets, classes or [f"class {c}" for c in range(num_classes)])


def refuse_constant(token):
    raise AssertionError(f"{token} is not strict JSON")


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse_constant)


def class_rows(table):
    """The class names of the table's rows, from the top."""
    lines = table.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("class, lowest AP first")) + 1
    return [" ".join(line.split()[:2]) for line in lines[first:]]


# --- the table for the terminal


def test_table_shows_the_headline_and_both_operating_points():
    scores = scored()
    table = format_table(scores, "validation, weight average")
    lines = table.splitlines()
    assert lines[0] == "validation, weight average"
    assert f"mAP {scores.mAP:.2f}  images 40  classes 5" in lines
    assert "score > 0.5" in table
    assert "top 3" in table
    rows = {line[:34].rstrip(): line[34:].split() for line in lines if line.startswith(("C", "O"))}
    for label, name in {
        "CP   mean precision of the classes": "CP",
        "CF1  mean of the classes' F1": "CF1_mean_of_per_class_f1",
        "CF1  F1 of CP and CR": "CF1_of_mean_precision_recall",
        "OF1  F1 of all entries": "OF1",
    }.items():
        points = (scores.at_threshold, scores.at_top_k)
        assert rows[label] == [f"{getattr(point, name):.2f}" for point in points]


def test_table_puts_the_lowest_average_precision_first():
    scores = scored(12)
    expected = [scores.classes[c] for c in np.argsort(scores.ap)]
    assert class_rows(format_table(scores)) == expected


def test_table_shows_all_of_thirty_classes_and_a_part_of_more():
    assert len(class_rows(format_table(scored(30)))) == 30
    scores = scored(31)
    order = [scores.classes[c] for c in np.argsort(scores.ap)]
    rows = class_rows(format_table(scores))
    assert rows[:15] + rows[16:] == order[:15] + order[-5:]
    assert "... 11 more classes; per_class.csv of the written scores lists all" in format_table(scores)


def test_table_names_absent_classes_and_gives_them_no_row():
    table = format_table(scored(5, absent=[1, 4]))
    assert "left out of the means for having no positive (2): class 1, class 4\n" in table
    assert len(class_rows(table)) == 3


def test_table_shortens_a_long_list_of_absent_classes():
    table = format_table(scored(20, absent=range(3, 16)))
    assert "no positive (13): class 3, " in table
    assert "class 12 and 3 more\n" in table
    assert "class 13" not in table


def test_table_counts_unknown_labels():
    assert "left out for being unknown: 8 labels" in format_table(scored(5, unknown=[0, 2]))
    assert "unknown" not in format_table(scored(5))


def test_table_stays_straight_with_odd_class_names():
    table = format_table(scored(2, classes=["line\nend\x1b[31m", "x" * 200]))
    assert "line?end?[31m" in table
    assert "\x1b" not in table
    assert max(map(len, table.splitlines())) <= 110
    assert len({len(line) for line in table.splitlines()[-3:]}) == 1


def test_table_without_any_positive_shows_dashes():
    table = format_table(multilabel_scores([[0.9, 0.1]], [[0, 0]]))
    assert "mAP -  images 1  classes 2" in table
    assert "nan" not in table


# --- the files


def test_json_holds_every_number(tmp_path):
    scores = scored()
    json_path, csv_path = write_scores(scores, tmp_path / "made" / "here")
    assert (json_path, csv_path) == (
        tmp_path / "made" / "here" / "scores.json",
        tmp_path / "made" / "here" / "per_class.csv",
    )
    content = read_json(json_path)
    assert (content["format"], content["version"]) == ("tresnet_downstream.multilabel_scores", 1)
    assert content["headline"] == {"mAP": scores.mAP, "num_images": 40, "num_classes": 5, "absent": []}
    assert content["at_threshold"] == {"threshold": 0.5, **vars(scores.at_threshold)}
    assert content["at_top_k"] == {"top_k": 3, **vars(scores.at_top_k)}
    assert [row["class"] for row in content["per_class"]] == list(scores.classes)
    assert [row["ap"] for row in content["per_class"]] == scores.ap.tolist()
    assert content["per_class"][2] == {
        "class": "class 2",
        "ap": scores.ap[2],
        "support": scores.support[2],
        "unknown": 0,
        "precision": scores.precision[2],
        "recall": scores.recall[2],
        "f1": scores.f1[2],
    }
    assert content["run"] == {}


def test_json_is_strict_where_a_class_is_absent(tmp_path):
    content = read_json(write_scores(scored(5, absent=[1]), tmp_path)[0])
    assert content["per_class"][1]["ap"] is None
    assert content["headline"]["absent"] == ["class 1"]


def test_json_is_strict_where_no_class_has_a_positive(tmp_path):
    content = read_json(write_scores(multilabel_scores([[0.9]], [[0]]), tmp_path)[0])
    assert content["headline"]["mAP"] is None
    assert content["at_top_k"]["OF1"] is None


def test_json_keeps_what_is_known_of_the_run(tmp_path):
    extra = {
        "checkpoint": Path("runs") / "best.pth",
        "epochs": np.int64(40),
        "losses": np.array([1.5, np.nan]),
        "nested": {"inf": float("inf"), "pair": (1, "é")},
    }
    assert read_json(write_scores(scored(), tmp_path, extra)[0])["run"] == {
        "checkpoint": os.path.join("runs", "best.pth"),
        "epochs": 40,
        "losses": [1.5, None],
        "nested": {"inf": None, "pair": [1, "é"]},
    }


def test_csv_gives_back_class_names_with_commas_quotes_and_accents(tmp_path):
    names = ["dog, wet", 'the "big" cat', "naïve 犬", "two\nlines", "plain"]
    scores = scored(5, absent=[3], unknown=[4], classes=names)
    path = write_scores(scores, tmp_path)[1]
    assert path.read_bytes().startswith(b"class,ap,support,unknown,precision,recall,f1\n")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == names
    assert [float(row["ap"] or "nan") for row in rows] == pytest.approx(scores.ap.tolist(), nan_ok=True)
    assert rows[3]["ap"] == ""
    assert [int(row["unknown"]) for row in rows] == [0, 0, 0, 0, 4]


def test_written_files_replace_the_old_and_leave_nothing_else(tmp_path):
    write_scores(scored(3), tmp_path)
    write_scores(scored(4), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["per_class.csv", "scores.json"]
    assert len(read_json(tmp_path / "scores.json")["per_class"]) == 4


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_write_leaves_the_old_file_whole(tmp_path, monkeypatch, interrupt):
    write_scores(scored(3), tmp_path)

    def write_half(path, text, **kwargs):
        path.write_bytes(text[: len(text) // 2].encode())
        raise interrupt

    monkeypatch.setattr(Path, "write_text", write_half)
    with pytest.raises(interrupt):
        write_scores(scored(4), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["per_class.csv", "scores.json"]
    assert len(read_json(tmp_path / "scores.json")["per_class"]) == 3


def test_a_run_that_json_cannot_hold_writes_nothing(tmp_path):
    with pytest.raises(TypeError):
        write_scores(scored(), tmp_path, {"model": object()})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named_in_one_line(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match=r"taken: cannot be written to .*; choose another") as caught:
        write_scores(scored(), tmp_path / "taken")
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_named_with_the_file_and_what_to_do(tmp_path, monkeypatch):
    def fail(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source))

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(UserError, match=r"scores\.json: cannot be written: no space is left .*; make room there"):
        write_scores(scored(), tmp_path)
