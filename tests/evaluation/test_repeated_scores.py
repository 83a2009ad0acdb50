"""Mean, standard deviation and Student's interval against tables and numpy."""

import math

import numpy as np
import pytest

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.repeated_scores import format_seeds, repeated_scores, students_t


@pytest.mark.parametrize(
    ("freedom", "value"),
    # The tables of the t distribution, at 0.975.
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (10, 2.228), (30, 2.042), (120, 1.980)],
)
def test_quantiles_are_those_of_the_tables(freedom, value):
    assert students_t(freedom) == pytest.approx(value, abs=5e-4)


def test_many_degrees_of_freedom_are_a_normal_distribution():
    assert students_t(100_000) == pytest.approx(1.959964, abs=1e-4)


def test_the_interval_holds_the_mean_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(5, 2, (4000, 4))
    inside = [low <= 5 <= high for _, _, low, high in map(repeated_scores, draws)]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.01)


def test_one_score_has_no_interval_and_none_is_an_error():
    assert repeated_scores([3.0])[0] == 3
    assert all(map(math.isnan, repeated_scores([3.0])[1:]))
    with pytest.raises(UserError, match="at least one score"):
        repeated_scores([])


def test_table():
    text = format_seeds("mAP", {0: 70.0, 1: 71.0, 2: 72.0})
    assert text.splitlines()[-1] == "95% t interval of the mean: 68.52 to 73.48 (3 seeds)"
    assert [line.split()[-1] for line in text.splitlines()[1:-1]][-2:] == ["71.00", "1.00"]
    assert "no interval" in format_seeds("mAP", {0: 70.0})
