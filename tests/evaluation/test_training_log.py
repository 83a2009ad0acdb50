"""Logs of trainings, as MMEngine writes them."""

import json

import pytest

from tresnet_downstream.evaluation.training_log import read_training_log


def write_log(folder, name, *records, end=""):
    file = folder / name / "vis_data" / "scalars.json"
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(record) + "\n" for record in records) + end)


def step(number, epoch, loss, **more):
    return {"loss": loss, "lr": 0.1 / number, "epoch": epoch, "iter": number, "step": number, **more}


def test_losses_stand_at_fractions_of_an_epoch_and_scores_at_epochs(tmp_path):
    scores = {"raw/mAP": 50.0, "averaged/mAP": 60.0, "mAP": 60.0, "time": 0.3, "step": 1}
    write_log(tmp_path, "a", step(5, 1, 9.0), step(10, 1, 8.0), scores, step(15, 2, 7.0), step(20, 2, 6.0))
    log = read_training_log(tmp_path)
    assert log.loss == [(0.5, 9.0), (1.0, 8.0), (1.5, 7.0), (2.0, 6.0)]
    assert log.learning_rate[-1] == (2.0, 0.005)
    assert log.scores == {"raw/mAP": [(1, 50.0)], "averaged/mAP": [(1, 60.0)]}


def test_scores_of_detectors_are_in_percent(tmp_path):
    write_log(tmp_path, "a", step(10, 1, 1.0), {"coco/bbox_mAP": 0.5, "coco/bbox_mAP_50": 0.7, "step": 1})
    assert read_training_log(tmp_path).scores == {"coco/bbox_mAP": [(1, 50.0)]}


def test_scores_of_a_validation_by_steps_stand_at_their_step(tmp_path):
    records = [step(10, 1, 1.0), {"mAP": 40.0, "step": 10}, step(20, 2, 1.0), {"mAP": 45.0, "step": 15}]
    write_log(tmp_path, "a", *records)
    assert read_training_log(tmp_path).scores == {"mAP": [(1.0, 40.0), (1.5, 45.0)]}


def test_a_resumed_training_continues_the_log_from_its_first_step(tmp_path):
    records = [step(10, 1, 5.0), {"mAP": 1.0, "step": 1}, step(20, 2, 4.0), step(25, 3, 9.0)]
    write_log(tmp_path, "20260101_000000", *records)
    write_log(tmp_path, "20260102_000000", step(20, 2, 4.5), {"mAP": 2.0, "step": 2})
    log = read_training_log(tmp_path)
    assert [loss for _, loss in log.loss] == [5.0, 4.5]
    assert log.scores == {"mAP": [(1, 1.0), (2, 2.0)]}


@pytest.mark.parametrize("end", ['{"loss": 1.0, "st', "[1, 2]\n", '{"loss": NaN, "step": 30}\n', "1e9\n", "\x00\n"])
def test_lines_that_are_no_records_are_left_out(tmp_path, end):
    write_log(tmp_path, "a", step(10, 1, 5.0), end=end)
    assert read_training_log(tmp_path).loss == [(1.0, 5.0)]


def test_a_huge_number_is_left_out(tmp_path):
    write_log(tmp_path, "a", step(10, 1, 5.0), end='{"loss": 1' + "0" * 400 + ', "step": 20}\n')
    assert read_training_log(tmp_path).loss == [(1.0, 5.0)]


def test_a_folder_without_a_log_has_none(tmp_path):
    assert read_training_log(tmp_path) is None
    write_log(tmp_path, "a", {"time": 1.0, "step": 1})
    assert read_training_log(tmp_path) is None
