"""The table of ResNet-RS networks, compared with timm, and the choice of a network for a budget."""

import pytest
import torch

from tresnet_downstream.backbones.resnet_rs import SCALED_NETWORKS, largest_within, scaled_networks_table
from tresnet_downstream.benchmark.work import multiply_adds
from tresnet_downstream.errors import UserError


@pytest.mark.parametrize("scaled", SCALED_NETWORKS[:3], ids=lambda scaled: f"{scaled.model}-{scaled.input_size}")
def test_work_and_size_are_those_of_timms_networks(scaled):
    timm = pytest.importorskip("timm", reason="needs the extra timm")
    with torch.device("meta"):
        network = timm.create_model(scaled.model)
    assert multiply_adds(network, scaled.input_size) / 1e9 == pytest.approx(scaled.multiply_adds, abs=0.005)
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(
        scaled.parameters, abs=0.05
    )


def test_work_and_accuracy_rise_with_each_network():
    for key in ("multiply_adds", "top1"):
        values = [getattr(network, key) for network in SCALED_NETWORKS]
        assert values == sorted(values)
    assert len(SCALED_NETWORKS) == 11


@pytest.mark.parametrize(
    ("budget", "model", "size"), [(2.28, "resnetrs50", 160), (30, "resnetrs270", 256), (1e9, "resnetrs420", 320)]
)
def test_the_largest_network_within_the_budget_is_proposed(budget, model, size):
    network = largest_within(budget)
    assert (network.model, network.input_size) == (model, size)
    assert f"> {model}" in scaled_networks_table(network)


def test_a_budget_below_the_smallest_network_is_refused():
    with pytest.raises(UserError, match=r"resnetrs50 at 160; give at least 2\.28"):
        largest_within(1)
