"""Weight files of timm's networks: the network's own classifier and timm's own preprocessing."""

import numpy as np
import pytest
import torch
from made_data import make_voc
from PIL import Image
from running.small_data import call

from tresnet_downstream import load_model, predict
from tresnet_downstream.classification import ImageClassifier
from tresnet_downstream.classification.timm_files import pretrained_config, timm_pipeline
from tresnet_downstream.errors import UserError

timm = pytest.importorskip("timm", reason="needs the extra timm")
timm_data = pytest.importorskip("timm.data", reason="needs the extra timm")

NETWORK = "tf_efficientnet_lite0"


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    network = timm.create_model(NETWORK).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.1)
    return network


@pytest.fixture(scope="module")
def file(theirs, tmp_path_factory):
    path = tmp_path_factory.mktemp("timm") / "net.pth"
    torch.save({"state_dict": {f"module.{name}": value for name, value in theirs.state_dict().items()}}, path)
    return path


def test_predictions_are_those_of_timms_transform_and_network(theirs, file, tmp_path):
    draw = np.random.default_rng(0)
    paths = []
    for number, size in enumerate(((300, 260), (200, 400), (64, 64))):
        small = Image.fromarray(draw.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        paths.append(tmp_path / f"{number}.png")
        small.resize(size, Image.Resampling.BICUBIC).save(paths[-1])
    model = load_model(file, network=NETWORK)
    assert model.input_size == 224
    assert model.variant == NETWORK
    assert len(model.classes) == 1000
    transform = timm_data.create_transform(**timm_data.resolve_data_config({}, model=theirs))
    with torch.inference_mode():
        pictures = torch.stack([transform(Image.open(path).convert("RGB")) for path in paths])
        expected = theirs(pictures).softmax(1).numpy()
    assert abs(predict(model, paths) - expected).max() < 1e-3


def test_another_size_keeps_timms_crop(file):
    model = load_model(file, network=NETWORK, input_size=192)
    assert dict(model.pipeline[0]) == {
        "type": "ResizeAndCrop",
        "size": 192,
        "fraction": 0.875,
        "interpolation": "bicubic",
    }


def test_other_networks_and_names_are_refused(file):
    with pytest.raises(UserError, match="timm has no such network"):
        load_model(file, network="efficientnet_lite0_of_mine")
    with pytest.raises(UserError, match="has no weights of the classifier 'fc' that resnet18 has"):
        load_model(file, network="resnet18")
    with pytest.raises(UserError, match="has the weights of another network"):
        load_model(file, network="tf_efficientnet_b0")


def test_resizing_without_a_transform_is_refused():
    config = pretrained_config(NETWORK)
    with pytest.raises(UserError, match="'border' and 'bicubic'"):
        timm_pipeline({**config, "crop_mode": "border"})
    assert timm_pipeline({**config, "crop_mode": "squash"}) == ({"type": "SquashResize", "size": 224},)


def test_verify_scores_vocs_test_list_and_flat_folders_of_imagenet(file, tmp_path):
    make_voc(tmp_path / "voc")
    lists = tmp_path / "voc" / "ImageSets" / "Main"
    (lists / "test.txt").write_text((lists / "val.txt").read_text())
    head = {"type": "LinearHead", "num_classes": 2}
    model = ImageClassifier({"type": "TResNet", "layers": (1, 1, 1, 1), "width": 0.25}, head)
    torch.save({"model": model.state_dict(), "idx_to_class": ["cat", "dog"]}, tmp_path / "m.pth")
    status, out, err = call("weights", ["verify", tmp_path / "m.pth", "--data", tmp_path / "voc", "--size", 32])
    assert (status, err) == (0, "")
    assert "on 6 images" in out
    flat = tmp_path / "voc" / "JPEGImages"
    (tmp_path / "truth.txt").write_text("\n".join(["n01440764"] * 6))
    arguments = ["verify", file, "--network", NETWORK, "--data", flat, "--labels", tmp_path / "truth.txt", "--size", 32]
    status, out, err = call("weights", arguments)
    assert (status, err) == (0, "")
    assert "top-1 " in out
    assert "on 6 images" in out
