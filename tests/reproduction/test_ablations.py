"""The ablated networks lack the removed part, and train like networks of plain operators."""

import pytest
import torch

from tresnet_downstream.backbones import TResNet
from tresnet_downstream.reproduction.ablations import TResNetWithoutBlur, TResNetWithoutSqueezeExcite

SIZES = {"layers": (1, 2, 1, 2), "width": 0.25}


@pytest.mark.parametrize("network", [TResNetWithoutSqueezeExcite, TResNetWithoutBlur])
def test_gradients_equal_those_of_plain_blocks(network):
    torch.manual_seed(0)
    lean = network(**SIZES).double()
    plain = network(norm="batchnorm", **SIZES).double()
    plain.load_state_dict(lean.state_dict())
    images = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    assert not lean.plain_blocks()
    assert plain.plain_blocks(), "the second network runs plain blocks"
    for each in (lean, plain):
        each.train()(images)[-1].square().mean().backward()
    expected = dict(plain.named_parameters())
    for name, parameter in lean.named_parameters():
        assert torch.allclose(parameter.grad, expected[name].grad, rtol=1e-6, atol=1e-10), name


def test_only_the_named_part_is_removed():
    full = {name for name, _ in TResNet(**SIZES).named_parameters()}
    without_gates = {name for name, _ in TResNetWithoutSqueezeExcite(**SIZES).named_parameters()}
    without_blur = {name for name, _ in TResNetWithoutBlur(**SIZES).named_parameters()}
    assert full - without_gates == {name for name in full if ".se." in name} != set()
    assert without_gates < full
    assert without_blur == full, "blur pools have no parameters"


def test_feature_maps_keep_their_shapes():
    images = torch.rand(1, 3, 64, 64)
    shapes = [stage.shape for stage in TResNet(**SIZES)(images)]
    for network in (TResNetWithoutSqueezeExcite, TResNetWithoutBlur):
        assert [stage.shape for stage in network(**SIZES)(images)] == shapes
