import pytest
import torch
import torch.nn.functional as F

from tresnet_downstream.backbones import ActivatedBatchNorm
from tresnet_downstream.backbones.branch_scaling import SqueezeExcite
from tresnet_downstream.backbones.lean.gated_norm import gated_norm

CHANNELS = 6


def parts(training, gated, scaled):
    torch.manual_seed(1)
    norm = ActivatedBatchNorm(CHANNELS, 1.0).double().train(training)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, -0.8, 0.0, 1e-7, 0.5, 2.0]))
        norm.bias.normal_()
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    gate = SqueezeExcite(CHANNELS, 4).double() if gated else None
    scale = torch.tensor([0.0, 2.0, 2.0]).double() if scaled else None
    return norm, gate, scale, torch.randn(3, CHANNELS, 5, 4).double()


def lean(x, norm, gate=None, scale=None, **options):
    return gated_norm(x, norm.values(x), gate, scale, **options)


def plain(x, norm, gate, scale):
    z = F.batch_norm(
        x, norm.running_mean.clone(), norm.running_var.clone(), norm.scale(), norm.bias, norm.training, 0.1, norm.eps
    )
    z = z if gate is None else z * gate(z)
    return z if scale is None else z * scale[:, None, None, None]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("scaled", [True, False])
def test_equals_its_operators(training, gated, scaled):
    norm, gate, scale, x = parts(training, gated, scaled)
    grad = torch.randn_like(x)
    results = []
    for step in (lean, plain):
        leaf = x.clone().requires_grad_()
        out = step(leaf, norm, gate, scale)
        trained = [*norm.parameters(), *([] if gate is None else gate.parameters())]
        results.append([out, *torch.autograd.grad(out, [leaf, *trained], grad)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gated", [True, False])
def test_joins_a_shortcut_as_its_operators_do(gated):
    norm, gate, scale, x = parts(True, gated, True)
    shortcut, grad = torch.randn_like(x), torch.randn_like(x)
    results = []
    for step in (lean, lambda *args, shortcut: F.relu(plain(*args) + shortcut)):
        leaves = x.clone().requires_grad_(), shortcut.clone().requires_grad_()
        out = step(leaves[0], norm, gate, scale, shortcut=leaves[1])
        results.append([out, *torch.autograd.grad(out, [*leaves, *norm.parameters()], grad)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_saves_only_its_input():
    norm, gate, _, x = parts(True, True, False)
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.setdefault(t.data_ptr(), t), lambda t: t):
        x = x.mul(1).requires_grad_()
        lean(x, norm, gate)
    assert {pointer for pointer, tensor in kept.items() if tensor.numel() >= x.numel()} == {x.data_ptr()}


def test_a_frozen_gate_has_no_gradient():
    norm, gate, _, x = parts(True, True, False)
    gate.fc1.requires_grad_(False)
    lean(x.requires_grad_(), norm, gate).sum().backward()
    assert gate.fc1.weight.grad is None
    assert gate.fc2.weight.grad is not None


def test_sums_large_gradients_of_float16_in_float32():
    norm = ActivatedBatchNorm(CHANNELS, 1.0)
    x = (torch.randn(4, CHANNELS, 8, 8) * 20).half().requires_grad_()
    lean(x, norm).backward((torch.randn(4, CHANNELS, 8, 8) * 4096).half())
    assert x.grad.isfinite().all()
    assert norm.weight.grad.isfinite().all()
