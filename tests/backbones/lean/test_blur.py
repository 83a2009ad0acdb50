import pytest
import torch

from tresnet_downstream.backbones.downsampling import BlurPool
from tresnet_downstream.backbones.lean.blur import lean_blur


@pytest.mark.parametrize("sides", [(8, 8), (7, 9), (2, 3), (3, 2)])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_lean_blur_equals_the_plain_one_and_keeps_no_feature_map(sides, layout):
    pool, kept = BlurPool(5).double(), []
    x = torch.randn(2, 5, *sides).double().to(memory_format=layout).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        lean = lean_blur(x, pool)
    assert kept == [pool.filter.shape]
    plain = pool(x)
    grad = torch.randn_like(plain)
    (ours,), (theirs,) = (torch.autograd.grad(out, [x], grad) for out in (lean, plain))
    torch.testing.assert_close(lean, plain)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert ours.stride() == x.stride()
