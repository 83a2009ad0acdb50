import pytest
from golden_networks import golden

from tresnet_downstream import TResNet
from tresnet_downstream.backbones.key_names import from_release, translate_release_keys


@pytest.mark.parametrize(
    ("release", "ours"),
    [
        ("conv1.0.weight", "stem.conv.weight"),
        ("conv1.1.running_mean", "stem.norm.running_mean"),
        ("layer1.0.conv2.1.bias", "layer1.0.norm2.bias"),
        ("layer2.0.conv1.0.0.weight", "layer2.0.conv1.weight"),
        ("layer3.0.conv2.0.1.weight", "layer3.0.norm2.weight"),
        ("layer2.0.downsample.1.0.weight", "layer2.0.downsample.conv.weight"),
        # The first stage of a V2-L has a shortcut without pooling, so its convolution comes first.
        ("layer1.0.downsample.0.1.bias", "layer1.0.downsample.norm.bias"),
        ("layer3.4.se.fc1.weight", "layer3.4.se.fc1.weight"),
    ],
)
def test_release_names_are_translated(release, ours):
    assert from_release(release) == ours


@pytest.mark.parametrize("release", ["official_tresnet_m", "ml_decoder_tresnet_m_80_full"])
def test_every_backbone_key_of_a_release_has_its_place(release):
    keys = golden(release)["keys"]
    state_dict = {key: None for key in keys if key.startswith("body.")}
    translate_release_keys(state_dict, "")
    ours = {name: list(tensor.shape) for name, tensor in TResNet("m").state_dict().items()}
    assert state_dict.keys() == ours.keys()
    for key, shape in keys.items():
        if key.startswith("body."):
            assert ours[from_release(key[5:])] == shape


def test_names_of_our_own_and_other_prefixes_are_left_alone():
    state_dict = {"stem.conv.weight": 1, "head.fc.weight": 2, "backbone.body.conv1.0.weight": 3}
    translate_release_keys(state_dict, "backbone.")
    assert state_dict == {"stem.conv.weight": 1, "head.fc.weight": 2, "backbone.stem.conv.weight": 3}
