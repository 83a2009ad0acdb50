"""Sampling by class frequencies: the formulas, their stochastic rounding, and the order of an epoch."""

import numpy as np
import pytest
from mmengine.dataset import BaseDataset, ClassBalancedDataset

from tresnet_downstream.classification import EpochSampler
from tresnet_downstream.classification.class_labels import ClassLabels
from tresnet_downstream.classification.sampling import balanced_factors, repeat_factors, visits_by
from tresnet_downstream.errors import UserError

# 1,000 images of four classes: 700 of a, 250 of b, 40 of c and 10 of d, and half of d's show a too.
ROWS = [[0]] * 700 + [[1]] * 250 + [[2]] * 40 + [[3]] * 5 + [[0, 3]] * 5


def labels_of(rows, classes=("a", "b", "c", "d")):
    indices = np.array([c for row in rows for c in row], np.int64)
    images = np.bincount(indices, minlength=len(classes))
    return ClassLabels(classes, np.cumsum([0, *map(len, rows)]), indices, np.zeros(len(classes), np.int64), images)


class Images:
    """A data set of the user's, which tells its labels as MMEngine's do."""

    classes = ("a", "b", "c", "d")

    def __init__(self, rows=ROWS):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def get_cat_ids(self, index):
        return self.rows[index]


def epoch_of(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)


def counts_of(sampler, epochs, images=1000):
    return np.array([np.bincount([i for _, i in epoch_of(sampler, e)], minlength=images) for e in range(epochs)])


def test_repeat_factors_equal_mmdetections():
    class Theirs(BaseDataset):
        def load_data_list(self):
            return [{"row": row} for row in ROWS]

        def get_cat_ids(self, idx):
            return ROWS[idx]

    theirs = ClassBalancedDataset(Theirs(ann_file=""), 0.1)
    expected = theirs._get_repeat_factors(theirs.dataset, 0.1)
    np.testing.assert_allclose(repeat_factors(labels_of(ROWS), 0.1), expected, rtol=1e-8)
    assert expected[-1] == pytest.approx(np.sqrt(0.1 / 0.01))  # d's, which also shows the frequent a


def test_integer_repeat_factors_are_visited_exactly_as_often():
    rows = [[0]] * 95 + [[1]] * 4 + [[2]] * 1  # sqrt(0.16 / f): 1, 2 and 4
    sampler = EpochSampler(Images(rows), sampling="repeat_factor", repeat_threshold=0.16)
    assert len(sampler) == 95 + 8 + 4
    assert (counts_of(sampler, 20, 100) == [1] * 95 + [2] * 4 + [4]).all()
    # Also beside an image whose factor is no whole number: sqrt(0.12 / f) is 1, 1, 2 and 3.46.
    rows = [[0]] * 84 + [[1]] * 12 + [[2]] * 3 + [[3]]
    visits = visits_by("repeat_factor", labels_of(rows), 0.12)
    drawn = np.array([visits.draw(np.random.default_rng(seed)) for seed in range(50)])
    assert (drawn[:, :99] == [1] * 96 + [2] * 3).all()
    assert set(drawn[:, 99]) == {3, 4}


@pytest.mark.parametrize("sampling", ["repeat_factor", "class_balanced"])
def test_draws_over_many_epochs_are_the_formulas_within_binomial_error(sampling):
    epochs = 400
    sampler = EpochSampler(Images(), seed=5, sampling=sampling, repeat_threshold=0.1)
    visits = sampler.visits
    factors = visits.factors
    if sampling == "repeat_factor":
        np.testing.assert_array_equal(factors, repeat_factors(labels_of(ROWS), 0.1))
    counts = np.array([visits.draw(np.random.default_rng(e)) for e in range(epochs)])
    assert np.isin(counts - np.floor(factors), (0, 1)).all()
    assert np.isin(counts.sum(1), (visits.length - 1, visits.length)).all()
    part = factors - np.floor(factors)
    error = np.sqrt(part * (1 - part) / epochs)
    # 5 standard errors: of 1,000 images, less than one in a thousand tries has one outside.
    assert (abs(counts.mean(0) - factors) <= 5 * error + 1e-12).all()
    # And what the sampler gives: as many pairs as it says, in every epoch.
    given = counts_of(sampler, 100)
    assert (given.sum(1) == len(sampler)).all()
    assert abs(given.mean(0) - factors).max() < 5 * np.sqrt(0.25 / 100) + 1 / 100


def test_class_balanced_sampling_draws_every_class_as_often():
    labels = labels_of(ROWS + [[]] * 30)
    factors = balanced_factors(labels)
    assert factors.sum() == pytest.approx(1030)
    assert (factors[1000:] == 1).all()  # images without a label come as before
    # The share of the draws that each class is drawn by is the same; images of two classes are drawn by both.
    images = np.repeat(np.arange(1030), np.diff(labels.indptr))
    by_class = np.bincount(labels.indices, 1 / np.bincount(labels.indices)[labels.indices])
    np.testing.assert_allclose(by_class, 1)
    assert factors[images[labels.indices == 1]].sum() == pytest.approx(1000 / 4)


def test_visits_of_one_image_have_draws_of_their_own_and_no_two_epochs_share_them():
    sampler = EpochSampler(Images(), sampling="repeat_factor", repeat_threshold=0.1)
    pairs = [pair for epoch in range(4) for pair in epoch_of(sampler, epoch)]
    padding = [epoch_of(sampler, epoch)[-1] for epoch in range(4)]
    twice = len(pairs) - len(set(pairs))
    assert twice <= len(padding)  # where an epoch is one draw short, its first pair comes again
    assert {epoch for epoch, _ in epoch_of(sampler, 3)} == {12, 13, 14, 15}  # up to 4 visits in an epoch


def test_the_order_is_a_function_of_seed_and_epoch():
    first, second = (EpochSampler(Images(), seed=3, sampling="repeat_factor") for _ in range(2))
    assert epoch_of(first, 2) == epoch_of(second, 2)
    epoch_of(first, 0)
    assert epoch_of(first, 2) == epoch_of(second, 2)
    assert epoch_of(first, 2) != epoch_of(EpochSampler(Images(), seed=4, sampling="repeat_factor"), 2)
    counts = counts_of(first, 2)
    assert (counts[0] != counts[1]).any()


@pytest.mark.parametrize("sampling", ["repeat_factor", "class_balanced"])
def test_each_process_takes_every_second_sample_of_the_order_of_one(sampling, monkeypatch):
    whole = EpochSampler(Images(), sampling=sampling)
    order = epoch_of(whole, 1)
    for rank in range(2):
        monkeypatch.setattr("tresnet_downstream.classification.datasets.get_dist_info", lambda rank=rank: (rank, 2))
        part = EpochSampler(Images(), sampling=sampling)
        given = epoch_of(part, 1)
        assert len(part) == len(given) == -(-len(order) // 2)
        assert given == [*order, order[0]][rank : 2 * len(part) : 2]


def test_without_sampling_the_order_is_as_before():
    seeds = np.random.SeedSequence([7, 2], spawn_key=(1,))
    expected = np.random.default_rng(seeds).permutation(9)
    assert epoch_of(EpochSampler(range(9), seed=7), 2) == [(2, index) for index in expected.tolist()]


def test_the_printed_line_has_the_number_of_draws_and_the_rarest_class():
    visits = visits_by("repeat_factor", labels_of(ROWS), None)
    threshold = np.median([705, 250, 40, 10]) / 1000
    assert f"repeat_threshold {threshold:.3g} (the median frequency of the classes)" in visits.notice
    assert f"{visits.length:,} draws of 1,000 images" in visits.notice
    assert f"the rarest class 'd' {10 * np.sqrt(threshold / 0.01):,.0f} times, from 10 images" in visits.notice


@pytest.mark.parametrize(
    ("sampling", "threshold", "message"),
    [
        ("repeat_factors", None, "sampling='repeat_factors': choose 'repeat_factor', 'class_balanced' or None"),
        ("repeat_factor", 0, "repeat_threshold=0: give a share"),
        ("repeat_factor", 1.5, "repeat_threshold=1.5: give a share"),
        ("repeat_factor", float("nan"), "repeat_threshold=nan: give a share"),
    ],
)
def test_wrong_values_are_refused_in_one_line(sampling, threshold, message):
    with pytest.raises(UserError, match=message):
        EpochSampler(Images(), sampling=sampling, repeat_threshold=threshold)


def test_data_without_labels_is_refused_in_one_line():
    with pytest.raises(UserError, match=r"sampling: range does not provide the labels .* get_cat_ids\(index\)"):
        EpochSampler(range(4), sampling="class_balanced")
    with pytest.raises(UserError, match="get_cat_ids returns 7, but there are 4 classes"):
        EpochSampler(Images([[0], [7]]), sampling="class_balanced")
    with pytest.raises(UserError, match="no image shows a class"):
        EpochSampler(Images([[], []]), sampling="repeat_factor")
