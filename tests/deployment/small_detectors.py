"""Small detectors of the families that can be exported, whose boxes and scores vary over the image."""

import numpy as np
import torch
from detection.families import FAMILIES
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from PIL import Image
from running.small_data import ROOT
from torch import nn

from tresnet_downstream.detection import training  # noqa: F401 - registers the components
from tresnet_downstream.detection.adjusted_config import fill_neck_channels, prepare_pixels
from tresnet_downstream.running.config import load_config

BASE = str(ROOT / "configs/_base_/tresnet_detection.py")
CLASSES = ("cat", "dog", "Ærø")
_ONE_STAGE = {"neck.out_channels": 32, "bbox_head.in_channels": 32, "bbox_head.feat_channels": 64}
CHANGES = {
    **{name: {**_ONE_STAGE, "bbox_head.num_classes": 3} for name in ("RetinaNet", "FCOS", "ATSS", "GFL")},
    "RTMDet": {"bbox_head.num_classes": 3},
    "Faster R-CNN": {
        "neck.out_channels": 32,
        "rpn_head.in_channels": 32,
        "rpn_head.feat_channels": 32,
        "roi_head.bbox_roi_extractor.out_channels": 32,
        "roi_head.bbox_head.in_channels": 32,
        "roi_head.bbox_head.fc_out_channels": 32,
        "roi_head.bbox_head.num_classes": 3,
    },
}


def small_config(name, folder, size=(128, 96)):
    """The config of a family with a narrow TResNet; pictures are resized to fit width and height."""
    family = next(each for each in FAMILIES if each.name == name)
    maps = (1, 2, 3) if name == "RTMDet" else (0, 1, 2, 3)
    network = f"dict(_delete_=True, type='TResNet', layers=(1, 1, 1, 1), width=0.125, out_indices={maps})"
    path = folder / "small.py"
    path.write_text(
        f"_base_ = ['mmdet::{family.config}.py', {BASE!r}]\n"
        f"model = dict(backbone={network}, neck=dict(in_channels=None))\n"
    )
    config = load_config(str(path), [f"model.{key}={value}" for key, value in CHANGES.get(name, {}).items()])
    for step in config.test_dataloader.dataset.pipeline:
        for key in ("scale", "size"):
            if key in step:
                step[key] = size
    fill_neck_channels(config)
    prepare_pixels(config)
    return config


def small_detector(name, folder, size=(128, 96)):
    """A detector of three classes, as ``load_detector`` gives it."""
    init_default_scope("mmdet")
    config = small_config(name, folder, size)
    torch.manual_seed(0)
    model = MODELS.build(config.model).eval()
    if name in CHANGES:
        _spread(model)
    model.classes, model.pipeline = CLASSES, [dict(step) for step in config.test_dataloader.dataset.pipeline]
    return model


def _spread(model):
    """Scales the last layers so that logits spread by 2, and what says where boxes are by a half."""
    hooks = []
    for name, layer in model.named_modules():
        last = "".join(name.split(".")[-2:])
        if "head" in name and isinstance(layer, nn.Conv2d | nn.Linear) and ("cls" in last or "reg" in last):
            hooks.append(layer.register_forward_hook(_Scaling(2.0 if "cls" in last else 0.5)))
    picture = torch.from_numpy(pictures(1)[0][:96, :128].transpose(2, 0, 1)[None].copy()).float() / 255
    with torch.no_grad():
        maps = model.extract_feat(nn.functional.pad(picture, (0, 128 - picture.shape[3], 0, 96 - picture.shape[2])))
        if hasattr(model, "roi_head"):
            model.rpn_head(maps)
            regions = torch.tensor([[0.0, 0, 0, 90, 90], [0, 10, 20, 60, 50], [0, 40, 3, 99, 60]])
            model.roi_head._bbox_forward(maps, regions)
        else:
            model.bbox_head(maps)
    for hook in hooks:
        hook.remove()


class _Scaling:
    """Scales a layer at its first call."""

    def __init__(self, spread):
        self.spread, self.done = spread, False

    def __call__(self, layer, inputs, output):
        if self.done:
            return output
        self.done = True
        factor = self.spread / output.std().clamp(min=1e-3)
        layer.weight *= factor
        if layer.bias is not None:
            layer.bias.fill_(-1.0 if self.spread > 1 else 1.0)
        return layer(*inputs)


def pictures(number, seed=0):
    """Pictures of coloured blocks, RGB, of several shapes; the first has that of the network's."""
    draw = np.random.RandomState(seed)
    shapes = [(96, 128), (60, 128), (120, 70), (240, 320), (33, 47)]
    made = []
    for index in range(number):
        height, width = shapes[index % len(shapes)]
        blocks = Image.fromarray(draw.randint(0, 255, (6, 8, 3), np.uint8))
        made.append(np.asarray(blocks.resize((width, height), Image.Resampling.BICUBIC)))
    return made
