"""Networks of timm as backbones: convolutional networks, transformers, and channels-last networks."""

import pytest
import torch

from tresnet_downstream.backbones import TimmNetwork, TResNet
from tresnet_downstream.classification import ImageClassifier
from tresnet_downstream.errors import UserError

timm = pytest.importorskip("timm", reason="needs the extra timm")

LAST = {
    "resnet18": (512, 32),
    "efficientnet_b1": (1280, 32),
    "convnext_atto": (320, 32),
    "mobilenetv3_small_100": (576, 32),
    "vit_tiny_patch16_224": (192, 16),
    "swin_tiny_patch4_window7_224": (768, 32),
    "xcit_nano_12_p16_224": (128, 16),
}


@pytest.mark.parametrize("name", LAST)
@pytest.mark.parametrize("side", [96, 224])
@torch.no_grad()
def test_a_classifier_takes_the_last_feature_map_of_any_network(name, side):
    channels, stride = LAST[name]
    model = ImageClassifier({"type": "TimmNetwork", "model": name}, {"type": "LinearHead", "num_classes": 3}).eval()
    (features,) = model.backbone(torch.rand(2, 3, side, side))
    assert features.shape == (2, channels, side // stride, side // stride)
    assert model(torch.rand(2, 3, side, side)).shape == (2, 3)


@pytest.mark.parametrize("name", ["resnetrs50", "tf_efficientnet_lite0", "mixnet_l", "seresnext50_32x4d", "resnet50d"])
@torch.no_grad()
def test_pooled_features_equal_the_input_of_the_networks_own_classifier(name):
    theirs = timm.create_model(name, num_classes=0).eval()
    ours = ImageClassifier({"type": "TimmNetwork", "model": name}, None).eval()
    ours.backbone.network.load_state_dict(theirs.state_dict())
    images = torch.rand(2, 3, 64, 64)
    expected = theirs((images - ours.backbone.mean) / ours.backbone.std)
    assert torch.allclose(ours(images), expected, atol=1e-5)


@torch.no_grad()
def test_swin_feature_maps_are_timms_with_channels_first():
    ours = TimmNetwork("swin_tiny_patch4_window7_224", out_indices=(-1,)).eval()
    images = torch.rand(1, 3, 224, 224)
    theirs = ours.network.forward_features((images - ours.mean) / ours.std)
    assert torch.equal(ours(images)[0].permute(0, 2, 3, 1), theirs)


def test_layers_after_the_last_stage_are_only_used_for_the_last_stage_or_on_request():
    images = torch.rand(1, 3, 64, 64)
    for options, channels in (({}, 320), ({"final_layers": True}, 1280), ({"out_indices": (-1,)}, 1280)):
        network = TimmNetwork("efficientnet_b0", **options).eval()
        assert network.feature_info[-1]["channels"] == channels == network(images)[-1].shape[1]
        names = [name for name, _ in network.named_parameters() if "conv_head" in name]
        assert bool(names) == (channels == 1280)


@pytest.mark.parametrize(("count", "name"), [(0, "blocks.1"), (1, "blocks.2"), (4, "conv_head")])
def test_stages_freeze_up_to_the_next_one(count, name):
    network = TimmNetwork("efficientnet_b0", frozen_stages=count, final_layers=True).train()
    learning = [key for key, parameter in network.named_parameters() if parameter.requires_grad]
    assert learning[0].startswith(f"network.{name}.")
    frozen = [key for key, parameter in network.named_parameters() if not parameter.requires_grad]
    assert frozen[0] == "network.conv_stem.weight"


def test_a_size_that_an_assertion_without_message_refuses_is_refused_in_one_line(monkeypatch):
    def refuse(self, images, **_):
        raise AssertionError

    network = TimmNetwork("resnet18", out_indices=(-1,))
    monkeypatch.setattr(type(network.network), "forward_intermediates", refuse)
    with pytest.raises(
        UserError, match=r"resnet18 cannot process images of 96 x 96 \(AssertionError\); its own size is 224"
    ):
        network(torch.rand(1, 3, 96, 96))


def test_a_size_that_the_network_does_not_take_is_refused_in_one_line():
    network = TimmNetwork("cait_xxs24_224", out_indices=(0,))
    with pytest.raises(UserError, match=r"cait_xxs24_224 cannot process images of 96 x 96 .*own size is 224 x 224"):
        network(torch.rand(1, 3, 96, 96))


@pytest.mark.parametrize("build", [TResNet, lambda **given: TimmNetwork("resnet18", **given)])
def test_stages_may_be_counted_from_the_end(build):
    assert build(out_indices=(-1,)).out_indices == (3,)
    assert build(out_indices=(0, -2)).out_indices == (0, 2)
    with pytest.raises(UserError, match=r"out_indices=\(-5,\)"):
        build(out_indices=(-5,))


def test_a_transformer_has_no_stages_to_freeze():
    with pytest.raises(UserError, match="frozen_stages=0: vit_tiny_patch16_224 has 0 stages to freeze"):
        TimmNetwork("vit_tiny_patch16_224", out_indices=(0,), frozen_stages=0)


def test_options_reach_the_networks_own_function():
    narrow = TimmNetwork("resnet18", options={"channels": (32, 64, 128, 256)})
    assert [stage["channels"] for stage in narrow.feature_info] == [32, 64, 128, 256]
    with pytest.raises(UserError, match="chanels"):
        TimmNetwork("resnet18", options={"chanels": (32, 64, 128, 256)})
