"""The outputs of fused networks equal those of the original networks."""

import copy
import sys

import pytest
import torch
from deployment.small_networks import SMALL, TIMM, V2, classifier, drawn
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from tresnet_downstream.backbones import TResNet
from tresnet_downstream.classification import ImageClassifier
from tresnet_downstream.deployment import fuse
from tresnet_downstream.deployment.fuse import folded
from tresnet_downstream.errors import UserError

fuse_module = sys.modules[folded.__module__]


def backbone(**settings):
    return drawn(TResNet(**{"layers": (1, 2, 2, 1), "width": 0.25, **settings}))


@pytest.mark.parametrize("variant", [{}, {"variant": "v2_l"}, {"blocks": ("bottleneck", "basic", "basic", "basic")}])
@pytest.mark.parametrize("size", [(64, 64), (72, 100), (20, 20)])
@torch.no_grad()
def test_every_feature_map_is_the_unfused_one(variant, size):
    network = backbone(**variant)
    fused, images = fuse(network), torch.rand(3, 3, *size)
    kept = images.clone()
    found, wanted = fused(images), network(images)
    assert [tuple(each.shape) for each in found] == [tuple(each.shape) for each in wanted]
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    assert torch.equal(images, kept)


@torch.no_grad()
def test_folding_takes_the_scale_as_absolute_weight_plus_epsilon():
    conv, norm = nn.Conv2d(2, 3, 1, bias=False), backbone().stem.norm
    norm = type(norm)(3, 1.0).eval()
    norm.weight.copy_(torch.tensor([-2.0, 0.0, 1e-6]))
    weight, bias = folded(conv, norm)
    scale = torch.tensor([2 + 1e-5, 1e-5, 1.1e-5]) / (1 + 1e-5) ** 0.5
    assert torch.allclose(weight, conv.weight * scale[:, None, None, None], rtol=1e-6)
    assert torch.equal(bias, torch.zeros(3))


@torch.no_grad()
def test_only_the_stages_asked_for_are_given():
    network = backbone(out_indices=(1, 2))
    assert [each.shape[1] for each in fuse(network)(torch.rand(1, 3, 64, 64))] == [32, 256]


@torch.no_grad()
def test_convolution_and_activation_are_one_operator_on_the_cpu():
    fused, images = fuse(backbone()), torch.rand(1, 3, 64, 64)
    fused(images)
    with torch.profiler.profile() as profile:
        fused(images)
    names = [event.name for event in profile.events()]
    # Stem, 3 x 2 in stages 1 and 2, 3 x 3 in stages 3 and 4, a shortcut in each of stages 2 to 4.
    convolutions = [name for name in names if name.startswith("mkldnn::_convolution_pointwise")]
    assert len(convolutions) == 1 + 6 + 9 + 3
    assert not any("leaky_relu" in name or "batch_norm" in name for name in names)


@torch.no_grad()
def test_packed_weights_serve_other_shapes_and_follow_changes():
    network = backbone()
    fused = fuse(network)
    fused(torch.rand(1, 3, 64, 64))
    images = torch.rand(2, 3, 128, 96)
    assert torch.allclose(fused(images)[-1], network(images)[-1], atol=1e-4)
    other = backbone()
    fused.load_state_dict(fuse(other).state_dict())
    assert torch.allclose(fused(images)[-1], other(images)[-1], atol=1e-4)
    twin = copy.deepcopy(fused)
    assert torch.equal(twin(images)[-1], fused(images)[-1])
    wide = other.double()(images.double())[-1]
    # The folded weights are float32's; the sums are not.
    assert torch.allclose(fused.double()(images.double())[-1], wide, atol=1e-4)


@torch.no_grad()
def test_float64_networks_fuse_in_float64():
    network = backbone().double()
    images = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    assert torch.allclose(fuse(network)(images)[-1], network(images)[-1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("native", [True, False])
@torch.no_grad()
def test_bfloat16_gives_bfloat16_near_the_float32_network(native, monkeypatch):
    monkeypatch.setattr(fuse_module, "has_bfloat16", lambda: native)
    network, images = backbone(), torch.rand(2, 3, 64, 64)
    fused = fuse(network).bfloat16()
    seen = []
    fused.stem.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    found, wanted = fused(images.bfloat16()), network(images)
    assert seen == [torch.bfloat16 if native else torch.float32]
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == torch.bfloat16
        # Roundings of 2**-9 at every layer, or of weights, input and output alone.
        assert (ours - theirs).norm() <= (0.03 if native else 0.01) * theirs.norm()


@torch.no_grad()
def test_autocast_computes_in_bfloat16():
    fused, images = fuse(backbone()), torch.rand(2, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        found = fused(images)[-1]
    assert (found - fused(images)[-1]).norm() <= 0.05 * found.norm()


def test_gradients_of_pictures_are_those_of_the_network():
    network = backbone()
    gradients = []
    for each in (network, fuse(network)):
        images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)).requires_grad_()
        each(images)[-1].square().mean().backward()
        gradients.append(images.grad)
    assert torch.allclose(*gradients, rtol=1e-3, atol=1e-5 * float(gradients[0].abs().max()))


@pytest.mark.parametrize("head", ["LinearHead", "BottleneckHead", "MLDecoderHead"])
@torch.no_grad()
def test_a_classifier_keeps_its_interface_and_logits(head):
    model = classifier(V2, head, loss={"type": "AsymmetricLoss"})
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fused, images = fuse(model), torch.rand(2, 3, 64, 64)
    assert isinstance(fused, ImageClassifier)
    assert (fused.classes, fused.pipeline, fused.multi_label) == (model.classes, model.pipeline, model.multi_label)
    assert fused.variant == "custom"
    assert torch.allclose(fused(images), model(images), atol=1e-4)
    assert fused.loss is None
    assert model.loss is not None
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    # The model stays as it was, and moves without the fused one.
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    wanted = fused(images)
    for parameter in model.parameters():
        parameter.zero_()
    assert torch.equal(fused(images), wanted)


@pytest.mark.slow
@torch.no_grad()
def test_the_compiler_takes_the_whole_graph_with_frozen_weights():
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, RuntimeError):
        pytest.skip("no C++ compiler here")
    model = classifier()
    compiled = torch.compile(fuse(model), fullgraph=True, options={"freezing": True})
    images = torch.rand(2, 3, 64, 64)
    assert torch.allclose(compiled(images), model(images), atol=1e-4)


def test_what_cannot_be_fused_is_refused_in_one_line():
    with pytest.raises(UserError, match=r"call model.eval\(\)"):
        fuse(backbone().train())
    with pytest.raises(UserError, match="ImageClassifier on TimmNetwork"):
        fuse(classifier(TIMM))
    with pytest.raises(UserError, match="got FusedTResNet"):
        fuse(fuse(backbone()))
    changed = backbone()
    changed.layer1[0] = nn.Identity()
    changed.eval()
    with pytest.raises(UserError, match=r"layer1.0: it is of class torch.nn.modules.linear.Identity"):
        fuse(changed)
    with pytest.warns(UserWarning, match="only predicts"):
        fuse(classifier(SMALL)).train()
    with pytest.raises(UserError, match="divisible by 4"):
        fuse(backbone())(torch.rand(1, 3, 30, 30))


@pytest.mark.slow
def test_the_backbone_of_a_detector_fuses_in_place(trained_detector, boxes):
    from tresnet_downstream.detection.predict import detect, load_detector

    detector = load_detector(trained_detector[0] / "epoch_2.pth")
    pictures = sorted((boxes / "pictures").glob("val_*.png"))[:4]
    wanted = list(detect(detector, pictures))
    detector.backbone = fuse(detector.backbone)
    for ours, theirs in zip(detect(detector, pictures), wanted, strict=True):
        assert ours.scores == pytest.approx(theirs.scores, abs=1e-4)
        assert ours.boxes == pytest.approx(theirs.boxes, abs=0.05)


def test_a_network_with_something_attached_is_refused():
    network = TResNet(layers=(1, 1, 1, 1), width=0.25).eval()
    network.layer3[0].conv3.register_forward_hook(lambda module, args, output: 2 * output)
    with pytest.raises(UserError, match=r"layer3.0: conv3 has a forward hook; merge or remove it first"):
        fuse(network)


@pytest.mark.filterwarnings("ignore:a fused network only predicts")
@torch.no_grad()
def test_features_can_be_extracted_by_the_names_of_stages_and_blocks():
    network, images = backbone(layers=(2, 2, 2, 1)), torch.rand(2, 3, 72, 100)
    names = ["stem", "layer1", "layer2.0", "layer3", "layer4"]
    wanted, found = (create_feature_extractor(each, names)(images) for each in (network, fuse(network)))
    for name in names:
        assert (found[name] - wanted[name]).abs().max() <= 1e-5 * wanted[name].abs().max(), name


@torch.no_grad()
def test_what_a_hook_keeps_of_any_part_is_not_overwritten():
    network, images = fuse(backbone(layers=(3, 3, 3, 3))), torch.rand(2, 3, 64, 64)
    kept, copies = {}, {}

    def keep(name):
        def hook(module, args, output):
            kept[name], copies[name] = output, output.clone()

        return hook

    parts = dict(network.named_modules())
    for name, part in parts.items():
        if name:
            part.register_forward_hook(keep(name))
    network(images)
    assert kept.keys() == parts.keys() - {""}
    assert [name for name in kept if not torch.equal(kept[name], copies[name])] == []


@torch.no_grad()
def test_a_block_that_is_called_by_itself_keeps_its_input():
    network, x = fuse(backbone(layers=(2, 2, 2, 2))), torch.rand(2, 3, 64, 64)
    x = network.stem(nn.functional.pixel_unshuffle(x, 4))
    for stage in network.stages:
        for block in stage:
            kept = x.clone()
            y = block(x)
            assert torch.equal(x, kept)
            x = y
