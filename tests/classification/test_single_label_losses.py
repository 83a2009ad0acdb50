"""Single-label losses, compared with torch's and timm's."""

import pytest
import torch
import torch.nn.functional as F

from tresnet_downstream.classification import AsymmetricLossSingleLabel, BinaryCrossEntropySingleLabel, CrossEntropy
from tresnet_downstream.errors import UserError

LOSSES = [CrossEntropy(0.1), BinaryCrossEntropySingleLabel(), AsymmetricLossSingleLabel()]


@pytest.fixture
def case():
    logits, targets = torch.randn(6, 5, dtype=torch.float64, requires_grad=True), torch.randint(5, (6,))
    share = torch.rand(6, 1, dtype=torch.float64)
    mixed = F.one_hot(targets, 5) * share + F.one_hot(targets.flip(0), 5) * (1 - share)
    return logits, targets, mixed


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs_with_indices_and_with_shares(case, smoothing):
    logits, targets, mixed = case
    loss = CrossEntropy(smoothing)
    for given in (targets, mixed):
        expected = F.cross_entropy(logits, given, label_smoothing=smoothing)
        assert torch.allclose(loss(logits, given), expected, rtol=1e-12)


@pytest.mark.parametrize("threshold", [None, 0.2])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_binary_cross_entropy_is_timms(case, smoothing, threshold):
    timm_loss = pytest.importorskip("timm.loss", reason="needs the extra timm")
    logits, targets, mixed = case
    ours = BinaryCrossEntropySingleLabel(threshold, smoothing)
    theirs = timm_loss.BinaryCrossEntropy(smoothing, threshold)
    assert torch.allclose(ours(logits, targets), theirs(logits, targets), rtol=1e-6)
    # With shares timm leaves the smoothing to its mixup.
    smooth = mixed * (1 - smoothing) + smoothing / 5
    assert torch.allclose(ours(logits, mixed), theirs(logits, smooth), rtol=1e-6)


def test_asymmetric_loss_without_focus_is_cross_entropy_also_with_shares(case):
    logits, targets, mixed = case
    for given in (targets, mixed):
        ours = AsymmetricLossSingleLabel(gamma_pos=0, gamma_neg=0, label_smoothing=0.1)(logits, given)
        assert torch.allclose(ours, CrossEntropy(0.1)(logits, given), rtol=1e-12)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_shares_of_one_class_are_that_class(case, loss):
    logits, targets, _ = case
    assert torch.allclose(loss(logits, targets), loss(logits, F.one_hot(targets, 5).double()), rtol=1e-12)
    (gradient,) = torch.autograd.grad(loss(logits, targets), logits)
    assert gradient.isfinite().all()
    half = loss(logits.bfloat16(), targets)
    assert half.dtype == torch.float32


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_targets_of_another_form_are_refused(case, loss):
    logits, _, _ = case
    for targets in (torch.zeros(6, 4), torch.zeros(5, dtype=torch.int64), torch.zeros(6, 5, dtype=torch.int8)):
        with pytest.raises(ValueError, match="give a class index"):
            loss(logits, targets)


def test_smoothing_is_a_share():
    with pytest.raises(UserError, match="label_smoothing"):
        CrossEntropy(1.0)
