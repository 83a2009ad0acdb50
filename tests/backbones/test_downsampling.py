import pytest
import torch
from timm.layers import BlurPool2d
from timm.layers import SpaceToDepth as TimmSpaceToDepth

from tresnet_downstream.backbones.downsampling import BlurPool, SpaceToDepth


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


def test_space_to_depth_has_an_inverse():
    x = torch.rand(2, 3, 24, 32)
    assert torch.equal(SpaceToDepth().back(SpaceToDepth()(x)), x)
