import pytest
import torch
import torch.nn.functional as F

from tresnet_downstream.backbones import ActivatedBatchNorm
from tresnet_downstream.backbones.layers import SqueezeExcite
from tresnet_downstream.backbones.lean_ops import gated_pointwise_conv, residual_tail

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
    x, shortcut = torch.randn(2, 3, CHANNELS, 5, 4).double()
    return norm, gate, scale, x, shortcut


def plain_tail(x, shortcut, norm, gate, scale):
    z = F.batch_norm(
        x, norm.running_mean.clone(), norm.running_var.clone(), norm.scale(), norm.bias, norm.training, 0.1, norm.eps
    )
    z = z if gate is None else z * gate(z)
    return F.relu(shortcut + (z if scale is None else z * scale[:, None, None, None]))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("scaled", [True, False])
def test_tail_equals_its_operators(training, gated, scaled):
    norm, gate, scale, x, shortcut = parts(training, gated, scaled)
    grad = torch.randn_like(x)
    results = []
    for tail in (residual_tail, plain_tail):
        leaves = [x.clone().requires_grad_(), shortcut.clone().requires_grad_()]
        out = tail(*leaves, norm, gate, scale)
        trained = [*norm.parameters(), *([] if gate is None else gate.parameters())]
        results.append([out, *torch.autograd.grad(out, [*leaves, *trained], grad)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_tail_keeps_its_input_and_its_result_alone():
    norm, gate, _, x, shortcut = parts(True, True, False)
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.setdefault(t.data_ptr(), t), lambda t: t):
        x, shortcut = x.mul(1).requires_grad_(), shortcut.mul(1).requires_grad_()
        out = residual_tail(x, shortcut, norm, gate, None)
    large = {pointer for pointer, tensor in kept.items() if tensor.numel() == x.numel()}
    assert large == {x.data_ptr(), out.data_ptr()}


def test_tail_with_a_frozen_gate_gives_it_no_gradient():
    norm, gate, _, x, shortcut = parts(True, True, False)
    gate.fc1.requires_grad_(False)
    residual_tail(x.requires_grad_(), shortcut, norm, gate, None).sum().backward()
    assert gate.fc1.weight.grad is None
    assert gate.fc2.weight.grad is not None


def test_gated_convolution_equals_its_operators_and_keeps_no_product():
    x, gate = torch.randn(2, 6, 5, 4).double(), torch.rand(2, 6, 1, 1).double()
    weight = torch.randn(7, 6, 1, 1).double()
    grad = torch.randn(2, 7, 5, 4).double()
    results, kept = [], []
    for convolve in (gated_pointwise_conv, lambda x, gate, weight: F.conv2d(x * gate, weight)):
        leaves = [tensor.clone().requires_grad_() for tensor in (x, gate, weight)]
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
            out = convolve(*leaves)
        if not results:
            assert set(kept) == {leaf.data_ptr() for leaf in leaves}
        results.append([out, *torch.autograd.grad(out, leaves, grad)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_tail_sums_large_gradients_of_float16_in_float32():
    norm = ActivatedBatchNorm(CHANNELS, 1.0)
    x = (torch.randn(4, CHANNELS, 8, 8) * 20).half().requires_grad_()
    out = residual_tail(x, torch.zeros(4, CHANNELS, 8, 8).half(), norm, None, None)
    out.backward((torch.randn(4, CHANNELS, 8, 8) * 4096).half())
    assert x.grad.isfinite().all()
    assert norm.weight.grad.isfinite().all()
