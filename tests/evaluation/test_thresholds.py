import errno
import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_recall_curve, precision_score, recall_score

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation import threshold_curves as module
from tresnet_downstream.evaluation.threshold_curves import Objective, choose, threshold_curve
from tresnet_downstream.evaluation.thresholds import Thresholds, choose_thresholds, read_thresholds, write_thresholds


def made(num_entries=200, seed=0, digits=2):
    draw = np.random.default_rng(seed)
    targets = (draw.random(num_entries) < 0.3).astype(np.int8)
    scores = np.round(np.clip(draw.normal(0.4 + 0.25 * targets, 0.2), 0, 1), digits).astype(np.float32)
    return scores, targets


def test_curve_is_that_of_scikit_learn_at_the_scores_of_positives():
    scores, targets = made()
    curve = threshold_curve(scores, targets)
    precision, recall, at = precision_recall_curve(targets, scores)
    of_score = {score: (p, r) for p, r, score in zip(precision, recall, at, strict=False)}
    for score, p, r in zip(curve.scores, curve.precision, curve.recall, strict=True):
        assert (p, r) == pytest.approx(of_score[score], abs=1e-12)
    assert len(curve.scores) == len(set(scores[targets == 1]))


def test_thresholds_lie_midway_between_scores_so_that_above_and_at_least_agree():
    scores, targets = np.array([0.9, 0.6, 0.6, 0.2, 0.1], np.float32), np.array([1, 0, 1, 1, -1])
    curve = threshold_curve(scores, targets)
    assert curve.thresholds == pytest.approx([0.75, 0.4, 0.1], abs=1e-6)
    assert curve.predicted.tolist() == [1, 3, 4]
    near = np.array([0.5, np.nextafter(np.float32(0.5), 1)], np.float32)  # neighbours in float32
    (limit,) = threshold_curve(near, np.array([0, 1])).thresholds
    assert near[0] < limit < near[1]


def test_all_classes_together_are_one_long_class_also_in_blocks(monkeypatch):
    scores, targets = made(300, 1)
    targets[:9] = -1
    whole = threshold_curve(scores, targets)
    monkeypatch.setattr(module, "_BLOCK_ENTRIES", 30)
    table = threshold_curve(scores.reshape(60, 5), targets.reshape(60, 5))
    for name, values in vars(whole).items():
        np.testing.assert_array_equal(getattr(table, name), values)


@pytest.mark.parametrize("seed", range(4))
def test_choice_is_the_best_of_all_thresholds(seed):
    scores, targets = made(120, seed)
    curve = threshold_curve(scores, targets)
    every = np.unique(np.append(scores.astype(np.float64) - 1e-4, 2.0))

    def judged(limit):
        shown = scores > limit
        options = {"zero_division": 0}
        return tuple(score(targets, shown, **options) for score in (f1_score, precision_score, recall_score))

    found = np.array([judged(limit) for limit in every])
    f1, precision, recall = judged(curve.thresholds[choose(curve, Objective("f1"))])
    assert f1 == pytest.approx(found[:, 0].max())
    _, precision, recall = judged(curve.thresholds[choose(curve, Objective("precision", 0.8))])
    assert precision >= 0.8
    assert recall == pytest.approx(found[found[:, 1] >= 0.8, 2].max())
    _, precision, recall = judged(curve.thresholds[choose(curve, Objective("recall", 0.7))])
    assert recall >= 0.7
    assert precision == pytest.approx(found[found[:, 2] >= 0.7, 1].max())


def test_an_objective_that_no_threshold_reaches_predicts_nothing():
    curve = threshold_curve(np.array([0.9, 0.8, 0.7]), np.array([0, 1, 0]))
    assert choose(curve, Objective("precision", 0.9)) is None
    chosen = choose_thresholds([curve], curve, ["a"], "multilabel", Objective("precision", 0.9))
    assert chosen.short == ("a",)
    assert chosen.limits(["a"], "multilabel").tolist() == [math.inf]


def test_missed_objects_count_in_the_recall_of_a_detector():
    curve = threshold_curve(np.array([0.9, 0.8]), np.array([1, 1]), positives=4)
    assert curve.recall.tolist() == [0.25, 0.5]
    # Out of reach: the lowest threshold finds all objects with a detection.
    assert choose(curve, Objective("recall", 0.9)) == 1
    chosen = choose_thresholds([curve], curve, ["a"], "detection", Objective("recall", 0.9))
    assert chosen.limits(["a"], "detection").tolist() == [0.4]
    assert chosen.short == ("a",)
    assert choose_thresholds([curve], curve, ["a"], "detection", Objective("recall", 0.5)).short == ()


def choose_for(scope):
    columns = [made(seed=seed, digits=4) for seed in (1, 2)]
    one, other = (threshold_curve(*column) for column in columns)
    empty = threshold_curve(np.array([0.3], np.float32), np.array([0]))
    pooled = threshold_curve(*(np.stack(parts, 1) for parts in zip(*columns, strict=True)))
    return choose_thresholds(
        [one, other, empty], pooled, ["a", "b", "c"], "multilabel", Objective("f1"), scope, {"run": "x"}
    ), pooled


def test_a_class_without_a_positive_borrows_and_a_global_threshold_is_one():
    each, pooled = choose_for("per-class")
    assert each.borrowed == ("c",)
    assert each.of_class["c"] == pooled.thresholds[np.argmax(pooled.f1)]
    assert each.of_class["a"] != each.of_class["c"]
    one, _ = choose_for("global")
    assert set(one.of_class.values()) == {each.of_class["c"]}
    assert one.borrowed == ()
    with pytest.raises(UserError, match="scope='other': choose per-class or global"):
        choose_thresholds([], pooled, [], "multilabel", Objective("f1"), "other")
    with pytest.raises(UserError, match="no class has a positive"):
        choose_thresholds([], threshold_curve(np.zeros(1), np.zeros(1)), [], "multilabel", Objective("f1"))


@pytest.mark.parametrize("text", ["f1", "precision=0.9", "recall=1"])
def test_objectives_are_read_and_written_alike(text):
    assert str(Objective.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "f2", "f1=", "f1=0.5", "precision", "precision=0", "recall=1.1", "recall=x", "recall=nan"]
)
def test_other_objectives_are_refused(text):
    with pytest.raises(UserError, match="write f1, precision="):
        Objective.parse(text)


def test_files_give_back_every_threshold(tmp_path):
    names = {'<script>"': 0.1 + 0.2, "犬": None, "last": 5e-324}
    given = Thresholds(
        names, "detection", "precision=0.9", "per-class", ("last",), ("犬",), {"run": "work", "date": "today"}
    )
    write_thresholds(given, tmp_path / "new" / "thresholds.json")
    found = read_thresholds(tmp_path / "new" / "thresholds.json")
    assert vars(found) == {**vars(given), "source": str(tmp_path / "new" / "thresholds.json")}
    assert list(found.of_class) == list(names)
    with pytest.raises(UserError, match=r"thresholds\.json: lacks 1 of the 2 classes, such as 'dog'"):
        found.limits(["last", "dog"], "detection")
    with pytest.raises(UserError, match=r"thresholds\.json: chosen for detection, not for multilabel"):
        found.limits(["last"], "multilabel")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "has version 2 of its format, and this toolkit reads 1; update it"),
        ({"format": "other"}, "is not of the format tresnet_downstream.thresholds; tresnet thresholds writes such"),
        ({"thresholds": {"a": "0.5"}}, "the threshold of 'a' is '0.5', not a number or null"),
        ({"thresholds": {"a": math.nan}}, "the threshold of 'a' is nan"),
        ({"thresholds": {"a": 10**90}}, "the threshold of 'a' is 1000"),
        ({"thresholds": [1]}, "is malformed"),
        ({"chosen_on": None}, "is malformed"),
    ],
)
def test_errors_name_the_fault_of_a_file(tmp_path, change, message):
    path = tmp_path / "thresholds.json"
    write_thresholds(Thresholds({"a": 0.5}, "multilabel", "f1", "global", (), (), {}), path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=message):
        read_thresholds(path)


def test_a_folder_is_no_file_to_write_to(tmp_path):
    given = Thresholds({}, "multilabel", "f1", "global", (), (), {})
    for path in (".", "/", ""):
        with pytest.raises(UserError, match="is a folder; name a file"):
            write_thresholds(given, path)
    with pytest.raises(UserError, match="is a folder; name a file"):
        write_thresholds(given, tmp_path)


def test_other_files_are_not_written_over(tmp_path):
    given = Thresholds({"a": 0.5}, "multilabel", "f1", "global", (), (), {})
    (tmp_path / "scores.json").write_text("{}")
    with pytest.raises(
        UserError, match=r"scores\.json: exists and is not a readable file of thresholds; name another file"
    ):
        write_thresholds(given, tmp_path / "scores.json")
    write_thresholds(given, tmp_path / "own.json")
    write_thresholds(replace(given, objective="recall=0.9"), tmp_path / "own.json")
    assert read_thresholds(tmp_path / "own.json").objective == "recall=0.9"


def test_files_that_are_not_thresholds_are_named(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_thresholds(tmp_path / "none.json")
    (tmp_path / "cut.json").write_text('{"format": ')
    with pytest.raises(UserError, match="malformed JSON"):
        read_thresholds(tmp_path / "cut.json")


def test_thresholds_stay_where_they_are_if_others_cannot_be_written(tmp_path, monkeypatch):
    def fail(path, *_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    given = Thresholds({"a": 0.5}, "multilabel", "f1", "global", (), (), {})
    write_thresholds(given, tmp_path / "own.json")
    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(UserError, match=r"own\.json: cannot be written: no space is left"):
        write_thresholds(replace(given, objective="recall=0.9"), tmp_path / "own.json")
    assert [path.name for path in tmp_path.iterdir()] == ["own.json"]
    assert read_thresholds(tmp_path / "own.json").objective == "f1"
