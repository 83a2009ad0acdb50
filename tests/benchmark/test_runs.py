"""Training and inference steps: saved bytes, compared with counts by hand and with autograd's hooks."""

import gc

import pytest
import torch
from benchmark.tiny import CHANNELS, register
from torch import nn

from tresnet_downstream.benchmark.cases import Case
from tresnet_downstream.benchmark.devices import Cpu
from tresnet_downstream.benchmark.networks import NUM_CLASSES, tresnet
from tresnet_downstream.benchmark.runs import prepared
from tresnet_downstream.benchmark.work import multiply_adds
from tresnet_downstream.deployment.fuse import FusedTResNet

SIDE, BATCH = 32, 2


def step_of(network, task="training", type_="float32", form="eager", batch=BATCH):
    return prepared(Case(network, task, type_, form, SIDE, batch), Cpu())


def test_bytes_kept_are_those_counted_by_hand(tiny):
    step = step_of(tiny)
    step()
    # The sigmoid keeps its output, the linear layer its input, cross-entropy the log probabilities; and the loss with
    # its total weight, a number each. The pictures and weights were there before.
    by_hand = BATCH * (CHANNELS * SIDE * SIDE + CHANNELS + NUM_CLASSES) + 2
    assert step.bytes_kept() == 4 * by_hand
    assert step.peak_bytes() >= step.bytes_kept()


def test_gradients_of_weights_do_not_count(monkeypatch):
    """A layer with many weights and small feature maps: the peak is far below its gradient's size."""

    class Heavy(nn.Module):
        def __init__(self):
            super().__init__()
            self.weights = nn.ParameterList([nn.Parameter(torch.rand(1_000_000)) for _ in range(8)])

        def forward(self, x):
            return x[:, 0, 0, :1] * sum(weight.sum() for weight in self.weights) * torch.ones(1, NUM_CLASSES)

    step = step_of(register(monkeypatch, build=Heavy))
    step()
    # Of eight gradients of 4 MB, one is on its way at a time.
    assert step.peak_bytes() < 2 * 4e6


@pytest.mark.slow
@pytest.mark.parametrize("type_", ["float32", "bfloat16"])
def test_bytes_kept_of_a_tresnet_are_what_hooks_and_live_tensors_count(monkeypatch, type_):
    from tresnet_downstream.benchmark.networks import tresnet

    name = register(monkeypatch, build=tresnet("m", layers=(1, 1, 1, 1)), ours=True)
    step = step_of(name, type_=type_)
    step()
    before = storages(tensors_alive())
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        loss = step.loss(step.images, step.labels)
    after = storages([*kept, *tensors_alive()])
    counted = sum(size for pointer, size in after.items() if pointer not in before)
    del loss
    kept.clear()
    assert step.bytes_kept() == pytest.approx(counted, rel=0.01)


def storages(tensors):
    return {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}


def tensors_alive():
    gc.collect()
    tensors = [o for o in gc.get_objects() if type(o) in (torch.Tensor, nn.Parameter)]
    return [tensor for tensor in tensors if tensor.layout == torch.strided]  # others have no storage of this kind


def test_training_moves_weights_and_inference_does_not(tiny):
    for task, moves in (("training", True), ("inference", False)):
        step = step_of(tiny, task)
        before = step.network.conv.weight.detach().clone()
        step()
        assert torch.equal(before, step.network.conv.weight) != moves
        assert step.network.training == moves
    assert step.bytes_kept() is None


def test_every_network_sees_the_same_pictures_channels_last(tiny, monkeypatch):
    first, second = step_of(tiny), step_of(register(monkeypatch, "other"))
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.network.conv.weight, second.network.conv.weight)
    assert first.images.is_contiguous(memory_format=torch.channels_last)
    assert first.network.conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_short_types_are_autocast_in_training_and_converted_in_inference(tiny):
    training, inference = step_of(tiny, type_="bfloat16"), step_of(tiny, "inference", "bfloat16")
    seen = []
    for step in (training, inference):
        step.network.conv.register_forward_hook(lambda module, given, out: seen.append(out.dtype))
        step()
    assert seen == [torch.bfloat16, torch.bfloat16]
    assert training.network.conv.weight.dtype == torch.float32
    assert inference.network.conv.weight.dtype == inference.images.dtype == torch.bfloat16


def test_fused_form_times_what_fuse_gives(monkeypatch):
    register(monkeypatch, "small", tresnet("m", layers=(1, 1, 1, 1), width=0.25), ours=True)
    step = step_of("small", "inference", form="fused")
    step()
    assert isinstance(step.network.backbone, FusedTResNet)


def test_compiled_form_times_what_the_compiler_gives(tiny, monkeypatch):
    asked = []

    def compile_(network, **options):
        asked.append(options)
        return network

    monkeypatch.setattr(torch, "compile", compile_)
    step_of(tiny, "training", form="compiled")()
    step_of(tiny, "inference", form="compiled")()
    assert asked == [{}, {"options": {"freezing": True}}]


def test_multiply_adds_are_those_counted_by_hand(tiny):
    step = step_of(tiny)
    assert multiply_adds(step.network, SIDE) == 27 * CHANNELS * SIDE * SIDE + CHANNELS * NUM_CLASSES
