"""A joint model of a few thousand weights, for the data set of ``detection/small_boxes.py``."""

import copy

import torch
from detection.small_boxes import CONFIG as DETECTOR
from detection.small_boxes import NETWORK, flags
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from running.small_data import ROOT, call

from tresnet_downstream.joint.model import LabelsAndBoxes

CONFIG = str(ROOT / "configs" / "digits_labels_and_boxes.py")
HEAD = {"type": "tresnet_downstream.LinearHead", "num_classes": 2}
LOSS = {"type": "tresnet_downstream.AsymmetricLoss", "gamma_neg": 2, "gamma_pos": 0, "clip": 0.05}
FASTER_RCNN = {
    "model.backbone.layers": "(1,1,1,1)",
    "model.backbone.width": "0.125",
    "model.backbone.init_cfg": "None",
    "model.backbone.frozen_stages": "-1",
    "model.backbone.norm_eval": "False",
    "model.neck.in_channels": "[8,16,128,256]",
    "model.roi_head.bbox_head.num_classes": "2",
}


def detector_config(name="retinanet", classes=2):
    """The config of a small detector, with weights that are drawn."""
    from tresnet_downstream.running.options import with_options

    init_default_scope("mmdet")
    if name == "retinanet":
        path, changes = DETECTOR, {key: value for key, value in NETWORK.items() if key.startswith("model.")}
        changes["model.bbox_head.num_classes"] = str(classes)
    else:
        path, changes = str(ROOT / "configs" / f"{name}.py"), FASTER_RCNN
    config = with_options(Config.fromfile(path), [f"{key}={value}" for key, value in changes.items()])
    return copy.deepcopy(config.model)


def joint(detector="retinanet", seed=0, **options):
    """A joint model."""
    torch.manual_seed(seed)
    options = {"label_head": HEAD, "label_loss": LOSS, **options}
    return LabelsAndBoxes(detector_config(detector), **options)


def batch(sizes=((64, 64), (64, 64)), seed=0, padded=(64, 64)):
    """Images within zeros, and MMDetection's samples with a box each, of class 0 in the first, 1 in the second, ..."""
    from mmdet.structures import DetDataSample

    draw = torch.Generator().manual_seed(seed)
    images, samples = torch.zeros(len(sizes), 3, *padded), []
    for number, (height, width) in enumerate(sizes):
        images[number, :, :height, :width] = torch.rand(3, height, width, generator=draw)
        size = {"img_shape": (height, width), "ori_shape": (height, width), "batch_input_shape": padded}
        sample = DetDataSample(
            metainfo={
                **size,
                "pad_shape": padded,
                "scale_factor": (1.0, 1.0),
                "img_id": number,
                "img_path": f"{number}",
            }
        )
        boxes = torch.tensor([[4.0, 4.0, 30.0, 28.0]])
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([number % 2]))
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        samples.append(sample)
    return images, samples


def train(data, work_dir, *more, config=CONFIG, **changes):
    """Trains with the tool, which must end well; gives what it printed but for notes on the schedule."""
    status, out, err = call("train_joint", [config, "--work-dir", work_dir, *more, *flags(data, **changes)])
    assert status == 0, err
    return "".join(line for line in out.splitlines(True) if not line.startswith("note: the learning rate schedule"))
