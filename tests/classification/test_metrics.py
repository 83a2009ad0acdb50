"""The scores that the runner's metric computes from batches."""

import numpy as np
import pytest
import torch

from tresnet_downstream import bad_images
from tresnet_downstream.classification import MultilabelMetric
from tresnet_downstream.classification.metrics import ProbabilityMetric
from tresnet_downstream.errors import UserError


@pytest.fixture
def told(monkeypatch):
    """The lines that the metric tells."""
    lines = []
    monkeypatch.setattr(bad_images, "tell", lines.append)
    return lines


def filled(unreadable):
    """A metric that has seen three pictures of two classes."""
    metric = MultilabelMetric()
    metric.dataset_meta = {"classes": ("cat", "dog")}
    targets = torch.tensor([[1, 0], [0, 1], [1, 1]], dtype=torch.int8)
    probabilities = torch.tensor([[0.9, 0.2], [0.6, 0.7], [0.1, 0.8]])
    batch = {"image": ["a.jpg", "b.jpg", "c.jpg"], "targets": targets, "unreadable": unreadable}
    metric.process(batch, [{"raw": row} for row in probabilities])
    return metric


def test_images_that_cannot_be_read_have_no_part_in_the_scores(told):
    metric = filled(["", "", "c.jpg: unreadable image: empty"])
    assert metric.evaluate(3)["mAP"] == 100
    assert metric.images == ["a.jpg", "b.jpg"]
    assert metric.targets.tolist() == [[1, 0], [0, 1]]
    np.testing.assert_allclose(metric.probabilities["raw"], [[0.9, 0.2], [0.6, 0.7]], rtol=1e-6)
    assert metric.unreadable == {"c.jpg": "c.jpg: unreadable image: empty"}
    assert told == ["warning: 1 of 3 images cannot be read and are not scored: c.jpg: unreadable image: empty"]


def test_every_image_is_scored_where_all_can_be_read(told):
    metric = filled(["", "", ""])
    assert metric.evaluate(3)["mAP"] < 100
    assert (metric.images, metric.unreadable) == (["a.jpg", "b.jpg", "c.jpg"], {})
    assert told == []


def test_nothing_to_score_is_an_error():
    with pytest.raises(UserError, match=r"none of the 3 images to score can be read; the first: a\.jpg is empty"):
        filled(["a.jpg is empty", "b.jpg is empty", "c.jpg is empty"]).evaluate(3)


@pytest.mark.parametrize("options", [{"threshold": 2}, {"threshold": -0.1}, {"top_k": 0}])
def test_thresholds_out_of_range_are_refused(options):
    with pytest.raises(UserError, match=next(iter(options))):
        MultilabelMetric(**options)


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        (0.5, "returns float, not a dict"),
        ({"exact": [1, 2]}, "returns exact=.1, 2., which is not a number"),
        ({"mAP": 1.0}, "returns mAP, a name of MultilabelMetric"),
    ],
)
def test_scores_of_a_custom_metric_are_numbers_by_name(scores, words):
    class Own(ProbabilityMetric):
        def score(self, probabilities, targets, weights):
            return scores

    row = ("a.jpg", {"raw": np.array([0.5], np.float32)}, np.array([1], np.int8), "")
    with pytest.raises(UserError, match=f"Own.score {words}"):
        Own().compute_metrics([row])
