import numpy as np

from tresnet_downstream.evaluation.mistakes import Mistake, confusions, worst_mistakes

PROBABILITIES = np.array([[0.9, 0.8, 0.1], [0.2, 0.7, 0.6], [0.95, 0.1, 0.3], [0.4, 0.9, 0.2]])
TARGETS = np.array([[0, 1, 1], [1, 0, 1], [0, 1, -1], [1, -1, 0]])
LIMITS = np.full(3, 0.5)
IMAGES = ("b", "c", "d", "a")


def test_mistakes_come_worst_first_and_unknown_entries_are_none():
    wrong, missed = worst_mistakes(PROBABILITIES, TARGETS, LIMITS, IMAGES)
    assert wrong == [Mistake(2, 0, 0.95), Mistake(0, 0, 0.9), Mistake(1, 1, 0.7)]
    assert missed == [Mistake(2, 1, 0.1), Mistake(0, 2, 0.1), Mistake(1, 0, 0.2), Mistake(3, 0, 0.4)]


def test_no_class_fills_the_list_and_thresholds_of_classes_decide():
    wrong, _ = worst_mistakes(PROBABILITIES, TARGETS, LIMITS, IMAGES, per_class=1)
    assert [mistake.label for mistake in wrong] == [0, 1]
    assert worst_mistakes(PROBABILITIES, TARGETS, LIMITS, IMAGES, count=1)[0] == [Mistake(2, 0, 0.95)]
    wrong, _ = worst_mistakes(PROBABILITIES, TARGETS, np.array([0.92, 0.75, 0.5]), IMAGES)
    assert wrong == [Mistake(2, 0, 0.95)]


def test_the_order_of_images_does_not_decide_which_equal_mistakes_are_shown():
    draw = np.random.default_rng(0)
    probabilities, targets = np.round(draw.random((300, 3)), 1), draw.integers(0, 2, (300, 3))
    images, order = [f"{number:03}" for number in range(300)], draw.permutation(300)

    def shown(rows):
        names = [images[row] for row in rows]
        found = worst_mistakes(probabilities[rows], targets[rows], LIMITS, names)
        return [[(names[mistake.image], mistake.label) for mistake in kind] for kind in found]

    assert shown(np.arange(300)) == shown(order)


def test_confusions_count_images_with_one_missed_and_another_found():
    found = confusions(PROBABILITIES, TARGETS, LIMITS)
    # image 0: 2 missed, 0 found; image 1: 0 missed, 1 found; image 2: 1 missed, 0 found.
    assert found.labels.tolist() == [0, 1, 2]
    assert found.count.tolist() == [[0, 1, 0], [1, 0, 0], [1, 0, 0]]
    assert found.missed.tolist() == [2, 1, 1]
    assert found.pairs(2) == [(0, 1, 1, 2), (1, 0, 1, 1)]


def test_confusions_look_at_the_classes_with_the_most_mistakes():
    draw = np.random.default_rng(0)
    probabilities, targets = draw.random((500, 8)), (draw.random((500, 8)) < 0.5).astype(int)
    probabilities[:, 5] = targets[:, 5]  # never wrong
    limits = np.full(8, 0.5)
    some, every = confusions(probabilities, targets, limits, 7), confusions(probabilities, targets, limits)
    assert some.labels.tolist() == [0, 1, 2, 3, 4, 6, 7]
    assert (some.count == every.count[np.ix_(some.labels, some.labels)]).all()
