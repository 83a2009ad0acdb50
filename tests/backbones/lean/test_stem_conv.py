import torch

from tresnet_downstream.backbones.downsampling import SpaceToDepth
from tresnet_downstream.backbones.lean.stem_conv import lean_stem_conv


def test_lean_stem_equals_the_plain_one_and_keeps_the_images():
    rearrange, kept = SpaceToDepth(), []
    x, weight = torch.rand(2, 3, 16, 24).double().requires_grad_(), torch.randn(5, 48, 3, 3).double().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        lean = lean_stem_conv(x, weight)
    assert kept == [x.data_ptr(), weight.data_ptr()]
    plain = torch.nn.functional.conv2d(rearrange(x), weight, padding=1)
    grad = torch.randn_like(plain)
    for ours, theirs in zip(*(torch.autograd.grad(out, [x, weight], grad) for out in (lean, plain)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
