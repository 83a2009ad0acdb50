import pytest
import torch
from timm.layers import BlurPool2d, SEModule
from timm.layers import SpaceToDepth as TimmSpaceToDepth

from tresnet_downstream.backbones.layers import BlurPool, SpaceToDepth, SqueezeExcite


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


def test_space_to_depth_has_an_inverse():
    x = torch.rand(2, 3, 24, 32)
    assert torch.equal(SpaceToDepth().back(SpaceToDepth()(x)), x)
