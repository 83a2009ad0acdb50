import gzip
import importlib
import json
import time
import tracemalloc
from dataclasses import FrozenInstanceError, asdict
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from tresnet_downstream.evaluation import average_precision, multilabel_scores

GOLDEN = Path(__file__).parent.parent / "golden" / "multilabel_metrics.json.gz"
# The function of the same name hides the module from an ordinary import.
MODULE = importlib.import_module("tresnet_downstream.evaluation.multilabel_scores")
POINT = ("CP", "CR", "CF1_mean_of_per_class_f1", "CF1_of_mean_precision_recall", "OP", "OR", "OF1")
with gzip.open(GOLDEN, "rt", encoding="utf-8") as file:
    CASES = json.load(file)


def random_case(seed, shape, decimals=None, unknown=0.0, positive=0.2):
    """Scores (few distinct values where `decimals` is small) and targets that lean towards them."""
    generator = np.random.default_rng(seed)
    scores = generator.random(shape)
    targets = (generator.random(shape) < 2 * positive * scores).astype(np.int8)
    targets[generator.random(shape) < unknown] = -1
    return scores if decimals is None else scores.round(decimals), targets


# --- average precision of one class


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("decimals", [None, 2, 1, 0], ids=["no ties", "ties", "more ties", "two values"])
def test_average_precision_equals_scikit_learn(seed, decimals):
    scores, targets = random_case(seed, 300, decimals)
    assert average_precision(scores, targets) == pytest.approx(average_precision_score(targets, scores), abs=1e-9)


@pytest.mark.parametrize("decimals", [None, 1])
def test_average_precision_leaves_out_unknown_entries(decimals):
    scores, targets = random_case(0, 300, decimals, unknown=0.4)
    known = targets != -1
    expected = average_precision_score(targets[known], scores[known])
    assert average_precision(scores, targets) == pytest.approx(expected, abs=1e-9)


def test_average_precision_of_a_hand_computed_ranking():
    # Positives at ranks 1 and 3: precision 1/1 and 2/3.
    assert average_precision([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0]) == pytest.approx((1 + 2 / 3) / 2)


def test_average_precision_of_equal_scores_is_the_share_of_positives():
    assert average_precision([0.5] * 4, [1, 0, 0, 0]) == average_precision([0.5] * 4, [0, 0, 0, 1]) == 0.25


def test_average_precision_does_not_depend_on_the_order_of_the_images():
    scores, targets = random_case(1, 400, decimals=1)
    expected = average_precision(scores, targets)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(400)
        assert average_precision(scores[order], targets[order]) == expected


def test_average_precision_of_a_perfect_ranking_is_exactly_one():
    for positives in range(1, 50):
        targets = np.arange(60) < positives
        assert average_precision(-np.arange(60.0), targets) == 1.0


@pytest.mark.parametrize("targets", [[0, 0], [-1, -1], [0, -1], []])
def test_average_precision_without_a_positive_is_nan(targets):
    assert np.isnan(average_precision(np.zeros(len(targets)), targets))


# --- published numbers


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_scores_equal_the_published_code(case):
    found = multilabel_scores(case["scores"], case["targets"], threshold=case["threshold"])
    np.testing.assert_allclose(found.ap, case["ap"], rtol=0, atol=1e-6)
    assert found.mAP == pytest.approx(case["mAP"], abs=1e-6)
    for name in POINT:
        assert getattr(found.at_threshold, name) == pytest.approx(case[name], abs=1e-6), name


# --- both operating points, by hand

# Image 0 shows a and b, image 1 shows c, image 2 shows b; whether c is in image 2 is unknown.
SCORES = np.array([[0.9, 0.2, 0.8, 0.1], [0.6, 0.1, 0.3, 0.2], [0.1, 0.7, 0.9, 0.0]])
TARGETS = np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 1, -1, 0]])


def test_scores_at_the_threshold_equal_the_hand_computed():
    found = multilabel_scores(SCORES, TARGETS, list("abcd"), threshold=0.5)
    # Predicted and known: a in 0 (right) and 1, b in 2 (right), c in 0.
    np.testing.assert_allclose(found.precision, [50, 100, 0, np.nan])
    np.testing.assert_allclose(found.recall, [100, 50, 0, np.nan])
    np.testing.assert_allclose(found.f1, [200 / 3, 200 / 3, 0, np.nan])
    expected = dict(zip(POINT, (50, 50, 400 / 9, 50, 50, 50, 50), strict=True))
    assert asdict(found.at_threshold) == pytest.approx(expected)
    assert (found.num_images, found.threshold, found.absent) == (3, 0.5, ("d",))
    assert found.support.tolist() == [1, 2, 1, 0]
    assert found.unknown.tolist() == [0, 0, 1, 0]


def test_scores_at_top_k_equal_the_hand_computed():
    found = multilabel_scores(SCORES, TARGETS, list("abcd"), top_k=2)
    # Predicted: a, c in 0; a, c in 1; b, c in 2, where c is unknown. Right: a in 0, c in 1, b in 2.
    assert found.top_k == 2
    f1_of_means = 2 * (200 / 3) * (250 / 3) / 150
    expected = dict(zip(POINT, (200 / 3, 250 / 3, 200 / 3, f1_of_means, 60, 75, 200 / 3), strict=True))
    assert asdict(found.at_top_k) == pytest.approx(expected)


def test_top_k_takes_the_first_classes_among_equal_scores():
    scores = np.array([[0.5, 0.9, 0.5, 0.5]])
    assert multilabel_scores(scores, [[1, 1, 0, 0]], top_k=2).at_top_k.OF1 == 100
    assert multilabel_scores(scores, [[0, 1, 1, 0]], top_k=2).at_top_k.OF1 == 50


@pytest.mark.parametrize("k", [1, 3, 7, 8])
def test_top_k_marks_what_a_stable_sort_ranks_first(k):
    scores, targets = random_case(2, (100, 8), decimals=1)
    ranks = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1)
    hits = ((ranks < k) & (targets == 1)).sum()
    found = asdict(multilabel_scores(scores, targets, top_k=k).at_top_k)
    assert found["OP"] == pytest.approx(100 * hits / (100 * k))
    assert found["OR"] == pytest.approx(100 * hits / targets.sum())


def test_top_k_of_more_than_all_classes_predicts_all():
    found = asdict(multilabel_scores(SCORES, TARGETS, top_k=9).at_top_k)
    assert (found["CR"], found["OR"]) == (100, 100)
    assert found["OP"] == pytest.approx(100 * 4 / 11)


def test_an_unknown_entry_among_the_top_k_is_not_replaced():
    found = multilabel_scores([[0.9, 0.8, 0.1]], [[-1, 0, 1]], top_k=2).at_top_k
    assert (found.OP, found.OR) == (0, 0)


def test_a_score_at_the_threshold_is_not_predicted():
    assert multilabel_scores([[0.5]], [[1]], threshold=0.5).at_threshold.OR == 0
    assert multilabel_scores([[0.5]], [[1]], threshold=0.49).at_threshold.OR == 100


def test_precision_is_zero_where_nothing_is_predicted():
    found = multilabel_scores([[0.1], [0.2]], [[1], [0]])
    assert (found.precision[0], found.recall[0], found.f1[0]) == (0, 0, 0)
    assert set(asdict(found.at_threshold).values()) == {0.0}


# --- classes with no positive, unknown entries


def test_an_absent_class_is_left_out_of_the_means_and_named():
    scores, targets = random_case(3, (50, 4))
    targets[:, 2] = 0
    others = [0, 1, 3]
    found = multilabel_scores(scores, targets, ["cat", "dog", "emu", "fox"])
    expected = multilabel_scores(scores[:, others], targets[:, others])
    assert found.absent == ("emu",)
    assert np.isnan([found.ap[2], found.precision[2], found.recall[2], found.f1[2]]).all()
    assert found.mAP == pytest.approx(expected.mAP)
    for name in POINT[:4]:
        assert getattr(found.at_threshold, name) == pytest.approx(getattr(expected.at_threshold, name))
    # Its false alarms are errors all the same.
    assert found.at_threshold.OP < expected.at_threshold.OP


def test_a_wholly_unknown_class_changes_no_mean():
    scores, targets = random_case(4, (50, 4))
    targets[:, 1] = -1
    others = [0, 2, 3]
    found = multilabel_scores(scores, targets)
    expected = multilabel_scores(scores[:, others], targets[:, others])
    assert found.absent == ("1",)
    assert (found.support[1], found.unknown[1]) == (0, 50)
    assert found.mAP == pytest.approx(expected.mAP)
    assert asdict(found.at_threshold) == pytest.approx(asdict(expected.at_threshold))


def test_scores_of_unknown_entries_do_not_matter_to_map_and_threshold():
    scores, targets = random_case(5, (80, 6), unknown=0.5)
    moved = np.where(targets == -1, 1 - scores, scores)
    found, expected = multilabel_scores(moved, targets), multilabel_scores(scores, targets)
    assert found.mAP == expected.mAP
    assert found.at_threshold == expected.at_threshold


def test_no_positive_at_all_gives_nan_without_a_warning(recwarn):
    found = multilabel_scores([[0.9, 0.1]], [[0, -1]])
    assert np.isnan([found.mAP, *asdict(found.at_threshold).values(), *asdict(found.at_top_k).values()]).all()
    assert found.absent == ("0", "1")
    assert not recwarn.list


# --- inputs


def test_scores_do_not_depend_on_the_order_of_the_images():
    scores, targets = random_case(6, (200, 10), decimals=1, unknown=0.1)
    order = np.random.default_rng(0).permutation(200)
    found, expected = multilabel_scores(scores[order], targets[order]), multilabel_scores(scores, targets)
    np.testing.assert_array_equal(found.ap, expected.ap)
    assert (found.at_threshold, found.at_top_k) == (expected.at_threshold, expected.at_top_k)


def test_the_type_of_the_targets_does_not_matter():
    scores, targets = random_case(7, (60, 5))
    expected = multilabel_scores(scores, targets)
    for kind in (np.bool_, np.uint8, np.int64, np.float32):
        assert multilabel_scores(scores, targets.astype(kind)).at_threshold == expected.at_threshold
        assert multilabel_scores(scores, targets.astype(kind)).mAP == expected.mAP


def test_any_monotone_score_gives_the_same_map():
    scores, targets = random_case(8, (60, 5))
    logits = np.log(scores / (1 - scores))
    assert multilabel_scores(logits, targets).mAP == multilabel_scores(scores, targets).mAP
    at_zero = multilabel_scores(logits, targets, threshold=0).at_threshold
    assert at_zero == multilabel_scores(scores, targets, threshold=0.5).at_threshold


def test_the_result_does_not_depend_on_the_block_size(monkeypatch):
    scores, targets = random_case(9, (57, 37), unknown=0.1)
    expected = multilabel_scores(scores, targets)
    monkeypatch.setattr(MODULE, "_BLOCK_ENTRIES", 100)
    monkeypatch.setattr(MODULE, "_BLOCK_ENTRIES_OF_COLUMNS", 57)  # 16 columns, the least
    monkeypatch.setattr(MODULE, "_ROWS_TURNED", 5)
    found = multilabel_scores(scores, targets)
    np.testing.assert_array_equal(found.ap, expected.ap)
    assert (found.at_threshold, found.at_top_k) == (expected.at_threshold, expected.at_top_k)


def test_a_memory_mapped_input_is_scored_alike(tmp_path):
    scores, targets = random_case(10, (60, 5))
    np.save(tmp_path / "scores.npy", scores)
    mapped = np.load(tmp_path / "scores.npy", mmap_mode="r")
    assert multilabel_scores(mapped, targets).mAP == multilabel_scores(scores, targets).mAP


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_refused_with_its_row(bad, monkeypatch):
    monkeypatch.setattr(MODULE, "_BLOCK_ENTRIES", 8)
    scores, targets = random_case(11, (20, 4))
    scores[[13, 17], [2, 0]] = bad
    with pytest.raises(ValueError, match=rf"finite, got {bad} in row 13, column 2"):
        multilabel_scores(scores, targets)


def test_a_target_of_another_value_is_refused_with_its_row():
    scores, targets = random_case(12, (20, 4))
    targets[5, 1] = 2
    with pytest.raises(ValueError, match="got 2 in row 5, column 1"):
        multilabel_scores(scores, targets)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0.1, 0.2]], [[1]]), r"got \(1, 2\) and \(1, 1\)"),
        (([0.1, 0.2], [1, 0]), r"\(images, classes\), got \(2,\) and \(2,\)"),
        ((np.zeros((0, 3)), np.zeros((0, 3))), r"at least one image and one class, got shape \(0, 3\)"),
        (([[0.1, 0.2]], [[1, 0]], ["a"]), "2 columns of scores, got 1"),
        (([["x"]], [[1]]), "scores must be real numbers"),
        (([[0.1]], [[1]], None, 0.5, 0), "top_k must be at least 1, got 0"),
    ],
)
def test_errors_name_the_received_and_the_expected_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        multilabel_scores(*arguments)


def test_the_result_is_frozen_and_counts_the_classes_by_default():
    found = multilabel_scores(SCORES, TARGETS)
    assert found.classes == ("0", "1", "2", "3")
    with pytest.raises(FrozenInstanceError):
        found.mAP = 0.0


def test_a_validation_set_is_scored_fast_and_in_little_memory():
    scores, targets = random_case(13, (40_137, 80), positive=0.04)
    scores = scores.astype(np.float32)
    start = time.perf_counter()
    multilabel_scores(scores, targets)
    # 0.15 s on two cores; the bound leaves room for a busy machine.
    assert time.perf_counter() - start < 2
    tracemalloc.start()
    multilabel_scores(scores, targets)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # One copy of all the scores in float64 would take 26 MB.
    assert peak < 16e6


def test_a_score_that_is_above_a_threshold_by_less_than_it_can_resolve_counts():
    """float32 has no 0.1 but 0.10000000149: that is above, whether one threshold is given or one for each class."""
    scores, targets = np.full((4, 2), 0.1, np.float32), np.ones((4, 2), int)
    for threshold in (0.1, [0.1, 0.1]):
        assert multilabel_scores(scores, targets, threshold=threshold).at_threshold.OR == 100


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_thresholds_part_scores_as_exact_numbers_do(dtype):
    scores = np.random.default_rng(0).random((60, 9)).astype(dtype)
    near = scores.astype(np.float64)[:9].diagonal()  # at scores, and a little beside them
    for limits in (near, near * (1 + 1e-12), near * (1 - 1e-12), np.full(9, np.inf), np.full(9, 0.1)):
        expected = 100 * (scores.astype(np.float64) > limits).mean(0)
        found = multilabel_scores(scores, np.ones((60, 9), int), threshold=limits)
        np.testing.assert_allclose(found.recall, expected, atol=1e-9)
