"""The report of joint models: each part equals the report of its own task."""

import csv
import json

import pytest

pytest.importorskip("pycocotools", reason="needs the detection set-up")

from evaluation.small_runs import detection_run, joint_run, multilabel_run

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation import write_report
from tresnet_downstream.evaluation.outcomes import JointRun
from tresnet_downstream.evaluation.runs import read_outcome


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("joint")
    joint_run(folder / "run")
    write_report([folder / "run"], folder / "report", resamples=100)
    return folder


def scores(folder):
    return json.loads((folder / "scores.json").read_text())


def test_the_scores_of_each_part_are_those_of_its_own_report(folder):
    both = scores(folder / "report")
    for part in ("labels", "boxes"):
        write_report([folder / "run" / part], folder / part, resamples=100, names=["run"])
        alone = scores(folder / part)
        assert both[part] == {key: alone[key] for key in both[part]}
    with (folder / "report" / "per_class.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["part"] for row in rows} == {"labels", "boxes"}
    assert all((row["kind"] == "") == (row["part"] == "labels") for row in rows)


def test_plots_and_pictures_of_the_parts_have_names_of_their_own(folder):
    names = {path.name for path in (folder / "report" / "plots").iterdir()}
    assert {"labels_precision_recall.svg", "boxes_precision_recall.svg"} <= names
    text = (folder / "report" / "report.md").read_text()
    assert "## Labels: Scores" in text
    assert "## Boxes: Scores" in text
    assert all(f"plots/{name}" in text for name in names)


def test_a_second_report_leaves_no_plots_of_the_first(folder, tmp_path):
    write_report([folder / "run"], tmp_path, resamples=100)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    write_report([folder / "run"], tmp_path, resamples=100)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_two_networks_are_compared(folder, tmp_path):
    joint_run(folder / "other", seed=1)
    write_report([folder / "run", folder / "other"], tmp_path, resamples=100)
    assert len(scores(tmp_path)["labels"]["differences"]) > 0
    assert len(scores(tmp_path)["boxes"]["differences"]) > 0


def test_parts_of_different_checkpoints_are_refused(tmp_path):
    multilabel_run(tmp_path / "labels", about={"checkpoint_sha256": "a"})
    detection_run(tmp_path / "boxes", about={"checkpoint_sha256": "b"})
    with pytest.raises(UserError, match="different checkpoints"):
        read_outcome(tmp_path)


def test_parts_that_are_exchanged_are_refused(tmp_path):
    multilabel_run(tmp_path / "boxes")
    detection_run(tmp_path / "labels")
    with pytest.raises(UserError, match="`labels` must hold"):
        read_outcome(tmp_path)


def test_a_folder_without_one_of_the_parts_is_no_run(folder, tmp_path):
    assert isinstance(read_outcome(folder / "run"), JointRun)
    multilabel_run(tmp_path / "labels")
    with pytest.raises(UserError, match=r"no run\.json"):
        read_outcome(tmp_path)


def test_runs_of_other_tasks_cannot_be_compared_with_it(folder, tmp_path):
    with pytest.raises(UserError, match="labels and boxes"):
        write_report([folder / "run", folder / "run" / "labels"], tmp_path, resamples=100)
