"""Bootstrap scores, compared with scores of data in which the resampled images are repeated."""

import numpy as np
import pytest

from tresnet_downstream.evaluation import multilabel_scores
from tresnet_downstream.evaluation.bootstrap import (
    bootstrap_ap,
    bootstrap_operating_points,
    class_interval,
    difference_interval,
    interval,
    mean_over_classes,
    resample_weights,
)


def made(num_images=60, num_classes=5, seed=0, digits=2):
    """Few distinct scores, so that there are ties, some unknown targets, and a class without a positive."""
    draw = np.random.default_rng(seed)
    targets = (draw.random((num_images, num_classes)) < 0.25).astype(np.int8)
    scores = np.round(draw.random((num_images, num_classes)) * 0.7 + 0.3 * targets, digits).astype(np.float32)
    targets[:7, 1] = -1
    targets[:, 3] = 0
    return scores, targets


def test_resamples_have_as_many_images_as_there_are_and_follow_the_seed():
    weights = resample_weights(50, 20, seed=3)
    assert weights.shape == (20, 50)
    assert (weights.sum(1) == 50).all()
    assert (weights == resample_weights(50, 20, seed=3)).all()
    assert (weights != resample_weights(50, 20, seed=4)).any()


def test_average_precision_of_a_resample_is_that_of_repeated_images():
    scores, targets = made()
    weights = resample_weights(60, 130)  # more than a block
    ap = bootstrap_ap(scores, targets, weights)
    for row in (0, 64, 129):
        again = np.repeat(np.arange(60), weights[row])
        expected = multilabel_scores(scores[again], targets[again])
        np.testing.assert_allclose(ap[row], expected.ap, atol=1e-9)
        assert mean_over_classes(ap)[row] == pytest.approx(expected.mAP, abs=1e-9)
    assert np.isnan(ap[:, 3]).all()


@pytest.mark.parametrize("threshold", [0.5, np.array([0.2, 0.4, 0.6, 0.8, np.inf])])
def test_operating_points_of_a_resample_are_those_of_repeated_images(threshold):
    scores, targets = made()
    weights = resample_weights(60, 10)
    at_threshold, at_top_k = bootstrap_operating_points(scores, targets, threshold, 2, weights)
    for row in range(10):
        again = np.repeat(np.arange(60), weights[row])
        expected = multilabel_scores(scores[again], targets[again], threshold=threshold, top_k=2)
        for found, point in ((at_threshold, expected.at_threshold), (at_top_k, expected.at_top_k)):
            assert {name: values[row] for name, values in found.items()} == pytest.approx(vars(point), abs=1e-9)


def test_the_order_of_images_has_no_influence():
    scores, targets = made()
    order = np.random.default_rng(5).permutation(60)
    weights = resample_weights(60, 8)
    np.testing.assert_allclose(
        bootstrap_ap(scores, targets, weights),
        bootstrap_ap(scores[order], targets[order], weights[:, order]),
        atol=1e-9,
    )


def test_interval_reflects_the_resamples_at_the_score():
    samples = np.linspace(60, 70, 1001)  # quantiles 60.25 and 69.75
    assert interval(samples, 64) == pytest.approx((58.25, 67.75))
    assert interval(np.append(samples, np.nan), 64) == pytest.approx((58.25, 67.75))
    assert difference_interval(samples - 65, 0.5) == pytest.approx((-3.75, 5.75))


def test_interval_holds_the_score_and_stays_between_0_and_100():
    assert interval(np.array([90.0, 100, 100]), 99) == pytest.approx((98, 100), abs=1)
    assert interval(np.array([50.0, 51, 52]), 40).high == 40
    for nothing in ([np.nan, np.nan], [100.0, 100.0, 100.0]):
        assert np.isnan(interval(np.array(nothing), 100)).all()


def test_interval_of_a_class_is_that_of_percentiles_and_holds_its_score():
    samples = np.linspace(60, 70, 1001)
    assert class_interval(samples, 64) == pytest.approx((60.25, 69.75))
    assert class_interval(samples, 75).high == 75


@pytest.mark.slow
def test_intervals_hold_the_true_map_far_more_often_than_percentiles_do():
    """What docs/reports.md says of the two: classes with few positives shift the resamples upwards."""
    rates, num_images, tries = np.geomspace(0.01, 0.3, 12), 600, 80

    def draw(seed, count):
        generator = np.random.default_rng(seed)
        targets = (generator.random((count, 12)) < rates).astype(np.int8)
        return generator.normal(-3, 1.5, (count, 12)) + np.linspace(1.5, 4.5, 12) * targets, targets

    all_images = multilabel_scores(*draw(0, 200_000))
    truth, basic, percentile, of_class = all_images.mAP, 0, 0, np.zeros(12)
    for seed in range(1, tries + 1):
        scores, targets = draw(seed, num_images)
        found = multilabel_scores(scores, targets)
        of_classes = bootstrap_ap(scores, targets, resample_weights(num_images, 200, seed))
        samples = mean_over_classes(of_classes)
        low, high = interval(samples, found.mAP)
        basic += low <= truth <= high
        for c in range(12):
            lower, upper = class_interval(of_classes[:, c], found.ap[c])
            of_class[c] += lower <= all_images.ap[c] <= upper
        percentile += np.quantile(samples, 0.025) <= truth <= np.quantile(samples, 0.975)
    assert basic / tries > 0.83
    assert percentile / tries < basic / tries - 0.1
    assert (of_class / tries).min() > 0.8
