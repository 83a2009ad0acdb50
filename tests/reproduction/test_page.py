"""The page of results equals the committed records, and verdicts follow from the intervals."""

from pathlib import Path

import pytest

from tresnet_downstream.reproduction.claims import CLAIMS
from tresnet_downstream.reproduction.page import page, read_records, signed_difference, verdict
from tresnet_downstream.reproduction.records import Comparison, Record, Scored, Value
from tresnet_downstream.reproduction.stages import STAGES

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_equals_the_page_of_the_records():
    assert (DOCS / "results.md").read_text(encoding="utf-8") == page(read_records(DOCS / "results"))


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        ([(0.1, 2.0)], "agrees"),
        ([(0.1, 2.0), (-0.1, 1.0)], "not shown"),
        ([(-2.0, -0.1), (-3.0, -1.0)], "**contradicts**"),
        ([(-2.0, -0.1), (0.1, 2.0)], "not shown"),
        ([(None, None)], "not shown"),
    ],
)
def test_a_verdict_needs_the_interval_of_every_seed_on_one_side_of_0(intervals, expected):
    assert verdict([Value(0.0, *each) for each in intervals]) == expected


def _record(*comparisons):
    training = Scored("tresnet train", "abc", 1.0, {"top1": Value(30.0, 29.0, 31.0)}, "0" * 64)
    names = dict.fromkeys(STAGES["pretraining"].trainings, training)
    return Record("pretraining", 10_000, {"processor": "P", "cores": "2", "threads": "1"}, names, comparisons)


def test_swapping_two_runs_changes_the_sign_of_their_difference():
    record = _record(Comparison("tresnet", "resnet", "top1", Value(2.0, 1.0, 3.5)))
    assert signed_difference(record, "tresnet", "resnet", "top1") == (2.0, 1.0, 3.5)
    assert signed_difference(record, "resnet", "tresnet", "top1") == (-2.0, -3.5, -1.0)


def test_a_contradiction_of_the_paper_is_in_the_table():
    record = _record(Comparison("tresnet", "resnet", "top1", Value(-2.0, -3.5, -1.0)))
    (row,) = [line for line in page({"pretraining": record}).splitlines() if line.startswith("| more accurate")]
    assert "-2.0 (-3.5 to -1.0) top-1" in row
    assert "**contradicts**" in row


def test_every_claim_names_a_stage_with_its_comparisons():
    for claim in CLAIMS:
        if claim.in_small is not None:
            stage = STAGES[claim.in_small.stage]
            pairs = {(run, reference) for reference, others in stage.comparisons for run in others}
            for higher, lower in claim.in_small.pairs:
                assert (higher, lower) in pairs or (lower, higher) in pairs
