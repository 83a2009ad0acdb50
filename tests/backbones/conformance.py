"""Shared by both tables of facilities: the network, its images, a training step, and the comparison of results."""

import torch

from tresnet_downstream import TResNet
from tresnet_downstream.backbones.lean import execution

SIZES = {"layers": (2, 1, 2, 1), "width": 0.25}
BLOCKS = sum(SIZES["layers"])
# With so many pixels the third stage goes without its last convolutions' outputs, and the fourth keeps them.
SIDE = 112
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}


def build(norm="inplace", with_cp=False, mode="train", **options):
    torch.manual_seed(1)
    network = TResNet(**{**SIZES, **options}, norm=norm, with_cp=with_cp).double()
    with torch.no_grad():
        for layer in network.norms():
            layer.weight.uniform_(0.5, 1.5)
            layer.bias.normal_(std=0.1)
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 2)
    return network.to(memory_format=torch.channels_last).train(mode == "train")


def images(seed=2, side=SIDE):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand((4, 3, side, side), generator=generator, dtype=torch.float64)
    return images.to(memory_format=torch.channels_last)


def loss_of(features):
    """A loss in which every number of every feature map has a weight of its own."""
    if isinstance(features, dict):
        features = features.values()
    return sum((f * torch.cos(torch.arange(f.numel(), dtype=f.dtype)).view_as(f)).sum() for f in features)


def numbers(network, features=()):
    """All that a step leaves behind."""
    result = {f"feature {i}": feature.detach() for i, feature in enumerate(features)}
    result |= {f"gradient of {name}": p.grad for name, p in network.named_parameters()}
    return result | {f"buffer {name}": buffer.clone() for name, buffer in network.named_buffers()}


def step(network, x):
    features = network(x)
    loss_of(features).backward()
    return numbers(network, features)


class Counted:
    """Counts the blocks that take their lean form in first runs."""

    def __init__(self, monkeypatch):
        self.blocks, branch = 0, execution._branch

        def counting(*args, **options):
            self.blocks += not execution.is_recomputing()
            return branch(*args, **options)

        monkeypatch.setattr(execution, "_branch", counting)


def assert_same_results(ours, theirs):
    """The same tensors under the same names, to the tolerance of each tensor's largest value."""
    assert ours.keys() == theirs.keys()
    assert any(value is not None and value.abs().max() > 0 for value in ours.values())
    for key, wanted in theirs.items():
        if wanted is None or not wanted.is_floating_point():
            assert wanted is ours[key] or torch.equal(wanted, ours[key]), key
            continue
        error = (ours[key].double() - wanted.double()).abs().max()
        # A bias before a norm has a gradient of 0 but for rounding.
        assert error <= TOLERANCE[wanted.dtype] * max(wanted.double().abs().max(), 1e-2), (key, error)
