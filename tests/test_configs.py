"""Every file of configs/ trains on small data in the layout of its data set, and is named in the documentation."""

import re
import shutil

import pytest
from made_data import make_cars, make_cifar, make_flowers, make_voc
from mmengine.config import Config
from running.small_data import PATHS, ROOT, call, make_small_data, with_bases
from running.small_folders import make_class_folders

from tresnet_downstream.running.top_level import has_effect

CONFIGS = sorted((ROOT / "configs").glob("*.py"))
CLASSIFIERS = [path for path in CONFIGS if "mmdet::" not in with_bases(path)]
DETECTORS = [path for path in CONFIGS if path not in CLASSIFIERS]
# Detectors that differ from another config in the size of their backbone alone.
SIZES = {
    path: path.with_stem(f"{path.stem[:-1]}m")
    for path in DETECTORS
    if path.stem.endswith("_l") and path.with_stem(f"{path.stem[:-1]}m") in DETECTORS
}
# In MMDetection's pipelines, sizes of images; in its heads of two stages, the layers that cost the most.
SMALL_IMAGES = dict.fromkeys(("scale", "img_scale", "crop_size", "size"), "(64,64)") | {"scales": "[(64,64)]"}
SMALL_HEADS = {"fc_out_channels": "16"}
# The same in its transformers.
FEW_LAYERS = {
    "model.encoder.num_layers": "1",
    "model.decoder.num_layers": "2",
    "model.num_queries": "40",
    "model.test_cfg.max_per_img": "40",
}
# A narrow network where the config has a TResNet.
NARROW = {"model.backbone.layers": "(1,1,1,1)", "model.backbone.width": "0.25"}
NARROW_DETECTOR = {
    "model.backbone.layers": "(1,1,1,1)",
    "model.backbone.width": "0.125",
    "model.backbone.frozen_stages": "-1",
    "model.backbone.norm_eval": "False",
}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_documentation_names_every_config(path):
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    assert any(path.name in page.read_text() for page in pages)


def test_every_option_of_the_resnet_rs_recipe_that_the_documentation_names_has_an_effect():
    table = (ROOT / "docs/single_label.md").read_text().split("option that leaves it out")[1]
    options = re.findall(r"^\| [^|]+ \| `(\w+)=\w+` \|$", table, re.MULTILINE)
    assert len(options) == 7
    config = Config.fromfile(ROOT / "configs/imagenet_resnetrs50_160.py")
    assert [key for key in options if not has_effect(config, key)] == []
    assert has_effect(config, "rand_augment_config")


@pytest.mark.slow
@pytest.mark.parametrize("path", CLASSIFIERS, ids=lambda path: path.stem)
def test_every_classifiers_config_takes_steps_on_made_data_of_its_layout(path, tmp_path, monkeypatch):
    root = tmp_path / "data"
    text = with_bases(path)
    options = {"data_root": root, "image_size": 64, "batch_size": 4, "num_workers": 0, "max_epochs": 1}
    if "torchvision_data.py" in text:
        name = re.findall(r"dataset_name = '(\w+)'", path.read_text())[0]
        if name.startswith("CIFAR"):
            make_cifar(root, monkeypatch, name)
        else:
            make_flowers(root, monkeypatch) if name == "Flowers102" else make_cars(root)
    elif "imagenet.py" in text or path.stem.startswith(("folders", "tiny")):
        make_class_folders(root, (3, 2))
        options["model.head.num_classes"] = 3
    elif path.stem.startswith("voc"):
        make_voc(root)
    else:
        make_small_data(root, 6, 4)
        options |= {**PATHS, "model.head.num_classes": 3}
    if "pretrained" in text:
        options["pretrained"] = None
    if "load_from" in text:
        options["load_from"] = None
    if "TimmNetwork" not in text and "recipe_resnet_rs" not in text:
        options |= NARROW
    tool = (
        "train_classifier"
        if "single_label" in text or "imagenet" in path.stem or "torchvision" in text
        else "train_multilabel"
    )
    arguments = ["--cfg-options", *(f"{key}={value}".replace(" ", "") for key, value in options.items())]
    status, out, err = call(tool, [path, "--work-dir", tmp_path / "run", *arguments])
    assert (status, err) == (0, "")
    assert "epoch 1/1: loss per image" in out


@pytest.mark.parametrize("path", SIZES, ids=lambda path: path.stem)
def test_a_detectors_larger_config_differs_only_in_the_backbones_size(path):
    larger, smaller = Config.fromfile(path), Config.fromfile(SIZES[path])
    channels = {"m": [64, 128, 1024, 2048], "l": [76, 152, 1216, 2432]}
    for config, size in ((larger, "l"), (smaller, "m")):
        backbone = config.model.backbone
        assert backbone.pop("variant") == size
        assert backbone.pop("init_cfg") == {"type": "Pretrained", "checkpoint": f"tresnet://{size}_in1k_448"}
        given = [channels[size][index] for index in backbone.out_indices]
        assert config.model.neck.pop("in_channels") == given
    assert larger.to_dict() == smaller.to_dict()


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in DETECTORS if path not in SIZES], ids=lambda path: path.stem)
def test_every_detectors_config_takes_steps_on_made_data_of_its_layout(path, tmp_path):
    pytest.importorskip("mmdet", reason="needs the detection set-up")
    from detection.small_boxes import make_boxes

    config, root, boxes = Config.fromfile(path), tmp_path / "data", make_boxes(tmp_path / "boxes", 4, 2)
    options = {
        "data_root": f"{root}/",
        "model.backbone.init_cfg": "None",
        "model.neck.in_channels": "None",
        "train_cfg.max_epochs": "1",
        "train_cfg.val_interval": "1",
    }
    if config.model.backbone.type == "TResNet":
        options |= NARROW_DETECTOR
    options |= _everywhere(config.model, "model", SMALL_HEADS)
    if "encoder" in config.model:
        options |= FEW_LAYERS
    if path.stem.startswith("voc"):
        make_voc(root)
    for split in ("train", "val"):
        dataset = config[f"{split}_dataloader"].dataset
        options |= {f"{split}_dataloader.num_workers": "0", f"{split}_dataloader.persistent_workers": "False"}
        options |= _everywhere(dataset.pipeline, f"{split}_dataloader.dataset.pipeline", SMALL_IMAGES)
        options[f"{split}_dataloader.dataset.data_root"] = f"{root}/"
        if path.stem.startswith("voc"):
            continue
        options[f"{split}_dataloader.dataset.metainfo"] = "None"
        shutil.copytree(boxes / "pictures", root / dataset.data_prefix.img)
        (root / dataset.ann_file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(boxes / f"{split}.json", root / dataset.ann_file)
    arguments = ["--cfg-options", *(f"{key}={value}".replace(" ", "") for key, value in options.items())]
    tool = "train_joint" if "labels" in config else "train_detection"
    status, out, err = call(tool, [path, "--work-dir", tmp_path / "run", *arguments])
    assert (status, err) == (0, "")
    assert re.search(r"epoch 1/1: loss [\d.]+, val AP ", out)


def _everywhere(node, place, values):
    """The options that set some keys wherever they stand in a part of a config."""
    options = {}
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        if key in values:
            options[f"{place}.{key}"] = values[key]
        elif isinstance(value, dict | list | tuple):
            options |= _everywhere(value, f"{place}.{key}", values)
    return options
