import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.calibration import platt_scaling, reliability


def test_bins_are_those_of_scikit_learn():
    draw = np.random.default_rng(0)
    probabilities = draw.random((400, 3)).astype(np.float32)
    targets = (draw.random((400, 3)) < probabilities**2).astype(np.int8)
    found = reliability(probabilities, targets, bins=10)
    frequency, probability = calibration_curve(targets.ravel(), probabilities.ravel(), n_bins=10)
    np.testing.assert_allclose(found.frequency, frequency, atol=1e-12)
    np.testing.assert_allclose(found.probability, probability, atol=1e-6)
    assert found.count.sum() == 1200
    by_hand = (found.count * abs(frequency - probability)).sum() / 1200
    assert found.error == pytest.approx(100 * by_hand, abs=1e-5)
    assert found.error > 10


def test_class_wise_error_does_not_let_classes_make_up_for_each_other():
    probabilities = np.full((100, 2), 0.5)
    targets = np.tile([1, 0], (100, 1))
    found = reliability(probabilities, targets)
    assert found.error == pytest.approx(0)
    assert found.class_error == pytest.approx(50)


def test_ends_belong_to_bins_and_unknown_entries_to_none():
    found = reliability(np.array([[0.0, 1.0, 0.5]]), np.array([[0, 1, -1]]), bins=4)
    assert found.count.tolist() == [1, 0, 0, 1]
    assert found.error == 0
    assert np.isnan(found.frequency[1])


def test_classes_of_which_nothing_is_known_have_no_part():
    found = reliability(np.full((10, 2), 0.5), np.tile([1, -1], (10, 1)))
    assert found.class_error == pytest.approx(50)
    nothing = reliability(np.full((10, 2), 0.5), np.full((10, 2), -1))
    assert np.isnan([nothing.error, nothing.class_error]).all()


def test_platt_scaling_is_logistic_regression_on_the_logits():
    from sklearn.linear_model import LogisticRegression

    draw = np.random.default_rng(1)
    logits = draw.normal(-1, 2, (500, 4))
    targets = (draw.random((500, 4)) < 1 / (1 + np.exp(-(0.6 * logits - 0.4)))).astype(np.int8)
    targets[draw.random((500, 4)) < 0.1] = -1
    scale, shift = platt_scaling(1 / (1 + np.exp(-logits)), targets)
    known = targets != -1
    expected = LogisticRegression(C=1e12, tol=1e-12, max_iter=10000).fit(logits[known][:, None], targets[known])
    assert scale == pytest.approx(expected.coef_[0, 0], abs=1e-4)
    assert shift == pytest.approx(expected.intercept_[0], abs=1e-4)
    after = 1 / (1 + np.exp(-(scale * logits + shift)))
    assert reliability(after, targets).error < reliability(1 / (1 + np.exp(-logits)), targets).error


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        ([[1, 1]], "needs positives and negatives"),
        ([[-1, -1]], "needs positives and negatives"),
        ([[0, 1]], "separate positives from negatives"),
    ],
)
def test_entries_without_a_best_scaling_are_refused(targets, words):
    with pytest.raises(UserError, match=words):
        platt_scaling(np.array([[0.2, 0.8]]), np.array(targets))
