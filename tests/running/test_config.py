"""Configs: references, options, and that each file of configs/ gives what it says."""

import pytest
import torch
from mmengine.registry import init_default_scope
from running.small_data import DIGITS, ROOT

from tresnet_downstream.errors import UserError
from tresnet_downstream.registry import MODELS
from tresnet_downstream.running.config import load_config
from tresnet_downstream.running.config_checks import check_config

# Those that inherit from MMDetection are for test_detection.py.
CONFIGS = [path for path in sorted((ROOT / "configs").glob("*.py")) if "mmdet::" not in path.read_text()]
COCO = ROOT / "configs/coco_tresnet_l_448.py"


def written(tmp_path, text, options=()):
    path = tmp_path / "mine.py"
    path.write_text(text)
    return load_config(path, options)


def test_references_reach_into_lists_and_dicts_and_keep_their_type(tmp_path):
    config = written(
        tmp_path,
        "size = 448\n"
        "year = 2014\n"
        "pair = ('$size', 2)\n"
        "steps = [dict(type='A', size='$size'), ['$steps_of', dict(deep=dict(er='$flag'))]]\n"
        "steps_of = dict(length='$size')\n"
        "flag = None\n"
        "name = 'train${year}_${size}.json'\n"
        "link = '$name'\n",
    )
    assert config.steps[0].size == 448
    assert config.pair == (448, 2)
    assert config.steps[1][0] == {"length": 448}
    assert config.steps[1][1].deep.er is None
    assert config.name == config.link == "train2014_448.json"


def test_references_see_what_options_changed(tmp_path):
    config = written(tmp_path, "size = 448\nmodel = dict(size='$size', other='${size}px')\n", ["size=224"])
    assert config.model == {"size": 224, "other": "224px"}


def test_option_may_itself_refer_to_a_key(tmp_path):
    assert written(tmp_path, "size = 448\nmodel = dict(size=1)\n", ["model.size=$size"]).model.size == 448


@pytest.mark.parametrize(("text", "plain"), [("$$", "$"), ("5$$", "5$"), ("$$size", "$size"), ("$${size}", "${size}")])
def test_two_dollar_signs_stand_for_one(tmp_path, text, plain):
    assert written(tmp_path, f"size = 1\nprice = {text!r}\n").price == plain


@pytest.mark.parametrize("text", ["a = '$b'", "a = 'x${b}'", "a = [dict(c='$b')]"])
def test_reference_to_nothing_is_named(tmp_path, text):
    with pytest.raises(UserError, match=r"mine\.py: .*'b'.*does not define"):
        written(tmp_path, text + "\n")


@pytest.mark.parametrize("text", ["a = '$a'", "a = '$b'\nb = dict(c='x${a}')", "a = ['$b']\nb = '$c'\nc = '$a'"])
def test_reference_to_itself_is_named(tmp_path, text):
    with pytest.raises(UserError, match=r"mine\.py: .* refers to .* itself"):
        written(tmp_path, text + "\n")


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


def test_folder_of_a_packages_name_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "wandb").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    config = load_config(DIGITS, ["visualizer.vis_backends.1.type=mmengine.WandbVisBackend"])
    with pytest.raises(UserError, match="pip install wandb"):
        check_config(config, ("train", "val"))


def test_later_options_see_earlier_ones():
    config = load_config(DIGITS, ["model.head.type=MLDecoderHead", "model.head.embed_dim=64"])
    assert config.model.head == {"type": "MLDecoderHead", "num_classes": 10, "embed_dim": 64}


@pytest.mark.parametrize("option", ["model.backbone.with_pc=True", "model.bacbone.norm=sync", "seed.a=1", "trian=1"])
def test_unknown_option_is_refused(option):
    with pytest.raises(UserError, match="has no key"):
        load_config(DIGITS, [option])


def test_year_changes_every_file_name():
    for year, config in ((2014, load_config(COCO)), (2017, load_config(COCO, ["coco_year=2017"]))):
        for split in ("train", "val"):
            dataset = config[f"{split}_dataloader"].dataset
            assert dataset.annotation_file == f"annotations/instances_{split}{year}.json"
            assert dataset.image_folder == f"{split}{year}"


def test_image_size_reaches_both_pipelines():
    config = load_config(COCO, ["image_size=224"])
    assert config.train_dataloader.dataset.pipeline[0].size == 224
    assert config.val_dataloader.dataset.pipeline[0].size == 224


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_loads_and_its_model_builds(path):
    config = load_config(path)
    init_default_scope(config.default_scope)
    classes = config.model.head.num_classes or 5
    with torch.device("meta"):
        model = MODELS.build({**config.model, "classes": [f"class {c}" for c in range(classes)]})
    assert model.head.num_classes == classes
    assert model.loss.reduction == "sum"
    assert model.backbone.out_indices == (3,)
    assert "$" not in config.pretty_text.replace("$$", "")


@pytest.mark.parametrize(
    ("name", "variant", "size", "batch", "schedule"),
    [
        ("coco_tresnet_m_224", "m", 224, 128, (80, 41)),
        ("coco_tresnet_m_448", "m", 448, 128, (80, 41)),
        ("coco_tresnet_l_448", "l", 448, 128, (80, 41)),
        ("coco_tresnet_xl_640", "xl", 640, 128, (80, 41)),
        ("coco_tresnet_v2_l_448_ml_decoder", "v2_l", 448, 56, (40, None)),
    ],
)
def test_coco_configs_are_the_published_recipes(name, variant, size, batch, schedule):
    config = load_config(ROOT / f"configs/{name}.py")
    assert config.model.backbone.variant == variant
    assert config.model.head.num_classes == 80
    assert [step.type for step in config.train_pipeline] == ["SquashResize", "Cutout", "RandAugment"]
    assert config.train_pipeline[0].size == size
    assert config.train_dataloader.batch_size == batch
    assert (config.train_cfg.max_epochs, config.custom_hooks[1].epoch) == schedule
    assert config.optim_wrapper.optimizer == {"type": "Adam", "lr": config.max_lr, "weight_decay": 1e-4}
    assert (config.model.loss.gamma_neg, config.model.loss.gamma_pos, config.model.loss.clip) == (4, 0, 0.05)
    assert config.custom_hooks[2] == {"type": "WeightAverageHook", "decay": 0.9997, "warmup": False}


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


def test_arguments_that_another_component_does_not_have_are_told(capsys):
    load_config(DIGITS, ["model.backbone.type=TimmNetwork", "model.backbone.model=resnet18"])
    told = capsys.readouterr().out
    assert "model.backbone.type=TimmNetwork: leaves out layers=(1, 1, 2, 1), which is TResNet's" in told
    assert "leaves out width=0.25, which is TResNet's" in told


def test_the_same_component_keeps_its_arguments_and_takes_new_ones():
    config = load_config(DIGITS, ["model.backbone=dict(width=0.5)", "model.head.type=LinearHead"])
    assert config.model.backbone == {"type": "TResNet", "layers": (1, 1, 2, 1), "width": 0.5}
    assert config.model.head == {"type": "LinearHead", "num_classes": 10}


@pytest.mark.parametrize("value", ["dict(**{})", "dict([1])", "print('x')", "dict(a=print('x'))"])
def test_nothing_is_called_in_an_option(value, capsys):
    assert load_config(DIGITS, [f"data_source={value}"]).data_source == value
    assert "x" not in capsys.readouterr().out
