import pytest
import torch
from timm.layers import BlurPool2d, SEModule
from timm.layers import SpaceToDepth as TimmSpaceToDepth

from tresnet_downstream.backbones.layers import BlurPool, SpaceToDepth, SqueezeExcite, lean_stem_conv


def test_space_to_depth_orders_channels_as_timm_does():
    x = torch.rand(2, 3, 24, 32)
    assert torch.equal(SpaceToDepth()(x), TimmSpaceToDepth(4)(x))


@pytest.mark.parametrize("sides", [(8, 8), (7, 9), (2, 3)])
def test_blur_pool_equals_timms(sides):
    x = torch.randn(2, 5, *sides)
    torch.testing.assert_close(BlurPool(5)(x), BlurPool2d(5)(x))


def test_blur_pool_has_the_published_filter_and_no_state():
    pool = BlurPool(1)
    published = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16
    assert torch.equal(pool.filter[0, 0], published)
    assert not pool.state_dict()


def test_squeeze_excite_equals_timms():
    ours, theirs = SqueezeExcite(8, 4), SEModule(8, rd_channels=4)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(x * ours(x), theirs(x))


@pytest.mark.parametrize("sides", [(8, 8), (7, 9), (2, 3), (3, 2)])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_lean_blur_equals_the_plain_one_and_keeps_no_feature_map(sides, layout):
    pool, kept = BlurPool(5).double(), []
    x = torch.randn(2, 5, *sides).double().to(memory_format=layout).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        lean = pool.lean(x)
    assert kept == [pool.filter.shape]
    plain = pool(x)
    grad = torch.randn_like(plain)
    (ours,), (theirs,) = (torch.autograd.grad(out, [x], grad) for out in (lean, plain))
    torch.testing.assert_close(lean, plain)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert ours.stride() == x.stride()


def test_space_to_depth_has_an_inverse():
    x = torch.rand(2, 3, 24, 32)
    assert torch.equal(SpaceToDepth().back(SpaceToDepth()(x)), x)


def test_lean_stem_equals_the_plain_one_and_keeps_the_pictures():
    rearrange, kept = SpaceToDepth(), []
    x, weight = torch.rand(2, 3, 16, 24).double().requires_grad_(), torch.randn(5, 48, 3, 3).double().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        lean = lean_stem_conv(x, rearrange, weight)
    assert kept == [x.data_ptr(), weight.data_ptr()]
    plain = torch.nn.functional.conv2d(rearrange(x), weight, padding=1)
    grad = torch.randn_like(plain)
    for ours, theirs in zip(*(torch.autograd.grad(out, [x, weight], grad) for out in (lean, plain)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
