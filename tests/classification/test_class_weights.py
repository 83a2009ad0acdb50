"""Class weights from class frequencies, in every loss, and the initial bias of the head."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tresnet_downstream.classification import (
    AsymmetricLoss,
    AsymmetricLossSingleLabel,
    BinaryCrossEntropy,
    BinaryCrossEntropySingleLabel,
    BottleneckHead,
    CrossEntropy,
    FocalLoss,
    LinearHead,
    MLDecoderHead,
)
from tresnet_downstream.classification.class_labels import ClassLabels, single_labels
from tresnet_downstream.classification.class_weights import (
    class_weights,
    initial_biases,
    set_initial_bias,
    weights_text,
)
from tresnet_downstream.errors import UserError

NAMES = ("cat", "dog", "eel")
LABELS = single_labels(NAMES, np.array([0] * 60 + [1] * 30 + [2] * 10))
WEIGHTS = [0.5, 1.0, 3.0]
MULTI_LABEL = [AsymmetricLoss, BinaryCrossEntropy, FocalLoss]
SINGLE_LABEL = [CrossEntropy, BinaryCrossEntropySingleLabel, AsymmetricLossSingleLabel]


def test_inverse_weights_are_scikit_learns_balanced_ones():
    sklearn = pytest.importorskip("sklearn.utils.class_weight", reason="needs the extra digits")
    labels = LABELS.indices
    expected = sklearn.compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(class_weights("inverse", LABELS), expected)


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999])
def test_effective_weights_follow_cui_with_a_mean_of_one_over_the_labels(beta):
    weights = class_weights("effective", LABELS, beta)
    counts = np.array([60, 30, 10])
    assert (weights * counts).sum() == pytest.approx(100)
    cui = (1 - beta) / (1 - beta**counts)
    np.testing.assert_allclose(weights / weights[0], cui / cui[0])
    if beta == 0:
        np.testing.assert_allclose(weights, 1)


def test_weights_by_name_and_in_order_are_used_as_they_are():
    assert class_weights({"eel": 4}, LABELS).tolist() == [1, 1, 4]
    assert class_weights((1, 2.5, 0), LABELS).tolist() == [1, 2.5, 0]
    numbered = single_labels(("0", "1"), np.array([0, 1]))
    assert class_weights({1: 2}, numbered).tolist() == [1, 2]


def test_a_class_without_images_has_no_weight_and_is_named():
    labels = single_labels((*NAMES, "fox"), LABELS.indices)
    weights = class_weights("inverse", labels)
    np.testing.assert_allclose(weights[:3], class_weights("inverse", LABELS))
    assert weights[3] == 1
    assert weights_text("inverse", weights, labels).endswith("; no effect on 'fox', which no training image shows")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("inversed", "class_weights='inversed': choose 'inverse', 'effective'"),
        (3, "class_weights=3: choose"),
        ({"dgo": 2}, "there is no class 'dgo'; nearest: dog"),
        ({"zebra": 2}, "there is no class 'zebra'; there are cat, dog, eel"),
        ([1, 2], "has 2 numbers, but there are 3 classes"),
        ([1, -2, 1], "the weight of 'dog' is -2; give a number of at least 0"),
        ([1, float("nan"), 1], "the weight of 'dog' is nan"),
        ([1, float("inf"), 1], "the weight of 'dog' is inf"),
        ({"cat": "much"}, "the weight of 'cat' is 'much'"),
        ([0, 0, 0], "all weights are 0"),
    ],
)
def test_wrong_weights_are_refused_in_one_line(value, message):
    with pytest.raises(UserError, match=message) as error:
        class_weights(value, LABELS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("beta", [1, -0.1, float("nan"), None])
def test_a_wrong_beta_is_refused(beta):
    with pytest.raises(UserError, match="effective_beta="):
        class_weights("effective", LABELS, beta)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("kind", MULTI_LABEL, ids=lambda kind: kind.__name__)
def test_a_multi_label_loss_weighs_the_entries_where_a_class_is_present(kind, reduction):
    logits = torch.randn(7, 3, dtype=torch.float64)
    targets = torch.randint(-1, 2, (7, 3), dtype=torch.int8)
    weighted = kind(reduction=reduction, class_weights=WEIGHTS)(logits, targets)
    plain = kind(reduction="sum")
    expected = 0.0
    for row, column in np.ndindex(7, 3):
        target = targets[row, column]
        one = plain(logits[row : row + 1, column : column + 1], target.reshape(1, 1))
        expected += one * (WEIGHTS[column] if target == 1 else 1)
    if reduction == "mean":
        expected = expected / (targets >= 0).sum()
    torch.testing.assert_close(weighted, expected)


def test_weighted_binary_cross_entropy_is_torchs_with_pos_weight():
    logits, targets = torch.randn(5, 3, dtype=torch.float64), torch.randint(2, (5, 3), dtype=torch.int8)
    weights = torch.tensor(WEIGHTS, dtype=torch.float64)
    expected = F.binary_cross_entropy_with_logits(logits, targets.double(), pos_weight=weights, reduction="sum")
    torch.testing.assert_close(BinaryCrossEntropy(class_weights=WEIGHTS)(logits, targets), expected)


def test_weighted_cross_entropy_is_torchs_sum_over_the_number_of_images():
    logits, targets = torch.randn(5, 3, dtype=torch.float64), torch.randint(3, (5,))
    expected = F.cross_entropy(logits, targets, torch.tensor(WEIGHTS, dtype=torch.float64), reduction="sum") / 5
    torch.testing.assert_close(CrossEntropy(class_weights=WEIGHTS)(logits, targets), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", SINGLE_LABEL, ids=lambda kind: kind.__name__)
def test_a_single_label_loss_weighs_images_by_their_class_and_mixed_ones_by_their_shares(kind, smoothing):
    logits, targets = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 2, 0, 1])
    weights = torch.tensor(WEIGHTS, dtype=torch.float64)
    plain, weighted = kind(label_smoothing=smoothing), kind(label_smoothing=smoothing, class_weights=WEIGHTS)
    each = torch.stack([plain(logits[i : i + 1], targets[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(weighted(logits, targets), (each * weights[targets]).mean())
    mixed = 0.3 * F.one_hot(targets, 3).double() + 0.7 * F.one_hot(targets.flip(0), 3).double()
    each = torch.stack([plain(logits[i : i + 1], mixed[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(weighted(logits, mixed), (each * (mixed @ weights)).mean())


@pytest.mark.parametrize("kind", [*MULTI_LABEL, *SINGLE_LABEL], ids=lambda kind: kind.__name__)
def test_weights_follow_the_module_and_are_no_part_of_checkpoints(kind):
    loss = kind(class_weights=WEIGHTS)
    assert loss.state_dict() == {}
    with pytest.raises(UserError, match="class_weights: has 3 numbers, but there are 4 classes"):
        loss(torch.zeros(2, 4), torch.zeros((2, 4) if kind in MULTI_LABEL else 2, dtype=torch.int64))
    assert loss.double().class_weights.dtype == torch.float64
    targets = torch.randint(2, (2, 3), dtype=torch.int8) if kind in MULTI_LABEL else torch.tensor([0, 2])
    assert loss.float()(torch.randn(2, 3).bfloat16(), targets).dtype == torch.float32


HEADS = [LinearHead(8, 3), BottleneckHead(8, 3, 4), MLDecoderHead(8, 3, embed_dim=8, num_heads=2, feedforward_dim=8)]


@pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
@pytest.mark.parametrize("multi_label", [True, False])
def test_a_head_without_other_weights_begins_with_the_frequencies(head, multi_label):
    indices = LABELS.indices
    labels = LABELS
    if multi_label:  # 40 further images that show nothing, and 10 of which nobody knows whether they show an eel
        indptr = np.concatenate([LABELS.indptr, np.full(40, 100)])
        labels = ClassLabels(NAMES, indptr, indices, np.array([0, 0, 10]), LABELS.images)
    set_initial_bias(head, initial_biases(labels, multi_label))
    for name in ("fc.weight", "group_weight"):
        if name in dict(head.named_parameters()):
            nn.init.zeros_(dict(head.named_parameters())[name])
    logits = head.eval()(torch.randn(2, 8, 3, 3))
    probabilities = torch.sigmoid(logits) if multi_label else torch.softmax(logits, 1)
    expected = torch.tensor([60 / 140, 30 / 140, 10 / 130] if multi_label else [0.6, 0.3, 0.1])
    torch.testing.assert_close(probabilities, expected.expand(2, 3), rtol=1e-4, atol=1e-6)


def test_classes_that_no_image_or_every_image_shows_count_as_half_an_image_off():
    labels = ClassLabels(
        ("all", "none"), np.arange(11), np.zeros(10, np.int64), np.zeros(2, np.int64), np.array([10, 0])
    )
    np.testing.assert_allclose(initial_biases(labels, True), [np.log(9.5 / 0.5), np.log(0.5 / 9.5)])
    assert np.isfinite(initial_biases(labels, False)).all()


def test_a_head_without_a_bias_of_the_classes_is_refused_in_one_line():
    with pytest.raises(UserError, match="initial_bias: Conv2d has no attribute `class_bias`"):
        set_initial_bias(nn.Conv2d(1, 3, 1), np.zeros(3))
