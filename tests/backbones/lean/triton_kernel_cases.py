"""Tests of Triton's kernels. test_triton_kernels.py runs them in processes with the required environment."""

import os
import time

import pytest
import torch
import torch.nn.functional as F

from tresnet_downstream.backbones import ActivatedBatchNorm, TResNet, use_triton
from tresnet_downstream.backbones.downsampling import BlurPool
from tresnet_downstream.backbones.lean import acceleration, kernel_proof, triton_kernels
from tresnet_downstream.backbones.lean.blur import lean_blur

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
TYPES = [torch.float32, torch.bfloat16, torch.float16]
# Rows and channels that fill no tile; sides odd and even; an image of one pixel more than a tile.
SHAPES = [(2, 5, 5, 4), (1, 67, 2, 3), (2, 64, 13, 5), (3, 8, 1, 1)]


@pytest.fixture(autouse=True)
def _forced(monkeypatch):
    monkeypatch.setattr(acceleration, "DEVICES", [DEVICE])
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    use_triton(True)
    yield
    use_triton(True)


def images(shape, dtype=torch.float32):
    return torch.randn(shape).to(DEVICE, dtype).to(memory_format=torch.channels_last)


def table(*shape):
    return torch.randn(shape).to(DEVICE)


def spread(values):
    return values.reshape(-1, values.shape[-1])[:, :, None, None].double()


def close(ours, theirs, dtype=torch.float32, roundings=2):
    """Equal but for so many roundings of the result's type, and of sums in float32."""
    eps = torch.finfo(dtype).eps
    scale = theirs.double().abs().max().item()
    torch.testing.assert_close(
        ours.double(), theirs.double(), rtol=roundings * eps, atol=max(eps / 16, 1e-6) * max(scale, 1e-6)
    )


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("negative_slope", "per_image", "with_shortcut"),
    [(1.0, False, False), (1e-2, False, False), (1e-3, True, False), (0.0, True, True), (0.0, False, True)],
)
def test_line(dtype, shape, negative_slope, per_image, with_shortcut):
    x, shortcut = images(shape, dtype), images(shape, dtype) if with_shortcut else None
    size = shape[:2] if per_image else shape[1:2]
    slope, offset = table(*size), table(*size)
    ours = triton_kernels.line(x, slope, offset, negative_slope, shortcut)
    assert ours.dtype == dtype
    assert ours.is_contiguous(memory_format=torch.channels_last)
    z = x.double() * spread(slope) + spread(offset) + (shortcut.double() if with_shortcut else 0)
    close(ours, F.leaky_relu(z, negative_slope), dtype)


def test_line_takes_slopes_of_channels_with_offsets_of_images():
    x, slope, offset = images((3, 5, 2, 2)), table(1, 5), table(3, 5)
    close(triton_kernels.line(x, slope, offset), x * spread(slope) + spread(offset))


def test_nan_stays_nan():
    x = images((1, 3, 2, 2))
    x[0, 1, 0, 0] = torch.nan
    for negative_slope in (0.0, 0.01, 1.0):
        y = triton_kernels.line(x, torch.ones(3, device=DEVICE), torch.zeros(3, device=DEVICE), negative_slope)
        assert torch.equal(y.isnan(), x.isnan())


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("sides", [(2, 2), (2, 3), (3, 3), (3, 4), (5, 2), (9, 8), (7, 9), (12, 12)])
@pytest.mark.parametrize("negative_slope", [1.0, 1e-3])
def test_line_and_blur(dtype, sides, negative_slope):
    x, slope, offset = images((2, 5, *sides), dtype), table(5), table(5)
    y, blurred = triton_kernels.line_and_blur(x, slope, offset, negative_slope)
    assert torch.equal(y, triton_kernels.line(x, slope, offset, negative_slope))
    close(blurred, BlurPool(5).double().to(DEVICE)(y.double()), dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("negative_slope", "has_x", "has_y"),
    [(1.0, True, False), (1.0, False, True), (1e-2, False, True), (1e-3, True, True), (0.0, True, True)],
)
def test_gradient_through_the_activation(dtype, shape, negative_slope, has_x, has_y):
    grad, y = images(shape, dtype), images(shape, dtype) if has_y else None
    x = images(shape, dtype) if has_x else None
    gradient = triton_kernels.OutputGradient(grad, x, y, negative_slope)
    behind = grad.double() if y is None else grad.double() * torch.where(y > 0, 1.0, negative_slope).double()
    source = x.double() if has_x else F.leaky_relu(y.double(), 1 / negative_slope)
    centre, bend = table(shape[1]), table(shape[1])
    for middle in (centre, None):
        total_grad, total_product = gradient.sums(middle)
        close(total_grad, behind.sum((2, 3)))
        close(total_product, (behind * (source - (0 if middle is None else spread(middle)))).sum((2, 3)))
    for factor, offset in ((table(shape[1]), table(shape[1])), (table(*shape[:2]), table(*shape[:2]))):
        for curve in (bend, None):
            bent = 0 if curve is None else spread(curve) * source
            close(gradient.line(factor, curve, offset), spread(factor) * behind + bent + spread(offset), dtype)


@pytest.mark.parametrize("pixels", [(23, 23), (32, 32)])
def test_sums_of_images_that_take_several_programs(pixels):
    grad, x = images((2, 3, *pixels)), images((2, 3, *pixels))
    total_grad, total_product = triton_kernels.OutputGradient(grad, x, None).sums()
    close(total_grad, grad.sum((2, 3)))
    close(total_product, (grad * x).sum((2, 3)))


@pytest.mark.parametrize("dtype", TYPES)
def test_gradient_through_relu_is_stored(dtype):
    shape = (2, 5, 23, 24)
    grad, x, y = images(shape, dtype), images(shape, dtype), images(shape, dtype).relu_()
    behind, total_grad, total_product = triton_kernels.OutputGradient(grad, x, y, 0.0).through_relu()
    assert torch.equal(behind.grad, torch.where(y > 0, grad, 0))
    close(total_grad, behind.grad.double().sum((2, 3)))
    close(total_product, (behind.grad.double() * x.double()).sum((2, 3)))


@pytest.mark.parametrize("sides", [(2, 2), (2, 3), (3, 3), (3, 4), (5, 2), (9, 8), (7, 9), (12, 12)])
def test_gradient_through_the_blur(sides):
    shape = (2, 5, *sides)
    y = images(shape).requires_grad_()
    blurred = BlurPool(5).to(DEVICE)(y)
    grad = images(blurred.shape)
    (expected,) = torch.autograd.grad(blurred, y, grad)
    y = y.detach()
    gradient = triton_kernels.OutputGradient(grad, None, y, 0.01, blurred=True)
    expected = torch.where(y > 0, expected, 0.01 * expected)
    zeros = torch.zeros(5, device=DEVICE)
    close(gradient.line(torch.ones(5, device=DEVICE), None, zeros), expected)
    total_grad, total_product = gradient.sums()
    close(total_grad, expected.sum((2, 3)))
    close(total_product, (expected * F.leaky_relu(y, 100.0)).sum((2, 3)))


def norm_results(layer, x, grad_y, blurred):
    x = x.clone().requires_grad_()
    for parameter in layer.parameters():
        parameter.grad = None
    if blurred and acceleration.kernels_for(x) is not None:
        y = layer(x, blurred=True)
    else:
        y = lean_blur(layer(x), BlurPool(x.shape[1]).to(DEVICE)) if blurred else layer(x)
    y.backward(grad_y)
    return y.detach(), x.grad, layer.weight.grad, layer.bias.grad


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("slope", "smallest", "training"),
    [(1e-2, 0.3, True), (1e-3, 0.3, True), (1e-3, 1e-6, True), (1.0, 0.0, True), (1e-3, 0.3, False), (1.0, 0.0, False)],
)
@pytest.mark.parametrize("blurred", [True, False])
def test_norm_equals_the_plain_one(dtype, slope, smallest, training, blurred):
    """Weights of both signs, of 0 and too small to invert; ``smallest`` decides what is kept."""
    layer = ActivatedBatchNorm(5, slope).to(DEVICE)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, -0.7, smallest, -smallest, 0.4]))
        layer.bias.copy_(torch.tensor([0.3, -0.2, 0.1, -0.1, 0.0]))
        layer.running_mean.normal_()
    layer.train(training)
    x = images((2, 5, 6, 5), dtype)
    grad_y = images((2, 5, 3, 3) if blurred else (2, 5, 6, 5), dtype)
    ours = norm_results(layer, x, grad_y, blurred)
    use_triton(False)
    theirs = norm_results(layer, x, grad_y, blurred)
    assert [result.dtype for result in ours] == [result.dtype for result in theirs]
    # Torch's blur rounds its gradient to the short type; the kernels do not.
    tolerance = 1e-5 if dtype == torch.float32 else 4 * torch.finfo(dtype).eps
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance * other.abs().max().item())


class Counted:
    """Stands before the kernels and counts their use."""

    def __init__(self, monkeypatch):
        self.calls = {}
        for place, name in (
            (triton_kernels, "line"),
            (triton_kernels, "line_and_blur"),
            (triton_kernels.OutputGradient, "sums"),
            (triton_kernels.OutputGradient, "line"),
            (triton_kernels.OutputGradient, "through_relu"),
        ):
            self.watch(monkeypatch, place, name)

    def watch(self, monkeypatch, place, name):
        original, key = getattr(place, name), f"{place.__name__.rpartition('.')[2]}.{name}"

        def counting(*args, **options):
            self.calls[key] = self.calls.get(key, 0) + 1
            return original(*args, **options)

        monkeypatch.setattr(place, name, counting)


def step(network, x):
    for parameter in network.parameters():
        parameter.grad = None
    maps = network(x)
    sum(features.float().square().mean() for features in maps).backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    return {f"map {i}": features.detach() for i, features in enumerate(maps)} | gradients


@pytest.mark.parametrize("options", [{"drop_path_rate": 0.5}, {"with_cp": 2, "norm_eval": True}])
def test_a_networks_step_equals_the_plain_one(options, monkeypatch):
    network = TResNet(layers=(1, 1, 2, 1), width=0.125, **options).to(DEVICE).to(memory_format=torch.channels_last)
    with torch.no_grad():
        for norm in network.norms():
            norm.weight.uniform_(0.5, 1.5).mul_(torch.randn_like(norm.weight).sign())
            norm.bias.normal_(std=0.3)
            norm.running_var.uniform_(0.5, 2)
    network.train()
    x = torch.rand(2, 3, 68, 64).to(DEVICE).to(memory_format=torch.channels_last)
    # The proof's calls are not the network's.
    assert acceleration.kernels_for(x) is triton_kernels
    counted = Counted(monkeypatch)
    torch.manual_seed(1)
    ours = step(network, x)
    assert len(counted.calls) == 5, counted.calls
    total = sum(counted.calls.values())
    use_triton(False)
    torch.manual_seed(1)
    plain = step(network, x)
    assert sum(counted.calls.values()) == total
    for name, theirs in plain.items():
        worst = (ours[name] - theirs).abs().max().item()
        # cuDNN's own sums may differ from run to run.
        assert worst <= (1e-5 if DEVICE == "cpu" else 1e-4) * theirs.abs().max().item(), (name, worst)


@pytest.mark.parametrize("dtype", TYPES)
def test_the_kernels_pass_the_check_in_every_type(dtype):
    assert acceleration.kernels_for(images((2, 5, 4, 4), dtype)) is triton_kernels


class Broken:
    """Stands before one result of a kernel and makes one of its numbers wrong."""

    def __init__(self, monkeypatch, place, name, index):
        original = getattr(place, name)

        def breaking(*args, **options):
            result = original(*args, **options)
            part = result if index is None else result[index]
            values = part.grad if isinstance(part, triton_kernels.OutputGradient) else part
            values[(-1,) * values.dim()] += 0.5
            return result

        monkeypatch.setattr(place, name, breaking)


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("line", None),
        ("line_and_blur", 0),
        ("line_and_blur", 1),
        ("OutputGradient.sums", 0),
        ("OutputGradient.sums", 1),
        ("OutputGradient.through_relu", 0),
        ("OutputGradient.through_relu", 1),
        ("OutputGradient.through_relu", 2),
        ("OutputGradient.line", None),
    ],
)
def test_the_check_detects_a_wrong_kernel(name, index, monkeypatch):
    place = triton_kernels.OutputGradient if "." in name else triton_kernels
    Broken(monkeypatch, place, name.rpartition(".")[2], index)
    # The other kernels are as before.
    checks = {key: check for key, check in kernel_proof.CHECKS.items() if key.split(" ")[0] == name}
    monkeypatch.setattr(kernel_proof, "CHECKS", checks)
    monkeypatch.setattr(acceleration, "_proofs", {})
    with pytest.warns(UserWarning, match=rf"{DEVICE}.*{name}.* is off by 0.5, where") as caught:
        assert acceleration.kernels_for(images((2, 5, 4, 4))) is None
    assert len(caught) == 1


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
def test_the_check_does_not_run_during_cuda_graph_capture(monkeypatch, recwarn):
    monkeypatch.setattr(acceleration, "_proofs", {})
    x = images((2, 5, 4, 4))
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        captured = acceleration.kernels_for(x)
        x.add_(1)
    assert captured is None
    assert acceleration.kernels_for(x) is triton_kernels
    assert not recwarn


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
def test_a_check_takes_less_than_a_second_after_compilation():
    device = images((1, 1, 1, 1)).device
    assert kernel_proof.failure_of(triton_kernels, device, torch.bfloat16) is None
    start = time.perf_counter()
    assert kernel_proof.failure_of(triton_kernels, device, torch.bfloat16) is None
    assert time.perf_counter() - start < 1


def test_a_blur_of_a_single_row_is_refused():
    with pytest.raises(ValueError, match="at least 2 x 2 pixels, got 1 x 4"):
        triton_kernels.line_and_blur(images((2, 5, 1, 4)), table(5), table(5), 1.0)


def test_one_process_computes_the_same_bits_again():
    grad, x = images((2, 67, 24, 24)), images((2, 67, 24, 24))
    first, second = (triton_kernels.OutputGradient(grad, x, None).sums() for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


def test_other_layouts_types_and_switches_take_torchs_operators():
    x = images((2, 5, 4, 4))
    assert acceleration.kernels_for(x) is triton_kernels
    assert acceleration.kernels_for(x, x.contiguous()) is None
    assert acceleration.kernels_for(x.double()) is None
    assert acceleration.kernels_for(x[:0]) is None
    use_triton(False)
    assert acceleration.kernels_for(x) is None


def test_under_autocast_a_step_is_as_near_to_float32_as_the_plain_one():
    network = TResNet(layers=(1, 1, 2, 1), width=0.125).to(DEVICE).to(memory_format=torch.channels_last)
    with torch.no_grad():
        for norm in network.norms():
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(std=0.3)
    x = torch.rand(2, 3, 68, 64).to(DEVICE).to(memory_format=torch.channels_last)

    def gradients(autocast, on):
        use_triton(on)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=autocast):
            out = network(x)[-1]
        assert out.dtype == (torch.bfloat16 if autocast else torch.float32)
        return torch.cat([g.flatten() for g in torch.autograd.grad(out.float().square().mean(), network.parameters())])

    exact = gradients(False, False)
    ours, theirs = ((gradients(True, on) - exact).norm() for on in (True, False))
    assert 0 < ours < 1.25 * theirs
