"""Adding a published head takes one class and one entry in ``weights/head_names.py``."""

import sys

import pytest
import torch

from tresnet_downstream import load_model
from tresnet_downstream.classification import ImageClassifier
from tresnet_downstream.classification.convert import convert
from tresnet_downstream.classification.weight_file_reading import read_weight_file
from tresnet_downstream.cli.options import import_file
from tresnet_downstream.errors import UserError
from tresnet_downstream.registry import MODELS
from tresnet_downstream.weights import to_release
from tresnet_downstream.weights.head_names import HEADS

# Class-specific residual attention (Zhu and Wu, 2021): the mean and the maximum of each class's map, added.
CSRA = """
from torch import nn

from tresnet_downstream.registry import MODELS
from tresnet_downstream.weights.head_names import HEADS, HeadNames

HEADS["CSRAHead"] = HeadNames("maps.weight", {"head.0.head.": "head.maps."}, in_timm=False)


@MODELS.register_module()
class CSRAHead(nn.Module):
    def __init__(self, in_channels, num_classes, share=0.1):
        super().__init__()
        self.num_classes, self.share = num_classes, share
        self.maps = nn.Conv2d(in_channels, num_classes, 1, bias=False)

    @classmethod
    def arguments_from(cls, weights):
        return {"num_classes": len(weights["maps.weight"])}

    def forward(self, features):
        maps = self.maps(features)
        return maps.mean((2, 3)) + self.share * maps.amax((2, 3))
"""
SMALL = {"type": "TResNet", "layers": (1, 1, 1, 1), "width": 0.25}


@pytest.fixture
def _csra(tmp_path):
    path = list(sys.path)
    (tmp_path / "own_csra.py").write_text(CSRA)
    import_file(str(tmp_path / "own_csra.py"))
    yield
    MODELS.module_dict.pop("CSRAHead", None)
    HEADS.pop("CSRAHead", None)
    sys.modules.pop("own_csra", None)
    sys.path[:] = path


@pytest.fixture
def model(_csra):
    return ImageClassifier(SMALL, {"type": "CSRAHead", "num_classes": 7}).eval()


def test_a_head_added_in_one_file_is_read_from_a_file_with_the_releases_names(model, tmp_path):
    published = to_release(model.state_dict())
    assert "head.0.head.weight" in published
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in published.items()}}, tmp_path / "csra.pth")
    loaded, images = load_model(tmp_path / "csra.pth"), torch.rand(2, 3, 64, 64)
    assert type(loaded.head).__name__ == "CSRAHead"
    assert (loaded.head.num_classes, loaded.multi_label) == (7, True)
    torch.testing.assert_close(loaded(images), model(images), rtol=0, atol=0)


def test_it_is_written_in_the_releases_names_and_comes_back(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "ours.pth")
    convert(read_weight_file(tmp_path / "ours.pth"), tmp_path / "release.pth", "release")
    assert "head.0.head.weight" in torch.load(tmp_path / "release.pth", weights_only=True)["model"]
    again = load_model(tmp_path / "release.pth").state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items())
    with pytest.raises(UserError, match="timm has no CSRAHead"):
        convert(read_weight_file(tmp_path / "ours.pth"), tmp_path / "timm.pth", "timm")


@pytest.mark.usefixtures("_csra")
def test_the_other_heads_are_still_recognised(tmp_path):
    for kind in ("LinearHead", "BottleneckHead", "MLDecoderHead"):
        others = {"embed_dim": 16, "feedforward_dim": 8} if kind == "MLDecoderHead" else {}
        one = ImageClassifier(SMALL, {"type": kind, "num_classes": 7, **others})
        torch.save(to_release(one.state_dict()), tmp_path / "one.pth")
        assert type(load_model(tmp_path / "one.pth").head).__name__ == kind
