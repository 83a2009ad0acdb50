"""``key=value`` options: how values are parsed, which keys exist, and replacing a component."""

import pytest
import torch
from mmengine.registry import init_default_scope
from running.small_data import DIGITS, ROOT

from tresnet_downstream.errors import UserError
from tresnet_downstream.registry import MODELS
from tresnet_downstream.running.config import load_config

COCO = ROOT / "configs/coco_tresnet_l_448.py"


@pytest.mark.parametrize(
    ("option", "key", "value"),
    [
        ("max_epochs=7", "max_epochs", 7),
        ("max_lr=2e-4", "max_lr", 2e-4),
        ("keep_empty=True", "keep_empty", True),
        ("stop_epoch=None", "stop_epoch", None),
        ("data_root=/a/b=c", "data_root", "/a/b=c"),
        ("data_root=", "data_root", ""),
        ("model.backbone.layers=(1,2,3,4)", "model.backbone.layers", (1, 2, 3, 4)),
        ("train_pipeline.0.size=64", "train_pipeline.0.size", 64),
        ("model.backbone.with_cp=True", "model.backbone.with_cp", True),
        ("train_dataloader.dataset.classes=[a,b]", "train_dataloader.dataset.classes", ["a", "b"]),
        ("val_pipeline=[dict(type='A',size=(3,4))]", "val_pipeline", [{"type": "A", "size": (3, 4)}]),
        ("model.loss=print(1)", "model.loss", "print(1)"),
        ("model.loss=dict(**a)", "model.loss", "dict(**a)"),
    ],
)
def test_option_is_read_as_the_value_it_looks_like(option, key, value):
    node = load_config(DIGITS, [option])
    for part in key.split("."):
        node = node[int(part)] if part.isdigit() else node[part]
    assert node == value
    assert type(node) is type(value)


@pytest.mark.parametrize("value", ["dict(max_norm=1)", "{'max_norm':1}"])
def test_dictionary_may_be_written_either_way(value):
    assert load_config(DIGITS, [f"optim_wrapper.clip_grad={value}"]).optim_wrapper.clip_grad == {"max_norm": 1}


def test_later_options_see_earlier_ones():
    config = load_config(DIGITS, ["model.head.type=MLDecoderHead", "model.head.embed_dim=64"])
    assert config.model.head == {"type": "MLDecoderHead", "num_classes": 10, "embed_dim": 64}


@pytest.mark.parametrize("option", ["model.backbone.with_pc=True", "model.bacbone.norm=sync", "seed.a=1", "trian=1"])
def test_unknown_option_is_refused(option):
    with pytest.raises(UserError, match="has no key"):
        load_config(DIGITS, [option])


@pytest.mark.parametrize(
    "options",
    [
        ["model.backbone.type=TimmNetwork", "model.backbone.model=resnet18", "model.head.type=MLDecoderHead"],
        ["model.backbone=dict(type='TimmNetwork',model='resnet18')", "model.head=dict(type='MLDecoderHead')"],
        ['model.backbone={"type":"TimmNetwork","model":"resnet18"}', 'model.head={"type":"MLDecoderHead"}'],
    ],
)
def test_another_component_takes_the_place_of_one_by_options_alone(options):
    config = load_config(DIGITS, options)
    backbone, head = dict(config.model.backbone), dict(config.model.head)
    assert (backbone.pop("type"), backbone.pop("model"), head.pop("type")) == (
        "TimmNetwork",
        "resnet18",
        "MLDecoderHead",
    )
    assert backbone == {}
    assert head in ({}, {"num_classes": 10})
    config.model.classes = list("abcdefghij")
    init_default_scope(config.default_scope)
    assert MODELS.build(config.model)(torch.rand(2, 3, 64, 64)).shape == (2, 10)


def test_arguments_that_another_component_does_not_have_are_reported(capsys):
    load_config(DIGITS, ["model.backbone.type=TimmNetwork", "model.backbone.model=resnet18"])
    told = capsys.readouterr().out
    assert "model.backbone.type=TimmNetwork: leaves out layers=(1, 1, 2, 1), an argument of TResNet" in told
    assert "leaves out width=0.25, an argument of TResNet" in told


def test_the_same_component_keeps_its_arguments_and_takes_new_ones():
    config = load_config(DIGITS, ["model.backbone=dict(width=0.5)", "model.head.type=LinearHead"])
    assert config.model.backbone == {"type": "TResNet", "layers": (1, 1, 2, 1), "width": 0.5}
    assert config.model.head == {"type": "LinearHead", "num_classes": 10}


@pytest.mark.parametrize("value", ["dict(**{})", "dict([1])", "print('x')", "dict(a=print('x'))"])
def test_nothing_is_called_in_an_option(value, capsys):
    assert load_config(DIGITS, [f"data_source={value}"]).data_source == value
    assert "x" not in capsys.readouterr().out
