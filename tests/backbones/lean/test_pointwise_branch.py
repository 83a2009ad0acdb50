import pytest
import torch
import torch.nn.functional as F

from tresnet_downstream.backbones import ActivatedBatchNorm
from tresnet_downstream.backbones.lean import pointwise_branch as module
from tresnet_downstream.backbones.lean.pointwise_branch import pointwise_branch

# Pictures of 3 x 5 x 7 pixels and 4 channels: many pixels for each channel, or few where the bound is moved.
BOUNDS = {"by moments": 3, "by output": 1000}


def parts(training):
    torch.manual_seed(2)
    norm = ActivatedBatchNorm(9, 1.0).double().train(training)
    with torch.no_grad():
        norm.weight.normal_()
        norm.weight[0] = 0
        norm.bias.normal_()
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    # A mean far from 0, where sums that are not centred would lose digits.
    x, weight = torch.randn(3, 4, 5, 7).double() + 10, torch.randn(9, 4, 1, 1).double()
    return x, weight, norm


def plain(x, weight, norm, gate=None, pool=False, factors=None):
    x = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False) if pool else x
    x = F.conv2d(x if gate is None else x * gate, weight)
    statistics = norm.running_mean.clone(), norm.running_var.clone()
    x = F.batch_norm(x, *statistics, norm.scale(), norm.bias, norm.training, 0.1, norm.eps)
    return x if factors is None else x * factors[:, None, None, None]


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("extra", ["nothing", "gate", "pool", "scale"])
def test_equals_its_operators(bound, training, layout, extra, monkeypatch):
    monkeypatch.setattr(module, "PIXELS_PER_CHANNEL", BOUNDS[bound])
    x, weight, norm = parts(training)
    gate = torch.rand(3, 4, 1, 1).double() if extra == "gate" else None
    scale = torch.tensor([0.0, 2.0, 2.0]).double() if extra == "scale" else None
    results = []
    grad = None
    for step in (pointwise_branch, plain):
        leaves = [leaf.clone().to(memory_format=layout).requires_grad_() for leaf in (x, weight)]
        leaves += [] if gate is None else [gate.clone().requires_grad_()]
        out = step(*leaves[:2], norm, *leaves[2:] or [None], pool=extra == "pool", factors=scale)
        grad = torch.randn_like(out) if grad is None else grad
        results.append([out, *torch.autograd.grad(out, [*leaves, *norm.parameters()], grad)])
    assert results[0][0].is_contiguous(memory_format=layout)
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("scaled", [True, False])
def test_joins_a_shortcut_as_its_operators_do(scaled):
    x, weight, norm = parts(True)
    scale = torch.tensor([0.0, 2.0, 2.0]).double() if scaled else None
    shortcut, grad = torch.randn(2, 3, 9, 5, 7).double()
    results = []
    for step in (pointwise_branch, lambda *args, shortcut, **options: F.relu(plain(*args, **options) + shortcut)):
        leaves = [leaf.clone().requires_grad_() for leaf in (x, weight, shortcut)]
        out = step(*leaves[:2], norm, factors=scale, shortcut=leaves[2])
        results.append([out, *torch.autograd.grad(out, [*leaves, *norm.parameters()], grad)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("bound", "count"), [("by moments", 0), ("by output", 1)])
def test_saves_the_output_of_the_convolution_only_for_few_pixels(bound, count, monkeypatch):
    monkeypatch.setattr(module, "PIXELS_PER_CHANNEL", BOUNDS[bound])
    x, weight, norm = parts(True)
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.setdefault(t.data_ptr(), t), lambda t: t):
        out = pointwise_branch(x.requires_grad_(), weight, norm, torch.rand(3, 4, 1, 1).double())
    assert sum(tensor.shape == out.shape for tensor in kept.values()) == count
    assert sum(tensor.shape == x.shape for tensor in kept.values()) == 1
    assert out.data_ptr() not in kept


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_of_short_types_are_as_good_as_the_plain_ones(bound, dtype, monkeypatch):
    monkeypatch.setattr(module, "PIXELS_PER_CHANNEL", BOUNDS[bound])
    x, weight, norm = parts(True)
    grad = torch.randn(3, 9, 5, 7).double()

    def gradients(step, *leaves):
        leaves = [leaf.clone().requires_grad_() for leaf in leaves]
        out = step(*leaves, norm)
        return torch.autograd.grad(out, leaves, grad.to(out.dtype))

    exact = gradients(plain, x, weight)
    norm.float()
    ours = gradients(pointwise_branch, x.to(dtype), weight.float())
    with torch.autocast("cpu", dtype=dtype):
        theirs = gradients(plain, x.to(dtype), weight.float())
    for mine, other, wanted in zip(ours, theirs, exact, strict=True):
        error = (mine.double() - wanted).norm() / wanted.norm()
        assert error < 2 * (other.double() - wanted).norm() / wanted.norm() + 4 * torch.finfo(dtype).eps


def test_results_that_are_not_needed_are_not_computed():
    x, weight, norm = parts(True)
    out = pointwise_branch(x, weight, norm, read=False)
    assert out.shape == (3, 9, 5, 7)
    assert out.untyped_storage().nbytes() == 8
