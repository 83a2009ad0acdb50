"""Learning rates by part and by layer: the rate of each parameter group at each step."""

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from running.recorded import STEPS, interrupting, two_lines
from running.small_data import refuses_to_train, train
from running.test_resume import assert_bit_for_bit_equal, read
from torch import nn

from tresnet_downstream.backbones import TResNet
from tresnet_downstream.backbones.timm_network import TimmNetwork
from tresnet_downstream.errors import UserError
from tresnet_downstream.registry import PARAM_SCHEDULERS
from tresnet_downstream.running.layer_order import layer_numbers
from tresnet_downstream.running.rates import (
    give_factors,
    rate_factors,
    rate_settings,
    take_effect,
    without_factors,
)
from tresnet_downstream.running.signals import TrainingStopped


def rates_of(data, folder, line, **changes):
    STEPS.clear()
    folder.mkdir()
    train(data, folder / "run", config=two_lines(folder, line, record=True), **changes)
    return [step["rates"] for step in STEPS]


def test_each_parameter_has_its_parts_factor_on_the_rate_of_the_schedule_at_each_step(data, tmp_path):
    plain = rates_of(data, tmp_path / "a", "lr_factors = dict()")
    factored = rates_of(data, tmp_path / "b", "lr_factors = dict(backbone=0.1, head=2.0)")
    assert len(plain) == len(factored) == 6
    for before, after in zip(plain, factored, strict=True):
        assert before.keys() == after.keys()
        assert len(set(before.values())) == 1
        for name, rate in after.items():
            assert rate == before[name] * (0.1 if name.startswith("backbone.") else 2.0), name
    assert len({next(iter(rates.values())) for rates in plain}) == 6  # the schedule moves


def test_layers_decay_from_the_head_to_the_stem(data, tmp_path):
    (first, *_) = rates_of(data, tmp_path / "a", "layer_decay = 0.5", max_epochs=1)
    (plain, *_) = rates_of(data, tmp_path / "b", "layer_decay = None", max_epochs=1)
    factors = {name: rate / plain[name] for name, rate in first.items()}
    expected = {"head.": 1, "backbone.layer4.0.": 1 / 2, "backbone.layer1.0.": 1 / 16, "backbone.stem.": 1 / 32}
    for prefix, factor in expected.items():
        values = [value for name, value in factors.items() if name.startswith(prefix)]
        assert values == pytest.approx([factor] * len(values))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("lr_factors = dict(backbon=0.1)", ("lr_factors", "'backbon'", "nearest: backbone")),
        ("lr_factors = {'backbone.layr1': 0.1}", ("'backbone.layr1'", "nearest: backbone.layer1")),
        ("lr_factors = dict(neck=0.1)", ("'neck'", "there are backbone, head")),
        ("lr_factors = dict(head=0)", ("head=0", "above 0", "freeze")),
        ("lr_factors = 0.1", ("lr_factors=0.1", "dict")),
        ("layer_decay = 1.5", ("layer_decay=1.5", "at most 1")),
        ("layer_decay = 0.9; layer_decay_unit = 'layer'", ("layer_decay_unit='layer'", "block or stage")),
        ("optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0))", ("paramwise_cfg", "lr_factors", "layer_decay")),
    ],
)
def test_settings_that_cannot_be_followed_end_in_one_line(data, tmp_path, line, words):
    refuses_to_train(data, tmp_path / "run", *words, config=two_lines(tmp_path, line))


def test_factors_are_options_of_the_command_line_by_part(data, tmp_path):
    STEPS.clear()
    config = two_lines(tmp_path, "layer_decay_unit = 'stage'", record=True)
    changes = {"lr_factors.backbone": 0.5, "lr_factors.backbone.layer1": 0.25, "max_epochs": 1}
    train(data, tmp_path / "run", config=config, **changes)
    rates = STEPS[0]["rates"]
    head = next(rate for name, rate in rates.items() if name.startswith("head."))
    assert {rate / head for name, rate in rates.items() if name.startswith("backbone.layer1.")} == {0.25}
    assert {rate / head for name, rate in rates.items() if name.startswith("backbone.layer2.")} == {0.5}


@pytest.mark.parametrize("line", ["lr_factors = dict(backbone=0.1)", "layer_decay = 0.7"])
def test_resumed_run_with_factors_equals_the_uninterrupted_one(data, tmp_path, line):
    config = two_lines(tmp_path, line)
    train(data, tmp_path / "whole", config=config, max_epochs=3)
    train(data, tmp_path / "parts", config=config, max_epochs=3, stop_epoch=1)
    train(data, tmp_path / "parts", "--resume", config=config, max_epochs=3)
    assert_bit_for_bit_equal(tmp_path / "parts/epoch_3.pth", tmp_path / "whole/epoch_3.pth")


def test_run_resumed_within_an_epoch_has_the_same_factors(data, tmp_path):
    line = "lr_factors = dict(backbone=0.1); layer_decay = 0.9"
    train(data, tmp_path / "whole", config=two_lines(tmp_path, line))
    with pytest.raises(TrainingStopped):
        train(data, tmp_path / "parts", config=interrupting(tmp_path, 4, "step", line))
    assert (tmp_path / "parts/last_checkpoint").read_text().startswith("epoch_2_step_")
    train(data, tmp_path / "parts", "--resume", config=two_lines(tmp_path, line))
    assert_bit_for_bit_equal(tmp_path / "parts/epoch_2.pth", tmp_path / "whole/epoch_2.pth")


def test_run_resumed_with_another_peak_has_the_factors_on_the_new_schedule(data, tmp_path):
    config = two_lines(tmp_path, "lr_factors = dict(backbone=0.1)", record=True)
    train(data, tmp_path / "run", config=config, stop_epoch=1)
    STEPS.clear()
    train(data, tmp_path / "run", "--resume", config=config, max_lr=5e-4)
    resumed = [step["rates"] for step in STEPS]
    STEPS.clear()
    train(data, tmp_path / "other", config=config, max_lr=5e-4)
    assert resumed == [step["rates"] for step in STEPS[3:]]


def test_other_factors_are_refused_when_a_run_is_resumed(data, tmp_path):
    train(data, tmp_path / "run", stop_epoch=1)
    config = two_lines(tmp_path, "lr_factors = dict(backbone=0.1)")
    refuses_to_train(data, tmp_path / "run", "lr_factors", "--work-dir", flags=["--resume"], config=config)


def test_without_factors_checkpoints_have_the_keys_of_before(data, tmp_path):
    train(data, tmp_path / "run", max_epochs=1)
    groups = read(tmp_path / "run/epoch_1.pth")["optimizer"]["param_groups"]
    assert len(groups) == 2
    assert not {"lr_factor", "scheduled_lr"} & set(groups[0])


@pytest.mark.parametrize(
    "schedule",
    [
        {"type": "CosineAnnealingLR", "T_max": 6, "eta_min": 1e-3, "by_epoch": False},
        {"type": "LinearLR", "start_factor": 0.1, "end": 4, "by_epoch": False},
        {"type": "MultiStepLR", "milestones": [2, 4], "by_epoch": False},
        {"type": "OneCycleLR", "eta_max": 0.1, "total_steps": 6, "by_epoch": False},
        {"type": "tresnet_downstream.OneCycle", "max_lr": 0.1, "end": 6},
        {"type": "tresnet_downstream.Cosine", "end": 6, "warmup": 0.5, "warmup_lr": 1e-3, "lr_min": 1e-4},
    ],
)
def test_every_schedule_gives_each_group_its_factor_times_the_rate_of_all(schedule):
    rates = []
    for factors in (None, {"0.weight": 0.25, "0.bias": 0.25, "1.weight": 1.0, "1.bias": 1.0}):
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9))
        if factors:
            give_factors(wrapper, model, factors)
        built = PARAM_SCHEDULERS.build(schedule, default_args={"optimizer": wrapper})
        take_effect(wrapper)
        rows = []
        for _ in range(5):
            rows.append([group["lr"] for group in wrapper.optimizer.param_groups])
            wrapper.step()
            with without_factors(wrapper):
                built.step()
        rates.append(rows)
    for (plain,), (quarter, whole) in zip(*rates, strict=True):
        assert whole == plain
        assert quarter == 0.25 * plain


@pytest.mark.parametrize("unit", ["block", "stage"])
def test_layers_of_tresnet_and_of_timms_networks_are_numbered_in_order(unit):
    pytest.importorskip("timm", reason="needs the extra timm")
    ours = layer_numbers(TResNet(layers=(2, 1, 1, 1), width=0.25), unit)
    assert ours["stem.conv.weight"] == 0
    assert ours["layer1.1.conv1.weight"] == (2 if unit == "block" else 1)
    assert ours["layer4.0.conv1.weight"] == (5 if unit == "block" else 4)
    theirs = TimmNetwork("resnet18", out_indices=(-1,))
    numbers = layer_numbers(theirs, unit)
    assert numbers.keys() == {name for name, _ in theirs.named_parameters()}
    assert numbers["network.conv1.weight"] == 0
    assert numbers["network.layer4.1.conv2.weight"] == (8 if unit == "block" else 4)


def test_the_order_of_an_unknown_backbone_is_an_error():
    with pytest.raises(UserError, match="order of the layers of Linear is not known"):
        layer_numbers(nn.Linear(2, 2))


def test_factors_of_parts_and_layers_are_multiplied():
    model = nn.ModuleDict({"backbone": TResNet(layers=(1, 1, 1, 1), width=0.25), "head": nn.Linear(2, 2)})
    settings = rate_settings(Config({"lr_factors": {"backbone": {"stem": 0.5}, "head": 3}, "layer_decay": 0.1}))
    factors = rate_factors(settings, model)
    assert factors["head.weight"] == 3
    assert factors["backbone.layer4.0.conv1.weight"] == pytest.approx(0.1)
    assert factors["backbone.stem.conv.weight"] == pytest.approx(0.5e-5)


def test_mmengines_own_constructor_takes_paramwise_cfg_also_with_our_schedule(data, tmp_path):
    line = (
        "optim_wrapper = dict(constructor='DefaultOptimWrapperConstructor', "
        "paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1, decay_mult=0.0))))"
    )
    rows = rates_of(data, tmp_path / "a", line)
    plain = rates_of(data, tmp_path / "b", "lr_factors = dict()")
    for before, after in zip(plain, rows, strict=True):
        for name, rate in after.items():
            assert rate == pytest.approx(before[name] * (0.1 if name.startswith("backbone.") else 1)), name
