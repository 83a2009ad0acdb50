"""Thresholds of a run folder: their scores equal the reported scores, on the same run and on another."""

import numpy as np
import pytest
from evaluation.small_runs import detection_run, multilabel_run
from running.small_data import call

from tresnet_downstream.evaluation import multilabel_scores, read_run
from tresnet_downstream.evaluation.run_thresholds import format_judgement, judge, notes_on, thresholds_for
from tresnet_downstream.evaluation.threshold_curves import Objective
from tresnet_downstream.evaluation.thresholds import read_thresholds


def test_judgement_is_the_operating_point_of_the_scores(tmp_path):
    run = multilabel_run(tmp_path / "run")
    chosen = thresholds_for(tmp_path / "run", Objective("f1"))
    limits = chosen.limits(run.classes, "multilabel")
    scores = multilabel_scores(run.probabilities, run.targets, run.classes, limits, run.top_k)
    assert judge(run, limits) == pytest.approx(vars(scores.at_threshold))
    assert judge(run, limits)["CF1_mean_of_per_class_f1"] > judge(run, 0.5)["CF1_mean_of_per_class_f1"] + 1
    assert chosen.chosen_on["checkpoint"] == "work/best.pth"


def test_precision_reached_on_one_split_is_nearly_reached_on_another(tmp_path):
    multilabel_run(tmp_path / "one", num_images=4000)
    run = read_run(tmp_path / "one")
    half = slice(0, 2000), slice(2000, 4000)
    for name, rows in zip(("choose", "apply"), half, strict=True):
        multilabel_run(
            tmp_path / name,
            num_images=4000,
            probabilities=np.array(run.probabilities[rows]),
            targets=np.array(run.targets[rows]),
            images=run.images[rows],
        )
    chosen = thresholds_for(tmp_path / "choose", Objective("precision", 0.9), "global")
    limits = chosen.limits(run.classes, "multilabel")
    assert 90 <= judge(read_run(tmp_path / "choose"), limits)["OP"] < 90.5
    assert judge(read_run(tmp_path / "apply"), limits)["OP"] == pytest.approx(90, abs=4)


def test_thresholds_of_a_detector_are_those_of_its_matches(tmp_path):
    pytest.importorskip("pycocotools", reason="needs the detection set-up")
    run = detection_run(tmp_path / "run")
    chosen = thresholds_for(tmp_path / "run", Objective("recall", 0.5))
    point = judge(run, chosen.limits(run.classes, "detection"))
    assert 50 <= point["CR"] < 55
    assert chosen.borrowed == ("never",)
    assert judge(run, 2.0)["OR"] == 0
    everything = judge(run, -1.0)
    counted = [box for box in run.ground_truth["annotations"] if not box["iscrowd"]]
    assert everything["OR"] > 60
    assert everything["OP"] < 100 * len(counted) / len(run.predictions["bbox"])


def test_the_tool_prints_what_they_give_and_writes_them(tmp_path):
    multilabel_run(tmp_path / "run", about={"data": "val.json"})
    multilabel_run(tmp_path / "other", seed=1, about={"data": "test.json"})
    arguments = [tmp_path / "run", "--objective", "precision=1.0", "--apply", tmp_path / "other"]
    status, out, err = call("thresholds", [*arguments, "--out", tmp_path / "thresholds.json"])
    assert status == 0, err
    blocks = out.split("\n\n")
    chosen = read_thresholds(tmp_path / "thresholds.json")
    told = [f"{tmp_path / 'run'} (chosen on this data, so the scores are too high)", str(tmp_path / "other")]
    assert [block.splitlines()[0] for block in blocks[:2]] == told
    assert blocks[0] == format_judgement(tmp_path / "run", chosen)
    assert blocks[0].splitlines()[1].split() == ["score", ">", "0.5", "chosen"]
    assert notes_on(chosen) == [line for line in out.splitlines() if line.startswith(("note:", "thresholds:"))]
    assert notes_on(chosen)[0].startswith("thresholds: 0.")
    assert out.endswith(f"wrote {tmp_path / 'thresholds.json'}\n")


def test_the_tool_says_what_is_wrong_in_one_line(tmp_path):
    multilabel_run(tmp_path / "run")
    for arguments, message in (
        ([tmp_path / "none", "--out", "x.json"], "none: no such folder"),
        ([tmp_path / "run", "--objective", "best", "--out", "x.json"], "--objective best: write f1"),
        ([tmp_path / "run", "--out", tmp_path / "run"], "run: is a folder; name a file, such as thresholds.json"),
        ([tmp_path / "run", "--out", tmp_path / "run" / "run.json"], "is not a readable file of thresholds"),
    ):
        status, _, err = call("thresholds", arguments)
        assert (status, err.count("\n")) == (2, 1)
        assert message in err
