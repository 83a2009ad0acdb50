"""The files of configs/ set the documented values."""

import pytest
import torch
from mmengine.registry import init_default_scope
from running.small_data import ROOT, with_bases

from tresnet_downstream.registry import MODELS
from tresnet_downstream.running.config import load_config

# Those that inherit from MMDetection are for test_detection.py.
CONFIGS = [path for path in sorted((ROOT / "configs").glob("*.py")) if "mmdet::" not in with_bases(path)]
COCO = ROOT / "configs/coco_tresnet_l_448.py"


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
    assert model.loss.reduction == ("sum" if model.multi_label else "mean")
    assert max(model.backbone.out_indices) == model.backbone.out_indices[0] == 3
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
