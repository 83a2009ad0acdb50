"""Optimiser, precision and learning rate schedule, compared with torch's."""

import copy

import pytest
import torch
from torch import nn

from tresnet_downstream.backbones import TResNet
from tresnet_downstream.errors import UserError
from tresnet_downstream.registry import MODELS, OPTIMIZERS
from tresnet_downstream.running.optimisation import Cosine, MatrixDecayConstructor, OneCycle, RecipeOptimWrapper


def small_classifier(**changes):
    backbone = {"type": "TResNet", "layers": (1, 1, 1, 1), "width": 0.25, **changes}
    loss = {"type": "AsymmetricLoss", "gamma_neg": 4, "gamma_pos": 0, "clip": 0.05}
    return MODELS.build(
        {
            "type": "ImageClassifier",
            "backbone": backbone,
            "head": {"type": "LinearHead", "num_classes": 3},
            "loss": loss,
        }
    )


def wrapped(parameters, **changes):
    return RecipeOptimWrapper(torch.optim.Adam(parameters, lr=1e-3), **changes)


def batch(count=8, dtype=torch.uint8):
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    return {"inputs": images, "targets": torch.randint(0, 2, (count, 3), dtype=torch.int8)}


def test_one_cycle_is_torchs_in_rate_and_first_beta():
    ours, theirs = (torch.optim.Adam(nn.Linear(2, 2).parameters(), lr=1e-3) for _ in range(2))
    schedule = OneCycle(RecipeOptimWrapper(ours), max_lr=2e-4, end=50)
    reference = torch.optim.lr_scheduler.OneCycleLR(theirs, max_lr=2e-4, total_steps=50, pct_start=0.2)
    betas = []
    for _ in range(49):
        assert ours.param_groups[0]["lr"] == theirs.param_groups[0]["lr"]
        assert ours.param_groups[0]["betas"] == theirs.param_groups[0]["betas"]
        betas.append(ours.param_groups[0]["betas"][0])
        for optimizer, scheduler in ((ours, schedule), (theirs, reference)):
            optimizer.step()
            scheduler.step()
    assert (max(betas), min(betas)) == pytest.approx((0.95, 0.85))


def test_one_cycle_by_epoch_is_refused():
    with pytest.raises(UserError, match="by_epoch=False"):
        OneCycle(wrapped(nn.Linear(2, 2).parameters()), max_lr=1e-3, end=10, by_epoch=True)


def test_decay_is_on_matrices_alone_and_frozen_weights_are_left_out():
    model = nn.ModuleDict(
        {"backbone": TResNet(layers=(1, 1, 1, 1), width=0.25, frozen_stages=1), "head": nn.Linear(8, 3)}
    )
    config = {"type": "RecipeOptimWrapper", "optimizer": {"type": "Adam", "lr": 1e-3, "weight_decay": 0.03}}
    plain, decayed = MatrixDecayConstructor(config)(model).optimizer.param_groups
    assert (plain["weight_decay"], decayed["weight_decay"]) == (0.0, 0.03)
    assert {parameter.dim() for parameter in plain["params"]} == {1}
    assert {parameter.dim() for parameter in decayed["params"]} == {2, 4}
    given = {id(parameter) for group in (plain, decayed) for parameter in group["params"]}
    assert given == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert id(model["backbone"].stem.conv.weight) not in given
    assert id(next(model["backbone"].layer1.parameters())) not in given


def test_paramwise_settings_that_would_have_no_effect_are_refused():
    with pytest.raises(UserError, match="paramwise_cfg"):
        MatrixDecayConstructor({}, {"norm_decay_mult": 0})


def test_unknown_precision_is_a_user_error():
    with pytest.raises(UserError, match="amp='int8'"):
        wrapped(nn.Linear(2, 2).parameters(), amp="int8")


@pytest.mark.parametrize("amp", ["bfloat16", "float16"])
def test_loss_falls_in_mixed_precision_on_a_cpu(amp):
    model, data = small_classifier().train(), batch()
    wrapper = wrapped(model.parameters(), amp=amp)
    seen = []
    model.backbone.layer1[0].conv1.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    losses = [model.train_step(data, wrapper)["loss"].item() for _ in range(16)]
    assert losses[-1] < 0.8 * losses[0]
    assert set(seen) == {getattr(torch, amp)}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_float16_scale_survives_saving_and_loading():
    layer = nn.Linear(2, 2)
    wrapper = wrapped(layer.parameters(), amp="float16")
    with torch.no_grad():
        layer.weight[0, 0] = 1.0
    wrapper.update_params(layer(torch.full((1, 2), float("inf"))).sum())  # halves the scale, moves nothing
    wrapper.update_params(layer(torch.ones(1, 2)).sum())
    assert wrapper.scaler.get_scale() == 2.0**15
    restored = wrapped(layer.parameters(), amp="float16")
    restored.load_state_dict(copy.deepcopy(wrapper.state_dict()))
    assert restored.scaler.state_dict() == wrapper.scaler.state_dict()
    assert restored.scaler.get_scale() == 2.0**15


@pytest.mark.parametrize(("before", "after"), [(None, "float16"), ("float16", None)])
def test_precision_may_change_between_saving_and_loading(before, after):
    layer = nn.Linear(2, 2)
    wrapper = wrapped(layer.parameters(), amp=before)
    wrapper.update_params(layer(torch.ones(1, 2)).sum())
    restored = wrapped(layer.parameters(), amp=after)
    restored.load_state_dict(wrapper.state_dict())
    assert restored.optimizer.state_dict()["state"].keys() == {0, 1}


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_accumulated_half_batches_give_the_gradients_of_the_whole(reduction):
    model = small_classifier(norm_eval=True).double().train()
    model.loss.reduction = reduction
    data = batch()
    images, targets = data["inputs"].double() / 255, data["targets"]
    model(images, targets, mode="loss")["loss"].backward()
    expected = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()

    wrapper = wrapped(model.parameters(), reduction=reduction, accumulative_counts=2)
    gradients = []
    wrapper.step = lambda: gradients.extend(parameter.grad.clone() for parameter in model.parameters())
    for half in (slice(0, 4), slice(4, 8)):
        assert not gradients
        wrapper.update_params(model(images[half], targets[half], mode="loss")["loss"])
    for ours, whole in zip(gradients, expected, strict=True):
        assert (ours - whole).norm() <= 1e-10 * whole.norm()


def test_accumulation_ends_with_the_epoch():
    weight = nn.Parameter(torch.zeros(()))
    wrapper = wrapped([weight], reduction="mean", accumulative_counts=2, epoch_length=5)
    wrapper.initialize_count_status(nn.Linear(1, 1), 0, 10)
    steps = []
    wrapper.step = lambda: steps.append((wrapper._inner_count, weight.grad.item()))
    for _ in range(10):
        assert wrapper.should_sync() == (wrapper._inner_count + 1 in (2, 4, 5, 7, 9, 10))
        wrapper.update_params(weight * 1.0)
    # The mean over each step's batches, one or two, is 1.
    assert steps == [(count, 1.0) for count in (2, 4, 5, 7, 9, 10)]


def test_clipping_sees_unscaled_gradients():
    weight = nn.Parameter(torch.zeros(4))
    wrapper = wrapped([weight], amp="float16", clip_grad={"max_norm": 1.0})
    seen = []
    wrapper.optimizer.register_step_pre_hook(lambda *_: seen.append(weight.grad.norm().item()))
    wrapper.update_params((weight * 3.0).sum())
    assert seen == [pytest.approx(1.0, rel=1e-4)]


@pytest.mark.parametrize("end", range(1, 12))
def test_one_cycle_of_few_steps_rises_and_ends_at_nothing(end):
    wrapper = wrapped(nn.Linear(2, 2).parameters())
    schedule = OneCycle(wrapper, max_lr=1e-2, end=end)
    rates = []
    for _ in range(end):
        rates.append(wrapper.optimizer.param_groups[0]["lr"])
        wrapper.optimizer.step()
        if len(rates) < end:
            schedule.step()
    assert rates[-1] == pytest.approx(1e-2 / 25 / 1e4, rel=1e-3)
    assert all(0 < rate <= 1e-2 for rate in rates)
    if end == 5:
        # One step up and four down, as torch has it in the limit of a rise of length 0.
        assert rates[0] == pytest.approx(1e-2 / 25)
        assert rates[1:] == sorted(rates[1:], reverse=True)


@pytest.mark.parametrize("clip_grad", [1, "max_norm=1", {}])
def test_clipping_that_is_no_dictionary_is_a_user_error(clip_grad):
    with pytest.raises(UserError, match=r"clip_grad=.*dict\(max_norm=1\)"):
        wrapped(nn.Linear(2, 2).parameters(), clip_grad=clip_grad)


@pytest.mark.parametrize("warmup", [0.0, 0.1])
def test_cosine_is_timms(warmup):
    schedulers = pytest.importorskip("timm.scheduler", reason="needs the extra timm")
    ours, theirs = (torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.6) for _ in range(2))
    schedule = Cosine(RecipeOptimWrapper(ours), end=30, warmup=warmup, warmup_lr=1e-4, lr_min=1e-5)
    options = {"warmup_t": round(30 * warmup), "warmup_lr_init": 1e-4, "lr_min": 1e-5, "t_in_epochs": False}
    reference = schedulers.CosineLRScheduler(theirs, 30, **options)
    for step in range(30):
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-12)
        schedule.step()
        reference.step_update(step + 1)


def test_cosine_resumes_where_it_was():
    def rates(schedule, count):
        found = []
        for _ in range(count):
            found.append(schedule.optimizer.param_groups[0]["lr"])
            schedule.step()
        return found

    def start():
        return Cosine(RecipeOptimWrapper(torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.6)), end=20, warmup=0.2)

    expected = rates(start(), 20)
    first, second = start(), start()
    assert rates(first, 7) == expected[:7]
    second.load_state_dict(first.state_dict())
    second.optimizer.optimizer.load_state_dict(first.optimizer.optimizer.state_dict())
    assert rates(second, 13) == expected[7:]


def test_wrong_shares_of_a_cosine_are_reported():
    with pytest.raises(UserError, match="Cosine: warmup=1"):
        Cosine(RecipeOptimWrapper(torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.6)), end=20, warmup=1)


def test_lamb_is_timms():
    timm_optim = pytest.importorskip("timm.optim", reason="needs the extra timm")
    assert isinstance(OPTIMIZERS.build({"type": "Lamb", "params": [nn.Parameter(torch.zeros(2))]}), timm_optim.Lamb)
