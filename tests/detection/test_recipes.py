"""Configs with a TResNet use the learning rates and weight decays of the detectors' papers."""

import pytest

pytest.importorskip("mmdet", reason="needs the detection set-up")

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from running.small_data import ROOT

from tresnet_downstream.detection.predict import load_detector  # noqa: F401 - registers MMDetection's components

NARROW = {"layers": (1, 1, 1, 1), "width": 0.125, "init_cfg": None}


def settings(name):
    """The optimizer's settings of every trained parameter of a detector, by name."""
    config = Config.fromfile(ROOT / "configs" / f"{name}.py")
    config.model.backbone.update(NARROW)
    config.model.neck.in_channels = [[8, 16, 128, 256][index] for index in config.model.backbone.out_indices]
    init_default_scope("mmdet")
    with torch.device("meta"):
        model = MODELS.build(config.model)
    groups = build_optim_wrapper(model, config.optim_wrapper).optimizer.param_groups
    by_parameter = {id(parameter): group for group in groups for parameter in group["params"]}
    trained = ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
    return {name: by_parameter[id(parameter)] for name, parameter in trained}


@pytest.mark.parametrize("name", ["deformable_detr_tresnet_m", "dino_tresnet_m", "ddq_tresnet_m"])
def test_the_backbone_of_a_detr_has_a_tenth_of_the_learning_rate(name):
    rates = {"deformable_detr_tresnet_m": 2e-4, "dino_tresnet_m": 1e-4, "ddq_tresnet_m": 2e-4}
    slow = ("sampling_offsets", "reference_points") if name.startswith("deformable") else ()
    found = {parameter: group["lr"] for parameter, group in settings(name).items()}
    for parameter, rate in found.items():
        tenth = parameter.startswith("backbone.") or any(part in parameter for part in slow)
        assert rate == pytest.approx(rates[name] * (0.1 if tenth else 1)), parameter
    assert not any(parameter.startswith(("backbone.stem.", "backbone.layer1.")) for parameter in found)
    assert "backbone.layer2.0.conv1.weight" in found


def test_rtmdet_trains_all_of_the_backbone_and_decays_neither_norms_nor_biases():
    found = settings("rtmdet_tresnet_m")
    for parameter, group in found.items():
        plain = "norm" in parameter or ".bn." in parameter or parameter.endswith(".bias")
        assert group["weight_decay"] == (0 if plain else 0.05), parameter
        assert group["lr"] == 0.004
    assert {"backbone.stem.conv.weight", "backbone.layer1.0.norm1.weight"} <= found.keys()


def test_fcos_decays_no_biases_and_gives_those_that_are_no_norms_twice_the_learning_rate():
    for parameter, group in settings("fcos_atss_tresnet_m").items():
        bias = parameter.endswith(".bias")
        doubled = bias and not any(part in parameter for part in ("norm", ".gn."))
        assert group["lr"] == (0.02 if doubled else 0.01), parameter
        assert group["weight_decay"] == (0 if bias else 1e-4), parameter
