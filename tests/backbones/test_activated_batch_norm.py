import copy

import pytest
import torch
import torch.nn.functional as F
from golden_networks import golden
from torch import nn

from tresnet_downstream.backbones import ActivatedBatchNorm
from tresnet_downstream.backbones.lean.invertibility import INVERSION_TOLERANCE, inversion_holds
from tresnet_downstream.backbones.lean.recomputation import checkpointed
from tresnet_downstream.errors import UserError

PLAIN_TORCH = ("inplace", "batchnorm", "sync")


def make(norm, slope, weight, bias, **kwargs):
    layer = ActivatedBatchNorm(len(weight), slope, norm, **kwargs).to(weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


def run(layer, x, grad_y):
    x = x.clone().requires_grad_()
    y = layer(x)
    y.backward(grad_y)
    return y.detach(), x.grad, layer.weight.grad, layer.bias.grad


@pytest.mark.parametrize("norm", PLAIN_TORCH)
@pytest.mark.parametrize("case", range(3))
@pytest.mark.parametrize("training", [True, False])
def test_equals_inplace_abn(norm, case, training):
    case = golden("inplace_abn")[case]
    numbers = {key: torch.tensor(value, dtype=torch.float64) for key, value in case.items() if isinstance(value, list)}
    slope = 1.0 if case["activation"] == "identity" else case["negative_slope"]
    layer = make(norm, slope, numbers["weight"], numbers["bias"], eps=case["eps"], momentum=case["momentum"])
    layer.running_mean.copy_(numbers["running_mean"])
    layer.running_var.copy_(numbers["running_var"])
    layer.train(training)
    y, *grads = run(layer, numbers["x"], numbers["grad_y"])
    expected = numbers if training else {k: torch.tensor(v).double() for k, v in case["eval_grads"].items()}
    torch.testing.assert_close(y, numbers["y_train" if training else "y_eval"], rtol=1e-6, atol=1e-8)
    for grad, name in zip(grads, ("grad_x", "grad_weight", "grad_bias"), strict=True):
        torch.testing.assert_close(grad, expected[name], rtol=1e-6, atol=1e-6)
    if training:
        torch.testing.assert_close(layer.running_mean, numbers["running_mean_after"], rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(layer.running_var, numbers["running_var_after"], rtol=1e-6, atol=1e-9)
        assert layer.num_batches_tracked == 1


def test_equals_the_compiled_package_where_it_is_installed():
    pytest.importorskip("inplace_abn")
    weight, bias = torch.randn(8).double(), torch.randn(8).double()
    x, grad_y = torch.randn(4, 8, 5, 5).double(), torch.randn(4, 8, 5, 5).double()
    ours = run(make("inplace", 0.01, weight, bias), x, grad_y)
    # The package writes into its input, which must not be a leaf.
    layer = make("inplace_abn", 0.01, weight, bias)
    leaf = x.clone().requires_grad_()
    y = layer(leaf * 1)
    y.backward(grad_y)
    for mine, theirs in zip(ours, (y, leaf.grad, layer.weight.grad, layer.bias.grad), strict=True):
        torch.testing.assert_close(mine, theirs.detach(), rtol=1e-6, atol=1e-6)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "inplace_abn.functions", None)
    with pytest.raises(UserError, match=r"tresnet-downstream\[inplace-abn\]"):
        ActivatedBatchNorm(4, norm="inplace_abn")


@pytest.mark.parametrize("slope", [0.01, 1.0])
def test_inplace_saves_only_its_output(slope):
    layer = make("inplace", slope, torch.rand(8) + 0.5, torch.randn(8))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        x = torch.randn(4, 8, 6, 6).mul(1).requires_grad_()
        y = layer(x)
    assert y.data_ptr() in kept
    assert x.data_ptr() not in kept


@pytest.mark.parametrize("dtype", INVERSION_TOLERANCE)
@pytest.mark.parametrize("slope", [0.01, 0.001, 1e-6, 1.0])
@pytest.mark.parametrize("smallest", [1.0, 0.1, 1e-3, 1e-4, 1e-6, 0.0])
def test_gradients_stay_within_the_stated_bound(dtype, slope, smallest):
    """The error against a float64 pass over the same numbers, in units of the gradient's own size.

    Rounding of input, output and gradient to a short type costs some roundings by itself; inversion may add
    its tolerance, and nothing more, however small the weights.
    """
    generator = torch.Generator().manual_seed(1)
    weight = torch.tensor([1.0, -0.7, smallest, -smallest, 0.4, smallest])
    bias = torch.tensor([0.3, -0.2, 0.5, -0.5, 0.0, 0.1])
    wide = torch.promote_types(dtype, torch.float32)
    x = torch.randn(8, 6, 7, 7, generator=generator).to(dtype)
    grad_y = torch.randn(8, 6, 7, 7, generator=generator).to(dtype)
    _, *grads = run(make("inplace", slope, weight.to(wide), bias.to(wide)), x, grad_y)
    reference = make("batchnorm", slope, weight.double(), bias.double())
    _, *expected = run(reference, x.double(), grad_y.double())
    bound = 2 * INVERSION_TOLERANCE[dtype] + 8 * torch.finfo(dtype).eps
    # Per channel: a channel with a tiny weight has a tiny gradient, and its error is measured against that.
    grad_x, wanted = grads[0].double().transpose(0, 1).flatten(1), expected[0].transpose(0, 1).flatten(1)
    # Where the output rounds to the other side of 0, the leaky ReLU's slope differs: not the inversion's error.
    # A gradient below the smallest number of its type is lost in any form.
    limits = torch.finfo(dtype)
    error = (grad_x - wanted).abs().quantile(0.99, dim=1) - limits.smallest_normal * limits.eps
    assert (error / wanted.abs().amax(1)).max() < bound
    for got, want in zip(grads[1:], expected[1:], strict=True):
        assert ((got - want).abs().max() / want.abs().max()) < 2 * bound


def holds(slope, weight, dtype):
    return inversion_holds(weight, torch.ones(4), 1e-5, slope, dtype)


def test_tiny_weights_and_slopes_take_the_plain_form():
    ones = torch.ones(4)
    assert holds(0.01, ones, torch.float32)
    assert not holds(0.01, ones * 1e-6, torch.float32)
    assert holds(1e-6, ones, torch.float32)
    assert not holds(1e-6, ones, torch.float16)


def test_a_zero_weight_is_trained():
    layer = make("inplace", 1.0, torch.zeros(3), torch.zeros(3))
    *_, grad_weight, _ = run(layer, torch.randn(4, 3, 5, 5), torch.randn(4, 3, 5, 5))
    assert (grad_weight != 0).all()


@pytest.mark.parametrize("norm", PLAIN_TORCH)
def test_state_dict_is_that_of_batch_norm(norm):
    layer = ActivatedBatchNorm(5, norm=norm)
    torch.nn.BatchNorm2d(5).load_state_dict(layer.state_dict())
    layer.load_state_dict(torch.nn.BatchNorm2d(5).state_dict())


def test_is_an_instance_of_torchs_batch_norm():
    """As ``torch.optim.swa_utils.update_bn`` and the rules for weight decay do; conversions are refused by TResNet."""
    assert isinstance(ActivatedBatchNorm(3), torch.nn.modules.batchnorm._BatchNorm)


@pytest.mark.parametrize("norm", PLAIN_TORCH)
def test_recomputation_moves_statistics_once(norm):
    layers = ActivatedBatchNorm(3, norm=norm), ActivatedBatchNorm(3, norm=norm)
    x = (torch.randn(4, 3, 5, 5) + 1).requires_grad_()
    for layer, out in zip(layers, (layers[0](x), checkpointed(layers[1], x, [layers[1]])), strict=True):
        out.square().sum().backward()
        assert layer.num_batches_tracked == 1
    for name, value in layers[0].state_dict().items():
        assert torch.equal(value, layers[1].state_dict()[name]), name


@pytest.mark.parametrize("norm", PLAIN_TORCH)
def test_one_value_per_channel_is_refused_in_training(norm):
    with pytest.raises(ValueError, match=r"ore than (1|one) value"):
        ActivatedBatchNorm(3, norm=norm)(torch.randn(1, 3, 1, 1))


def test_double_backward_is_refused():
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    (grad,) = torch.autograd.grad(ActivatedBatchNorm(3)(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_a_second_backward_pass_gives_the_same():
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    y = ActivatedBatchNorm(3)(x).square().sum()
    y.backward(retain_graph=True)
    first = x.grad.clone()
    y.backward()
    torch.testing.assert_close(x.grad, 2 * first)


@pytest.mark.parametrize("norm", PLAIN_TORCH)
@pytest.mark.parametrize("dtype", [torch.int32, torch.complex64])
def test_other_types_are_refused(norm, dtype):
    with pytest.raises(TypeError, match="float64, float32, bfloat16 or float16"):
        ActivatedBatchNorm(3, norm=norm)(torch.ones(2, 3, 4, 4, dtype=dtype))


def test_evaluation_equals_folded_batch_norm():
    layer = make("inplace", 0.01, torch.randn(4), torch.randn(4)).eval()
    layer.running_mean.normal_()
    x = torch.randn(2, 4, 3, 3)
    z = F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight.abs() + 1e-5, layer.bias)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), F.leaky_relu(z, 0.01))
    torch.testing.assert_close(layer(x), F.leaky_relu(z, 0.01))


@pytest.mark.parametrize(("norm", "slope"), [("nothing", 0.01), ("inplace", 0), ("inplace", -0.1), ("inplace", 2)])
def test_wrong_arguments_raise_a_user_error(norm, slope):
    with pytest.raises(UserError):
        ActivatedBatchNorm(3, slope, norm)


@pytest.mark.parametrize("training", [True, False])
@torch.no_grad()
def test_an_ensemble_by_vmap_without_gradients_equals_its_members(training):
    members = [ActivatedBatchNorm(3, 0.01).train(training) for _ in range(3)]
    for member in members:
        nn.init.uniform_(member.weight, 0.5, 1.5)
        nn.init.uniform_(member.running_mean, -1, 1)
    x = torch.randn(4, 3, 5, 5)
    parameters, buffers = torch.func.stack_module_state([copy.deepcopy(member) for member in members])
    together = torch.func.vmap(
        lambda p, b, images: torch.func.functional_call(members[0], (p, b), (images,)), in_dims=(0, 0, None)
    )(parameters, buffers, x)
    for index, member in enumerate(members):
        assert torch.allclose(together[index], member(x), atol=1e-5)


@torch.no_grad()
def test_forward_derivatives_without_recorded_gradients_are_those_of_batch_norm():
    kinds = "inplace", "batchnorm"
    norm, plain = (ActivatedBatchNorm(3, 0.01, norm=kind).double().eval() for kind in kinds)
    x, direction = torch.randn(2, 4, 3, 5, 5, dtype=torch.float64).unbind()
    ours, theirs = (torch.func.jvp(each, (x,), (direction,)) for each in (norm, plain))
    assert torch.allclose(ours[1], theirs[1], atol=1e-12)
