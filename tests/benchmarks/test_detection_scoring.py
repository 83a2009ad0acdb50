import sys

import numpy as np
import pytest
from detection_scoring import FASTER, OURS, REFERENCE, compare_scoring, main
from random_boxes import random_boxes

from tresnet_downstream.command_line import run
from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.detection_scores import HEADLINE

pytest.importorskip("pycocotools", reason="needs the detection set-up")


def test_every_way_gives_the_twelve_numbers_of_pycocotools():
    pytest.importorskip("faster_coco_eval", reason="needs the extra faster-coco-eval")
    compared = compare_scoring(30, 1500, repeats=1)
    assert (compared.num_images, compared.num_detections) == (30, 1500)
    assert list(compared.statistics) == [REFERENCE, FASTER, OURS]
    assert compared.statistics[REFERENCE].shape == (12,)
    assert 0.1 < compared.statistics[REFERENCE][0] < 0.9
    assert compared.difference(FASTER) < 1e-10
    assert compared.difference(OURS) < 1e-10
    text = compared.markdown()
    assert "1,500 boxes on 30 images" in text
    assert all(f"| {key} |" in text for key in HEADLINE)
    assert text.count("1.00 (1.00 to 1.00)") == 1


def test_a_difference_between_libraries_is_shown():
    pytest.importorskip("faster_coco_eval", reason="needs the extra faster-coco-eval")
    compared = compare_scoring(5, 100, repeats=1)
    compared.statistics[OURS] = compared.statistics[OURS] + np.eye(12)[3] * 1e-3
    assert compared.difference(OURS) == pytest.approx(1e-3)
    assert "1.0e-03" in compared.markdown()


def test_boxes_are_those_of_the_seed_and_lie_in_the_image():
    truth, detections = random_boxes(10, 5, seed=3, false_alarms=7)
    assert (truth, detections) == random_boxes(10, 5, seed=3, false_alarms=7)
    assert detections != random_boxes(10, 5, seed=4, false_alarms=7)[1]
    assert [annotation["id"] for annotation in truth["annotations"]] == list(range(1, len(truth["annotations"]) + 1))
    for annotation in truth["annotations"]:
        left, top, width, height = annotation["bbox"]
        assert left >= 0
        assert top >= 0
        assert left + width <= 640
        assert top + height <= 480
        assert annotation["area"] == width * height
    assert {found["category_id"] for found in detections} <= set(range(1, 6))


def test_bad_numbers_and_missing_packages_are_reported(monkeypatch):
    with pytest.raises(UserError, match="`num_images` 0"):
        compare_scoring(0, 10)
    with pytest.raises(UserError, match="`num_boxes` 3"):
        compare_scoring(10, 3)
    with pytest.raises(UserError, match="`repeats` 0"):
        compare_scoring(10, 30, repeats=0)
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(UserError, match=r"tresnet-downstream\[faster-coco-eval\]"):
        compare_scoring(10, 30)


def test_the_command_prints_both_tables(capsys):
    pytest.importorskip("faster_coco_eval", reason="needs the extra faster-coco-eval")
    assert run(main, ["--images", "5", "--boxes", "100", "--repeats", "1"]) == 0
    printed = capsys.readouterr().out
    assert "| this toolkit |" in printed
    assert "| AP50 |" in printed
