"""TResNet works as the backbone of every family of detectors in the documentation's table."""

import pytest

pytest.importorskip("mmdet", reason="needs the detection set-up")

import numpy as np
from detection.families import FAMILIES, table
from detection.small_boxes import make_boxes
from mmengine.config import Config
from running.small_data import ROOT

from tresnet_downstream.detection.adjusted_config import datasets_of
from tresnet_downstream.detection.predict import detect, load_detector
from tresnet_downstream.detection.training import train_detection
from tresnet_downstream.running.config import load_config

BASE = str(ROOT / "configs/_base_/tresnet_detection.py")
# In MMDetection's pipelines, keys that hold sizes of images.
_SIZES = ("scale", "scales", "img_scale", "crop_size", "size")
# Which of TResNet's maps have the strides of those that a backbone of another kind gives.
_MAPS = {"CSPNeXt": (1, 2, 3), "CSPDarknet": (1, 2, 3), "Darknet": (1, 2, 3)}


@pytest.fixture(scope="module")
def few_boxes(tmp_path_factory):
    return make_boxes(tmp_path_factory.mktemp("few") / "boxes", 4, 2)


def test_the_documentation_has_the_table_of_families():
    assert table() in (ROOT / "docs/extending/detector.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("family", [each for each in FAMILIES if not each.fails], ids=lambda family: family.name)
def test_a_tresnet_trains_resumes_and_predicts_in_the_family(family, few_boxes, tmp_path, capsys):
    train_detection(small_config(family, few_boxes, tmp_path))
    assert "epoch 1/1: loss " in capsys.readouterr().out  # a loss that is not finite ends a training
    train_detection(small_config(family, few_boxes, tmp_path, max_epochs=2), resume=True)
    assert "epoch 2/2: loss " in capsys.readouterr().out
    model = load_detector(tmp_path / "run" / "epoch_2.pth")
    found = next(detect(model, str(few_boxes / "pictures" / "val_01.png")))
    assert not found.error
    assert np.isfinite(found.boxes).all()


def small_config(family, data, folder, max_epochs=1):
    """The family's config as a user names it beside our base, with small images and a narrow network."""
    path = folder / "config.py"
    bases = f"_base_ = ['mmdet::{family.config}.py', {BASE!r}]\n"
    path.write_text(bases)
    model = Config.fromfile(path).model
    maps = _MAPS.get(model.backbone.type, tuple(model.backbone.get("out_indices", (3,))))
    neck = model.get("neck")
    follows = ", neck=dict(in_channels=None)" if isinstance(neck, dict) and "in_channels" in neck else ""
    network = f"type='TResNet', layers=(1, 1, 1, 1), width=0.125, out_indices={maps}"
    path.write_text(f"{bases}model = dict(backbone=dict(_delete_=True, {network}){follows})\n")
    config = load_config(str(path), [f"data_root={data}/", *family.changes])
    config.work_dir = str(folder / "run")
    for split, dataset in datasets_of(config):
        dataset.update(ann_file=f"{'train' if split == 'train' else 'val'}.json", data_prefix={"img": "pictures/"})
        dataset.data_root = f"{data}/"
    for split in ("train", "val", "test"):
        loader = config[f"{split}_dataloader"]
        loader.update(num_workers=0, persistent_workers=False, batch_size=2 if split == "train" else 1)
        loader.sampler = {"type": "DefaultSampler", "shuffle": False}  # some are without end
        _shrink(loader)
        evaluators = config[f"{split}_evaluator"] if split != "train" else ()
        for evaluator in [evaluators] if isinstance(evaluators, dict) else evaluators:
            evaluator.ann_file = str(data / "val.json")
    _shrink(config.model.data_preprocessor)
    config.default_hooks.checkpoint = {"type": "CheckpointHook", "interval": 1}  # some count batches
    config.train_cfg = {"type": "EpochBasedTrainLoop", "max_epochs": max_epochs, "val_interval": 1}
    return config


def _shrink(node):
    if isinstance(node, dict):
        if node.get("type") == "RandomChoice":
            node["transforms"] = node["transforms"][:1]
        for key, value in node.items():
            if key in _SIZES and isinstance(value, list | tuple):
                node[key] = [(64, 64)] if key == "scales" else (64, 64)
            else:
                _shrink(value)
    elif isinstance(node, list | tuple):
        for value in node:
            _shrink(value)
