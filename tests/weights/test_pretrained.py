"""Networks are initialised from files of every style: by init_cfg, state dicts, and MMEngine's loaders."""

import pytest
import timm
import torch
from mmengine.model import BaseModule
from mmengine.runner import load_checkpoint
from torch import nn

from tresnet_downstream import TResNet
from tresnet_downstream.backbones import TimmNetwork
from tresnet_downstream.classification import ImageClassifier
from tresnet_downstream.errors import UserError
from tresnet_downstream.weights import (
    catalogue,
    load_pretrained,
    schemes,  # noqa: F401 - tresnet:// for MMEngine's loaders
)
from tresnet_downstream.weights.catalogue import Place, PublicWeight
from tresnet_downstream.weights.formats import to_release
from tresnet_downstream.weights.pretrained import without_second_names

SMALL = {"layers": (1, 1, 1, 1), "width": 0.25}


class Detector(BaseModule):
    """As MMDetection builds one: a backbone of the root registry, and parts of its own."""

    def __init__(self, init_cfg=None):
        super().__init__()
        self.backbone = TResNet(**SMALL, init_cfg=init_cfg)
        self.neck = torch.nn.Conv2d(4, 4, 1)


def classifier(num_classes=7):
    return ImageClassifier({"type": "TResNet", **SMALL}, {"type": "LinearHead", "num_classes": num_classes})


@pytest.fixture
def release(tmp_path):
    """A classifier, and its weights as the ASL release stores them."""
    model = classifier()
    torch.save({"model": to_release(model.state_dict()), "num_classes": 7}, tmp_path / "small.pth")
    return model, str(tmp_path / "small.pth")


def same(backbone, model):
    wanted = model.backbone.state_dict()
    return all(torch.equal(value, wanted[name]) for name, value in backbone.state_dict().items())


def pretrained(path, **more):
    return {"type": "Pretrained", "checkpoint": path, **more}


def test_init_cfg_takes_a_releases_file_within_any_model(release):
    model, path = release
    detector = Detector(pretrained(path))
    detector.init_weights()
    assert same(detector.backbone, model)


def test_init_cfg_takes_a_name_of_the_catalogue(release, monkeypatch):
    model, path = release
    entry = PublicWeight((Place("https://example.org/small.pth"),), "m", "ImageNet-1k", 7, 224, "crop", 1)
    monkeypatch.setitem(catalogue.CATALOGUE, "small", entry)
    monkeypatch.setattr("tresnet_downstream.weights.public_files.fetch", lambda *_: path)
    backbone = TResNet(**SMALL, init_cfg=pretrained("tresnet://small"))
    backbone.init_weights()
    assert same(backbone, model)
    detector = Detector()
    load_checkpoint(detector, "tresnet://small")  # as load_from does
    assert same(detector.backbone, model)


def test_init_cfg_takes_the_backbone_of_a_detector(tmp_path):
    detector = Detector()
    torch.save({"state_dict": detector.state_dict(), "meta": {}}, tmp_path / "d.pth")
    for cfg in (pretrained(str(tmp_path / "d.pth")), pretrained(str(tmp_path / "d.pth"), prefix="backbone.")):
        backbone = TResNet(**SMALL, init_cfg=cfg)
        backbone.init_weights()
        assert same(backbone, detector)


def test_mmengines_own_loader_takes_a_plain_path(release):
    model, path = release
    for network in (TResNet(**SMALL), classifier()):
        load_checkpoint(network, path)
        assert same(getattr(network, "backbone", network), model)


def test_no_matching_name_is_an_error_for_a_file_and_a_message_for_a_state_dict(tmp_path):
    torch.save({"state_dict": torch.nn.Linear(2, 2).state_dict()}, tmp_path / "other.pth")
    backbone = TResNet(**SMALL, init_cfg=pretrained(str(tmp_path / "other.pth")))
    with pytest.raises(UserError, match="another network"):
        backbone.init_weights()
    with pytest.warns(UserWarning, match="another network"):
        load_checkpoint(TResNet(**SMALL), str(tmp_path / "other.pth"))
    # As torch has it: a part of a detector that is not the backbone's.
    done = Detector().load_state_dict({"neck.weight": torch.zeros(4, 4, 1, 1)}, strict=False)
    assert "backbone.stem.conv.weight" in done.missing_keys


def test_another_variant_is_refused(release):
    for changes in ({"width": 0.5}, {"layers": (2, 1, 1, 1)}):
        with pytest.raises(UserError, match="another variant"):
            load_pretrained(TResNet(**{**SMALL, **changes}), release[1])
    torch.save(TResNet(layers=(1, 1, 2, 1), width=0.25).state_dict(), release[1])
    with pytest.raises(UserError, match="it also has layer3"):
        load_pretrained(TResNet(**SMALL), release[1])


def test_names_that_are_not_used_are_listed(release):
    told = load_pretrained(TResNet(**SMALL), release[1])
    assert told == f"TResNet starts from {release[1]}; not used: head.fc.weight, head.fc.bias"


def test_head_of_another_size_is_newly_initialised_and_reported_once(release):
    model, path = release
    other = classifier(3)
    before = other.head.fc.weight.clone()
    told = load_pretrained(other, path)
    assert told.count("the head is not loaded") == 1
    assert "head.fc.weight is (7, 512) in the file, (3, 512) here" in told
    assert torch.equal(other.head.fc.weight, before)
    assert same(other.backbone, model)


def test_head_of_the_same_size_is_loaded(release):
    other = classifier()
    load_pretrained(other, release[1])
    assert torch.equal(other.head.fc.weight, release[0].head.fc.weight)


def test_state_dict_of_our_own_is_loaded_strictly(release):
    other = classifier()
    other.load_state_dict(release[0].state_dict())
    assert same(other.backbone, release[0])
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict({name: value for name, value in other.state_dict().items() if "stem" not in name})


@pytest.mark.parametrize("name", ["resnet50", "resnetrs50"])
def test_timms_networks_give_timms_features_for_images_from_0_to_1(tmp_path, name):
    theirs = timm.create_model(name, num_classes=5).eval()
    torch.save({"state_dict_ema": {f"module.{key}": v for key, v in theirs.state_dict().items()}}, tmp_path / "a.pth")
    ours = TimmNetwork(name, out_indices=(3,), init_cfg=pretrained(str(tmp_path / "a.pth")))
    ours.init_weights()
    images = torch.rand(1, 3, 64, 64)
    mean, std = (torch.tensor(theirs.default_cfg[key])[:, None, None] for key in ("mean", "std"))
    with torch.no_grad():
        assert torch.equal(ours.eval()(images)[0], theirs.forward_features((images - mean) / std))
    assert [info["stride"] for info in ours.feature_info] == [4, 8, 16, 32]


def test_timms_stages_freeze_and_their_norms_stay_in_evaluation_mode():
    network = TimmNetwork("resnet18", frozen_stages=1, norm_eval=True).train()
    frozen = {name.split(".")[1] for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert frozen == {"conv1", "bn1", "layer1"}
    assert not any(module.training for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d))


def test_network_that_timm_does_not_have_is_reported():
    with pytest.raises(UserError, match="nonet"):
        TimmNetwork("nonet")


def test_second_names_of_parts_are_left_out_and_other_names_are_not():
    model = nn.ModuleDict({"head": nn.Linear(2, 3), "decoder": nn.Linear(2, 3)})
    stored = {name: torch.randn_like(tensor) for name, tensor in model.state_dict().items()}
    second = {"neck.weight": stored["head.weight"].clone(), "neck.bias": stored["head.bias"].clone()}
    assert without_second_names(model, {**stored, **second}).keys() == stored.keys()
    second["neck.weight"][0, 0] += 1
    assert without_second_names(model, {**stored, **second}).keys() == {*stored, "neck.weight"}
    assert "other.extra.weight" in without_second_names(model, {**stored, "other.extra.weight": stored["head.weight"]})
