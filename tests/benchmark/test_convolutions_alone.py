"""The layers that are timed alone, compared with torch's count of operations; shares are at most 1."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from benchmark.tiny import CHANNELS, Tiny
from torch import nn

from tresnet_downstream.benchmark import convolutions_alone
from tresnet_downstream.benchmark.convolutions_alone import (
    FORWARD,
    INPUT_GRADIENT,
    WEIGHT_GRADIENT,
    ConvolutionsAlone,
    Layer,
    layers_of,
    share_of_step,
)
from tresnet_downstream.benchmark.devices import Cpu
from tresnet_downstream.benchmark.networks import NETWORKS, NUM_CLASSES, tresnet
from tresnet_downstream.benchmark.work import multiply_adds

LAYERS = [
    Layer((2, 6, 9, 7), (4, 6, 3, 3), padding=(1, 1)),
    Layer((2, 6, 9, 7), (4, 6, 1, 1)),
    Layer((2, 6, 9, 7), (4, 6, 1, 1), stride=(2, 2)),
    Layer((2, 6, 9, 7), (6, 1, 5, 5), (2, 2), (2, 2), groups=6),
    Layer((2, 6, 9, 7), (8, 3, 3, 3), (1, 2), (2, 1), (2, 1), groups=2),
    Layer((5, 6, 1, 1), (4, 6, 1, 1)),
]


def test_layers_are_those_of_the_network():
    assert layers_of(Tiny(), 32) == {
        Layer((1, 3, 32, 32), (CHANNELS, 3, 3, 3), padding=(1, 1), input_gradient=False): 1,
        Layer((1, CHANNELS, 1, 1), (NUM_CLASSES, CHANNELS, 1, 1)): 1,
    }


@pytest.mark.parametrize("norm", ["inplace", "batchnorm"])
def test_multiply_adds_of_the_layers_are_those_of_the_network(norm):
    network = tresnet("m", layers=(1, 1, 1, 1), width=0.25, norm=norm)()
    layers = layers_of(network, 64)
    assert sum(count * layer.macs for layer, count in layers.items()) == multiply_adds(network, 64)
    assert network.training
    of_three = {layer.of_batch(3): count for layer, count in layers.items()}
    assert sum(count * layer.macs for layer, count in of_three.items()) == 3 * multiply_adds(network, 64)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["timm_tresnet_m", "resnet50", "resnext50", "mixnet_l", "resnetrs50"])
def test_multiply_adds_of_other_networks_layers_are_theirs(name):
    pytest.importorskip("timm", reason="needs the extra timm")
    network = NETWORKS[name].build()
    layers = layers_of(network, 96)
    assert sum(count * layer.macs for layer, count in layers.items()) == multiply_adds(network, 96)


def test_neither_pictures_nor_constant_weights_get_a_gradient():
    layers = layers_of(tresnet("m", layers=(1, 1, 1, 1), width=0.25)(), 64)
    # The blur of each network is the only convolution whose weights are constant.
    assert {layer.weight_gradient for layer in layers if layer.groups > 1} == {False}
    assert {layer.weight_gradient for layer in layers if layer.groups == 1} == {True}
    (stem,) = (layer for layer in layers if not layer.input_gradient)
    assert stem.inputs == (1, 48, 16, 16)
    assert stem.passes("training") == (FORWARD, WEIGHT_GRADIENT)
    assert stem.passes("inference") == (FORWARD,)
    assert LAYERS[0].passes("training") == (FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT)


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_every_way_to_compute_a_pass_equals_autograd(layer):
    operands = convolutions_alone._Operands([layer], torch.float32, Cpu())
    inputs, weight, gradient = operands.of(layer)
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    x, w = inputs.clone().requires_grad_(), weight.clone().requires_grad_()
    y = F.conv2d(x, w, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    assert y.shape == layer.outputs
    y.backward(gradient)
    expected = {FORWARD: y, INPUT_GRADIENT: x.grad, WEIGHT_GRADIENT: w.grad}
    for task in ("training", "inference"):
        for name in layer.passes(task):
            ways = convolutions_alone._ways(layer, name, task, operands)
            assert (len(ways) > 1) or not layer.is_product
            for way in ways:
                with torch.no_grad():
                    result = way()
                tensors = [part for part in (result if isinstance(result, tuple) else [result]) if part is not None]
                (values,) = tensors
                if values.dim() == 2:  # of a product: one row for each pixel, or the matrix of weights
                    values = values.unflatten(0, _pixels(expected[name])).permute(0, 3, 1, 2)
                torch.testing.assert_close(values, expected[name].detach(), rtol=1e-4, atol=1e-5)


def _pixels(images):
    return images.shape[0], images.shape[2], images.shape[3]


class CountingDevice(Cpu):
    """Counts how often it was waited for."""

    waits = 0

    def synchronise(self):
        self.waits += 1


def test_a_round_runs_each_layer_as_often_as_the_network_with_the_most_of_it(monkeypatch):
    plain, product = LAYERS[0], LAYERS[1]
    ran = Counter()
    monkeypatch.setattr(
        convolutions_alone,
        "_ways",
        lambda layer, name, task, operands: [lambda: ran.update([(layer, name)])],
    )
    device = CountingDevice()
    alone = ConvolutionsAlone([{plain: 2}, {plain: 1, product: 3}], "training", torch.float32, device)
    assert alone.seconds({plain: 2}) == ()
    alone()
    alone()
    passes = (FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT)
    assert ran == {**{(plain, name): 2 * 2 for name in passes}, **{(product, name): 2 * 3 for name in passes}}
    assert device.waits == 2 * 2 * 6  # before and after each of six passes, in two rounds
    single, both = alone.seconds({plain: 1}), alone.seconds({plain: 1, product: 3})
    assert len(single) == 2
    assert all(one < two for one, two in zip(single, both, strict=True))
    assert alone.seconds({plain: 2}) == pytest.approx([2 * value for value in single])


def test_the_fastest_of_several_ways_is_taken(monkeypatch):
    slow, fast = object(), object()
    alone = ConvolutionsAlone([{LAYERS[0]: 1}], "inference", torch.float32, Cpu())
    monkeypatch.setattr(alone, "_seconds", lambda way, count: 2.0 if way is slow else 1.0)
    assert alone._fastest([slow, fast]) is fast
    assert alone._fastest([fast, slow]) is fast
    assert alone._fastest([slow]) is slow


def test_share_is_the_median_of_the_rounds():
    share = share_of_step([1.0, 2.0, 9.0, 4.0, 5.0], [2.0, 4.0, 10.0, 5.0, 10.0])
    assert share.median == 0.5
    assert share.quartiles == (0.5, 0.8)
    assert str(share) == "50% (50% to 80%)"


def test_slow_drifts_of_the_machine_cancel():
    drift = [1.0, 3.0, 10.0]
    share = share_of_step([0.7 * value for value in drift], drift)
    assert share.quartiles == pytest.approx((0.7, 0.7))


@pytest.mark.parametrize("alone", [[1.1] * 4, [0.5, 0.9, 1.2, 1.3], [14.71] * 4])
def test_a_share_above_1_is_refused(alone):
    assert share_of_step(alone, [1.0] * 4) is None
    assert share_of_step([1.0] * 4, [1.0] * 4).median == 1


def test_products_of_other_kinds_are_not_recorded():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            tokens = self.conv(x).flatten(2)
            return tokens @ tokens.transpose(1, 2)

    network = Attention()
    assert sum(count * layer.macs for layer, count in layers_of(network, 8).items()) < multiply_adds(network, 8)
