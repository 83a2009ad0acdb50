import numpy as np
import pytest

from tresnet_downstream.evaluation.bootstrap import Interval
from tresnet_downstream.evaluation.report.parts import one_limit, opening_class, some_of, sort_key, text_of
from tresnet_downstream.evaluation.report.sections.comparison import verdict

NAN = float("nan")


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (12.345, "percent", "12.35"),
        (1234, "count", "1,234"),
        (0.5, "difference", "+0.50"),
        (-0.5, "difference", "\N{MINUS SIGN}0.50"),
        (-0.001, "difference", "0.00"),
        (0.12345, "threshold", "0.1235"),
        (float("inf"), "threshold", "never"),
        (Interval(-1.5, 2), "interval", "\N{MINUS SIGN}1.50 to 2.00"),
        (Interval(NAN, NAN), "interval", "\N{EN DASH}"),
        (None, "interval", "\N{EN DASH}"),
        (NAN, "percent", "\N{EN DASH}"),
        (None, "text", "\N{EN DASH}"),
        ("<b>", "text", "<b>"),
    ],
)
def test_values_are_formatted_for_reading(value, kind, text):
    assert text_of(value, kind) == text


def test_absent_values_have_an_empty_key_which_the_page_puts_last():
    assert [sort_key(value) for value in (None, NAN, Interval(NAN, NAN))] == ["", "", ""]
    assert [sort_key(value) for value in (Interval(2, 3), 5, "Äpfel")] == [2, 5, "äpfel"]
    assert np.isfinite(sort_key(float("inf")))


def test_long_lists_say_how_much_is_left_out():
    assert some_of(["a", "b"], 2) == "a, b"
    assert some_of([str(number) for number in range(1005)], 2) == "0, 1 and 1,003 more"


def test_a_page_opens_with_a_class_that_has_something_to_show():
    ap = np.array([1.0, 30, 20, 90, np.nan])
    assert opening_class(ap, np.array([1, 50, 40, 60, 0])) == 1
    assert opening_class(ap, np.array([60, 50, 40, 60, 0])) == 0
    assert opening_class(np.full(3, np.nan), np.zeros(3)) == 0


def test_one_limit_is_that_of_all_classes():
    assert one_limit(np.full(3, 0.2)) == 0.2
    assert np.isnan([one_limit(np.array([0.2, 0.3])), one_limit(np.array([]))]).all()


@pytest.mark.parametrize(
    ("difference", "interval", "words", "not_words"),
    [
        (
            2.0,
            Interval(0.5, 3),
            ["2.00 points above", "does not contain 0", "b is likely the better", "another training"],
            [],
        ),
        (-2.0, Interval(-3, -0.5), ["2.00 points below", "a is likely the better"], []),
        (2.0, Interval(-0.5, 4), ["contains 0", "do not show which of the two is better"], ["likely"]),
        (0.003, Interval(0.001, 0.02), ["the same as that of a", "to two decimals"], ["better", "interval"]),
        (2.0, None, ["nothing is known about other images"], ["better"]),
        (NAN, None, ["cannot be compared"], ["nan", "better"]),
    ],
)
def test_a_verdict_agrees_with_the_interval(difference, interval, words, not_words):
    said = verdict("mAP", ("a", "b"), difference, interval, 1200)
    for word in words:
        assert word in said
    for word in not_words:
        assert word not in said
    assert "1,200 images" in said or "cannot" in said
