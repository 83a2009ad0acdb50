"""The table of ResNet-RS networks, compared with timm, and the choice of a network for a budget."""

import pytest
import torch

from tresnet_downstream.backbones.resnet_rs import LADDER, ladder_table, rung_for
from tresnet_downstream.benchmark.work import multiply_adds
from tresnet_downstream.errors import UserError


@pytest.mark.parametrize("rung", LADDER[:3], ids=lambda rung: f"{rung.model}-{rung.input_size}")
def test_work_and_size_are_those_of_timms_networks(rung):
    timm = pytest.importorskip("timm", reason="needs the extra timm")
    with torch.device("meta"):
        network = timm.create_model(rung.model)
    assert multiply_adds(network, rung.input_size) / 1e9 == pytest.approx(rung.multiply_adds, abs=0.005)
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(
        rung.parameters, abs=0.05
    )


def test_work_and_accuracy_rise_along_the_ladder():
    for key in ("multiply_adds", "top1"):
        values = [getattr(rung, key) for rung in LADDER]
        assert values == sorted(values)
    assert len(LADDER) == 11


@pytest.mark.parametrize(
    ("budget", "model", "size"), [(2.28, "resnetrs50", 160), (30, "resnetrs270", 256), (1e9, "resnetrs420", 320)]
)
def test_the_largest_network_within_the_budget_is_proposed(budget, model, size):
    rung = rung_for(budget)
    assert (rung.model, rung.input_size) == (model, size)
    assert f"> {model}" in ladder_table(rung)


def test_a_budget_below_the_smallest_network_is_refused():
    with pytest.raises(UserError, match=r"resnetrs50 at 160, takes 2\.28"):
        rung_for(1)
