"""Parameter names and norm weights of every published style are translated and back."""

import numpy as np
import pytest
import timm
import torch
from golden_networks import golden, release_state_dict

from tresnet_downstream import TResNet
from tresnet_downstream.classification import ImageClassifier
from tresnet_downstream.weights.formats import (
    NORM_EPS,
    backbone_name,
    find_network,
    to_release,
    to_timm,
    translate,
)
from tresnet_downstream.weights.head_names import our_head_name

HEADS = {
    "linear": {"type": "LinearHead"},
    "bottleneck": {"type": "BottleneckHead", "bottleneck_channels": 5},
    "ml_decoder": {"type": "MLDecoderHead", "num_groups": 3, "embed_dim": 16, "feedforward_dim": 8, "num_heads": 2},
}


def small_state_dict(head="linear", blocks=("basic", "basic", "bottleneck", "bottleneck")):
    backbone = {"type": "TResNet", "layers": (1, 2, 1, 1), "width": 0.25, "blocks": blocks}
    model = ImageClassifier(backbone, {**HEADS[head], "num_classes": 7})
    for norm in model.backbone.norms():
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.running_mean)
    return model.state_dict()


@pytest.mark.parametrize(
    ("published", "ours"),
    [
        ("conv1.0.weight", "stem.conv.weight"),
        ("conv1.1.running_mean", "stem.norm.running_mean"),
        ("conv1.bn.running_mean", "stem.norm.running_mean"),
        ("layer1.0.conv2.1.bias", "layer1.0.norm2.bias"),
        ("layer1.0.conv2.bn.bias", "layer1.0.norm2.bias"),
        ("layer2.0.conv1.0.0.weight", "layer2.0.conv1.weight"),
        ("layer2.0.conv1.conv.weight", "layer2.0.conv1.weight"),
        ("layer3.0.conv2.0.1.weight", "layer3.0.norm2.weight"),
        ("layer2.0.downsample.1.0.weight", "layer2.0.downsample.conv.weight"),
        ("layer2.0.downsample.1.bn.weight", "layer2.0.downsample.norm.weight"),
        # The first stage of a V2-L has a shortcut without pooling, so its convolution comes first.
        ("layer1.0.downsample.0.1.bias", "layer1.0.downsample.norm.bias"),
        ("layer3.4.se.fc1.weight", "layer3.4.se.fc1.weight"),
    ],
)
def test_backbone_names_are_translated(published, ours):
    assert backbone_name(published) == ours


def test_heads_of_the_releases_are_translated():
    # As ASL's release defines its bottleneck head; ML-Decoder's names are in its golden file.
    assert our_head_name("head.fc.embedding_generator.0.weight", "BottleneckHead") == "head.bottleneck.weight"
    assert our_head_name("head.fc.FC.bias", "BottleneckHead") == "head.fc.bias"
    assert our_head_name("head.fc.bias", "LinearHead") == "head.fc.bias"


@pytest.mark.parametrize("release", ["official_tresnet_m", "ml_decoder_tresnet_m_80_full"])
def test_every_key_of_a_release_has_its_place_and_comes_back_bit_for_bit(release):
    published = release_state_dict(golden(release)["keys"])
    found = translate(published)
    backbone = {name: value for name, value in found.state_dict.items() if name.startswith("backbone.")}
    ours = TResNet("m").state_dict()
    assert {name: value.shape for name, value in backbone.items()} == {
        f"backbone.{name}": value.shape for name, value in ours.items()
    }
    assert (found.style, found.unused, found.inexact) == ("release", (), 0)
    back = to_release(found.state_dict)
    assert list(back) == list(published)
    assert all(torch.equal(back[name], published[name]) for name in published)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("blocks", [("basic", "basic", "bottleneck", "bottleneck"), ("bottleneck",) * 4])
def test_round_trip_to_the_release_changes_no_bit(head, blocks):
    ours = small_state_dict(head, blocks)
    again = translate(to_release(ours))
    assert again.state_dict.keys() == ours.keys()
    assert all(torch.equal(again.state_dict[name], ours[name]) for name in ours)


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "model.module."])
@pytest.mark.parametrize("write", [to_release, to_timm, dict], ids=["release", "timm", "ours"])
def test_whatever_stands_before_the_names_goes(write, prefix):
    ours = small_state_dict()
    found = translate({prefix + name: value for name, value in write(ours).items()})
    assert found.state_dict.keys() == ours.keys()


def test_detector_gives_its_backbone_and_names_the_rest():
    backbone = {name: value for name, value in small_state_dict().items() if name.startswith("backbone.")}
    detector = backbone | {"neck.conv.weight": torch.zeros(1), "bbox_head.cls.weight": torch.zeros(1)}
    found = translate(detector)
    assert found.state_dict.keys() == backbone.keys()
    assert found.unused == ("neck.conv.weight", "bbox_head.cls.weight")


def test_blur_filters_that_some_versions_stored_are_left_out():
    published = to_release(small_state_dict())
    found = translate(published | {"body.layer2.0.conv1.1.op.filt": torch.zeros(4, 1, 3, 3)})
    assert found.state_dict.keys() == translate(published).state_dict.keys()


def test_other_networks_are_not_taken_for_one():
    assert find_network(["conv1.weight", "layer1.0.conv1.weight", "fc.weight"]) is None
    assert translate({"conv1.weight": torch.zeros(1)}) is None


@pytest.mark.parametrize("name", ["tresnet_m", "tresnet_l", "tresnet_xl", "tresnet_v2_l"])
def test_names_written_for_timm_are_timms(name):
    with torch.device("meta"):
        theirs = timm.create_model(name).state_dict()
        ours = ImageClassifier(
            {"type": "TResNet", "variant": name.removeprefix("tresnet_")}, {"type": "LinearHead", "num_classes": 1000}
        ).state_dict()
    written = {key: value.shape for key, value in to_timm(ours).items()}
    assert written == {key: value.shape for key, value in theirs.items()}


def test_norm_weights_for_timm_are_their_magnitude_and_eps():
    ours = small_state_dict()
    weight = ours["backbone.stem.norm.weight"]
    assert torch.equal(to_timm(ours)["body.conv1.bn.weight"], weight.abs() + np.float32(1e-5).item())


def test_sign_of_a_batch_norm_weight_goes_into_convolution_and_mean():
    published = to_timm(small_state_dict())
    published["body.conv1.bn.weight"][::2] *= -1
    before = {name: value.clone() for name, value in published.items()}
    found = translate(published).state_dict
    assert all(torch.equal(published[name], before[name]) for name in before), "the tensors given were changed"
    for ours, theirs in (("conv.weight", "conv.weight"), ("norm.running_mean", "bn.running_mean")):
        got, given = found[f"backbone.stem.{ours}"], before[f"body.conv1.{theirs}"]
        assert torch.equal(got[::2], -given[::2])
        assert torch.equal(got[1::2], given[1::2])
    assert torch.allclose(
        found["backbone.stem.norm.weight"] + NORM_EPS, before["body.conv1.bn.weight"].abs(), rtol=1e-7
    )


def test_weights_below_eps_are_counted_and_become_eps():
    published = to_timm(small_state_dict())
    published["body.conv1.bn.weight"][:4] = torch.tensor([0.0, -0.0, 3e-6, -9e-6])
    found = translate(published)
    assert found.inexact == 4
    assert found.state_dict["backbone.stem.norm.weight"][:4].tolist() == [0, 0, 0, 0]


def test_batch_norm_weights_come_back_from_the_in_place_norm_to_one_rounding():
    published = to_timm(small_state_dict())
    again = to_timm(translate(published).state_dict)
    for name, value in published.items():
        assert torch.allclose(again[name], value, rtol=2.5e-7, atol=0), name
