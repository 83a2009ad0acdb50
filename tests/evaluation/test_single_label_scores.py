"""Single-label scores, compared with scikit-learn's."""

import sys

import numpy as np
import pytest

from tresnet_downstream.evaluation.single_label_scores import Confusion, single_label_scores


def random_case(num_images=500, num_classes=7, seed=0):
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, num_classes, num_images)
    logits = draw.normal(size=(num_images, num_classes)) + 1.5 * np.eye(num_classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return probabilities.astype(np.float32), labels


@pytest.mark.parametrize("block", [None, 50])
def test_equal_scikit_learns(monkeypatch, block):
    metrics = pytest.importorskip("sklearn.metrics", reason="needs the extra digits")
    if block:
        monkeypatch.setattr(sys.modules[single_label_scores.__module__], "_BLOCK_ENTRIES", block)
    probabilities, labels = random_case()
    scores = single_label_scores(probabilities, labels)
    predicted = probabilities.argmax(1)
    assert scores.top1 == pytest.approx(100 * metrics.accuracy_score(labels, predicted))
    assert scores.top5 == pytest.approx(100 * metrics.top_k_accuracy_score(labels, probabilities, k=5))
    assert scores.mean_per_class == pytest.approx(100 * metrics.balanced_accuracy_score(labels, predicted))
    assert scores.log_loss == pytest.approx(metrics.log_loss(labels, probabilities.astype(np.float64)), rel=1e-5)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(labels, predicted)
    assert scores.precision == pytest.approx(100 * precision)
    assert scores.recall == pytest.approx(100 * recall)
    assert scores.f1 == pytest.approx(100 * f1)
    assert scores.support.tolist() == support.tolist()
    matrix = metrics.confusion_matrix(labels, predicted)
    assert all(matrix[each.label, each.predicted] == each.count for each in scores.confusions)
    assert sum(each.count for each in scores.confusions) == matrix.sum() - matrix.trace()
    assert [each.count for each in scores.confusions] == sorted((e.count for e in scores.confusions), reverse=True)


def test_first_of_equal_probabilities_wins_in_top_1_and_top_5():
    even = np.full((1, 8), 1 / 8)
    assert [single_label_scores(even, [label]).top1 for label in (0, 1)] == [100, 0]
    assert [single_label_scores(even, [label]).top5 for label in (4, 5)] == [100, 0]


def test_calibration_error_is_the_gap_between_confidence_and_accuracy():
    probabilities = np.tile([0.9, 0.1], (10, 1))
    assert single_label_scores(probabilities, [0] * 9 + [1]).calibration_error == pytest.approx(0)
    assert single_label_scores(probabilities, [0] * 5 + [1] * 5).calibration_error == pytest.approx(40)


def test_classes_without_images_have_no_recall_and_no_part_in_the_mean():
    scores = single_label_scores([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]], [0, 0], ["a", "b", "c"])
    assert scores.mean_per_class == scores.top1 == 50
    assert np.isnan(scores.recall[1:]).all()
    assert np.isnan(scores.f1[1:]).all()
    assert scores.precision[1] == 0
    assert np.isnan(scores.precision[2])
    assert scores.confusions == (Confusion(0, 1, 1),)
    assert scores.predicted.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("probabilities", "labels", "words"),
    [
        ([[0.5, 0.5]], [0, 1], "give"),
        (np.zeros((0, 2)), [], "give"),
        ([[0.5, 0.5]], [2], "from 0 to 1"),
        ([[0.5, 0.5]], [-1], "from 0 to 1"),
        ([[0.5, 0.5]], [0.0], "whole numbers"),
        ([[np.nan, 0.5]], [0], "NaN"),
    ],
)
def test_wrong_input_is_refused(probabilities, labels, words):
    with pytest.raises(ValueError, match=words):
        single_label_scores(probabilities, labels)
