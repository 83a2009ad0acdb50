import math

import pytest
import torch
import torch.nn.functional as F
from golden_networks import golden
from torchvision.ops import sigmoid_focal_loss

from tresnet_downstream.classification import (
    AsymmetricLoss,
    AsymmetricLossSingleLabel,
    BinaryCrossEntropy,
    FocalLoss,
)
from tresnet_downstream.errors import UserError
from tresnet_downstream.registry import MODELS

MULTI_LABEL = [
    BinaryCrossEntropy(),
    AsymmetricLoss(),
    AsymmetricLoss(gamma_neg=2, gamma_pos=2, clip=0, detach_focal_weight=False),
    AsymmetricLoss(gamma_neg=0.5, gamma_pos=0.5, detach_focal_weight=False),
    FocalLoss(),
    FocalLoss(gamma=0.5),
    FocalLoss(gamma=0),
]
EXTREME = [-1e4, -100.0, -20.0, -17.0, 0.0, 17.0, 20.0, 100.0, 1e4]


def name(loss):
    return f"{type(loss).__name__}-{getattr(loss, 'gamma_neg', getattr(loss, 'gamma', ''))}"


every_multi_label_loss = pytest.mark.parametrize("loss", MULTI_LABEL, ids=name)


def value_and_gradient(loss, logits, targets):
    logits = logits.clone().requires_grad_()
    value = loss(logits, targets)
    value.backward()
    return value.detach(), logits.grad


def drawn(rows=6, columns=20, scale=3.0, dtype=torch.float64):
    logits = scale * torch.randn(rows, columns, dtype=dtype)
    return logits, (torch.rand(rows, columns) < 0.3).to(dtype)


def assert_equals_the_release(loss, case):
    logits, gradient = (torch.tensor(case[key], dtype=torch.float64) for key in ("logits", "grad"))
    value, got = value_and_gradient(loss, logits, torch.tensor(case["targets"]))
    assert value.item() == pytest.approx(case["loss"], rel=1e-6)
    torch.testing.assert_close(got, gradient, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("index", range(8))
def test_asymmetric_loss_equals_the_release(index):
    case = golden("asymmetric_loss")["multi_label"][index]
    options = ("gamma_neg", "gamma_pos", "clip", "eps", "detach_focal_weight")
    assert_equals_the_release(AsymmetricLoss(**{key: case[key] for key in options}), case)


@pytest.mark.parametrize("index", range(3))
def test_single_label_loss_equals_the_release(index):
    case = golden("asymmetric_loss")["single_label"][index]
    options = ("gamma_neg", "gamma_pos", "label_smoothing")
    assert_equals_the_release(AsymmetricLossSingleLabel(**{key: case[key] for key in options}), case)


def test_single_label_loss_without_focus_is_cross_entropy_with_smoothing():
    logits, targets = drawn()[0], torch.randint(20, (6,))
    got = AsymmetricLossSingleLabel(gamma_pos=0, gamma_neg=0, label_smoothing=0.1)(logits, targets)
    torch.testing.assert_close(got, F.cross_entropy(logits, targets, label_smoothing=0.1))


def test_asymmetric_loss_without_focus_is_binary_cross_entropy():
    logits, targets = drawn()
    plain = AsymmetricLoss(gamma_neg=0, gamma_pos=0, clip=0)
    got = value_and_gradient(plain, logits, targets)
    torch.testing.assert_close(got, value_and_gradient(BinaryCrossEntropy(), logits, targets))


def test_asymmetric_loss_never_takes_the_logarithm_of_less_than_eps():
    wrong = torch.tensor([[-100.0, 100.0]]), torch.tensor([[1, 0]])
    value = AsymmetricLoss(gamma_neg=0, gamma_pos=0, clip=0, eps=1e-8)(*wrong)
    assert value.item() == pytest.approx(-2 * math.log(1e-8))


def test_an_absent_class_below_the_clip_costs_nothing():
    below, above = torch.logit(torch.tensor([[0.049, 0.051]], dtype=torch.float64)).split(1, dim=1)
    value, gradient = value_and_gradient(AsymmetricLoss(gamma_neg=1, clip=0.05), below, torch.zeros(1, 1))
    assert value == 0
    assert gradient == 0
    assert AsymmetricLoss(gamma_neg=1, clip=0.05)(above, torch.zeros(1, 1)) > 0


def test_binary_cross_entropy_equals_torch():
    logits, targets = drawn()
    torch.testing.assert_close(
        BinaryCrossEntropy()(logits, targets),
        F.binary_cross_entropy_with_logits(logits, targets, reduction="sum"),
    )


@pytest.mark.parametrize("gamma", [0.5, 1, 2, 5])
def test_focal_loss_equals_torchvision(gamma):
    logits, targets = drawn()
    expected = value_and_gradient(lambda x, t: sigmoid_focal_loss(x, t, -1, gamma, "sum"), logits, targets)
    torch.testing.assert_close(value_and_gradient(FocalLoss(gamma), logits, targets), expected)


@pytest.mark.parametrize("gamma", [1, 2])
def test_focal_loss_equals_torchvision_far_off_in_float32(gamma):
    logits = torch.tensor([[-100.0, -40.0, -20.0, -17.0, 17.0, 20.0, 40.0, 100.0]])
    wrong = (logits < 0).float()
    expected = value_and_gradient(lambda x, t: sigmoid_focal_loss(x, t, -1, gamma, "sum"), logits, wrong)
    torch.testing.assert_close(value_and_gradient(FocalLoss(gamma), logits, wrong), expected)


@every_multi_label_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits_give_finite_losses_and_gradients(loss, dtype):
    logits = torch.tensor(EXTREME, dtype=dtype).repeat(3, 1)
    targets = torch.tensor([1, 0, -1])[:, None].expand_as(logits)
    value, gradient = value_and_gradient(loss, logits, targets)
    assert value.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 4])
def test_extreme_logits_give_finite_single_label_losses_and_gradients(gamma):
    logits = torch.tensor(EXTREME).repeat(len(EXTREME), 1)
    loss = AsymmetricLossSingleLabel(gamma_pos=gamma, gamma_neg=gamma)
    value, gradient = value_and_gradient(loss, logits, torch.arange(len(EXTREME)))
    assert value.isfinite()
    assert gradient.isfinite().all()


@every_multi_label_loss
def test_unknown_targets_have_no_loss_and_exactly_no_gradient(loss):
    logits, targets = drawn()
    expected, _ = value_and_gradient(loss, logits[:, :10], targets[:, :10])
    unknown = torch.tensor([-math.inf, -100.0, -17.0, 17.0, 100.0, math.inf], dtype=torch.float64)
    logits[:, 10:16], targets[:, 10:] = unknown, -1
    value, gradient = value_and_gradient(loss, logits, targets)
    torch.testing.assert_close(value, expected)
    assert (gradient[:, 10:] == 0).all()
    assert (gradient[:, :10] != 0).any()


@every_multi_label_loss
def test_targets_of_integers_and_floats_are_the_same(loss):
    logits, targets = drawn()
    targets[:, :3] = -1
    assert torch.equal(loss(logits, targets.to(torch.int8)), loss(logits, targets))


@pytest.mark.parametrize("kind", ["BinaryCrossEntropy", "AsymmetricLoss", "FocalLoss"])
def test_mean_is_the_sum_over_the_number_of_known_targets(kind):
    logits, targets = drawn()
    targets[:, :5] = -1
    total, mean = (MODELS.build({"type": kind, "reduction": reduction}) for reduction in ("sum", "mean"))
    torch.testing.assert_close(mean(logits, targets), total(logits, targets) / (6 * 15))


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_a_batch_without_any_known_target_has_no_loss(reduction):
    logits, targets = drawn()
    value, gradient = value_and_gradient(AsymmetricLoss(reduction=reduction), logits, torch.full_like(targets, -1))
    assert value == 0
    assert (gradient == 0).all()


@every_multi_label_loss
def test_losses_under_autocast_are_those_of_float32(loss):
    logits, targets = drawn(dtype=torch.float32)
    logits = logits.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(logits, targets.bfloat16())
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(logits.float(), targets))


def test_the_single_label_loss_under_autocast_is_that_of_float32():
    loss, logits, targets = AsymmetricLossSingleLabel(), torch.randn(6, 20).bfloat16(), torch.randint(20, (6,))
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(logits, targets)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(logits.float(), targets))


@every_multi_label_loss
def test_float64_stays_float64(loss):
    assert loss(*drawn()).dtype == torch.float64


def test_shapes_that_differ_are_both_named():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        AsymmetricLoss()(torch.zeros(2, 3), torch.zeros(3, 2))


@pytest.mark.parametrize("loss", [BinaryCrossEntropy, AsymmetricLoss, FocalLoss])
def test_an_unknown_reduction_is_named_with_the_choices(loss):
    with pytest.raises(UserError, match=r"reduction='none'.*sum, mean"):
        loss(reduction="none")
