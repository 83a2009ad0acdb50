"""A data set of squares and discs with boxes, and a small detector that trains in seconds."""

import json
import shutil

import numpy as np
from PIL import Image, ImageDraw
from running.small_data import ROOT, call

CLASSES = ("square", "disc")
IDS = (40, 7)  # neither consecutive nor in order
CONFIG = str(ROOT / "configs" / "digits_retinanet_tresnet.py")
NETWORK = {
    "model.backbone.layers": "(1,1,1,1)",
    "model.backbone.width": "0.125",
    "model.neck.in_channels": "[8,16,128,256]",
    "model.neck.out_channels": "16",
    "model.bbox_head.in_channels": "16",
    "model.bbox_head.feat_channels": "16",
    "model.bbox_head.stacked_convs": "1",
    "model.test_cfg.score_thr": "0.0",
    "train_dataloader.batch_size": "4",
    "train_dataloader.num_workers": "0",
    "val_dataloader.num_workers": "0",
    "train_cfg.max_epochs": "2",
    "train_cfg.val_interval": "1",
}

# Mask R-CNN with a few thousand weights besides its large fully connected layers.
MASK_RCNN = """
_base_ = [{base!r}]
backbone = dict(layers=(1, 1, 1, 1), width=0.125, init_cfg=None, frozen_stages=-1, norm_eval=False)
extractor = dict(out_channels=16)
model = dict(
    backbone=backbone,
    neck=dict(in_channels=[8, 16, 128, 256], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=extractor,
        mask_roi_extractor=extractor,
        bbox_head=dict(in_channels=16, fc_out_channels=16),
        mask_head=dict(in_channels=16, conv_out_channels=16, num_convs=1)))
"""


def write_mask_rcnn(folder):
    """Writes the config of a small Mask R-CNN; gives its path."""
    path = folder / "small_mask_rcnn.py"
    path.write_text(MASK_RCNN.format(base=str(ROOT / "configs" / "mask_rcnn_tresnet_m.py")))
    return path


def write_faster_rcnn(folder):
    """Writes the config of a small Faster R-CNN; gives its path."""
    path = folder / "small_faster_rcnn.py"
    text = MASK_RCNN.replace("        mask_roi_extractor=extractor,\n", "").replace(
        ",\n        mask_head=dict(in_channels=16, conv_out_channels=16, num_convs=1)", ""
    )
    path.write_text(text.format(base=str(ROOT / "configs" / "faster_rcnn_tresnet_m.py")))
    return path


def mask_rcnn_flags(data, **changes):
    """``--cfg-options`` of its training; dots of a key are written as two underscores."""
    options = data_options(data) | {
        "train_dataloader.num_workers": "0",
        "val_dataloader.num_workers": "0",
        "train_cfg.max_epochs": "1",
        "train_dataloader.dataset.pipeline.2.scale": "(64,64)",
        "val_dataloader.dataset.pipeline.1.scale": "(64,64)",
    }
    options |= {key.replace("__", "."): value for key, value in changes.items()}
    return ["--cfg-options", *(f"{key}={value}" for key, value in options.items())]


def changed_boxes(data, folder, change, split="train"):
    """A copy of the data in which the file of a split is changed; gives its folder."""
    shutil.copytree(data, folder)
    content = json.loads((folder / f"{split}.json").read_text())
    change(content)
    (folder / f"{split}.json").write_text(json.dumps(content))
    return folder


def as_corners(content):
    """Writes the boxes as left, top, right, bottom."""
    for one in content["annotations"]:
        left, top, width, height = one["bbox"]
        one["bbox"] = [left, top, left + width, top + height]


def make_boxes(folder, num_train=12, num_val=6, **changes):
    """Writes pictures of 64 pixels and the COCO files ``train.json`` and ``val.json``; gives the folder."""
    (folder / "pictures").mkdir(parents=True)
    for split, count in (("train", num_train), ("val", num_val)):
        content = made(folder, split, count) | changes
        (folder / f"{split}.json").write_text(json.dumps(content))
    return folder


def made(folder, split, count):
    draw = np.random.RandomState(len(split))
    images, annotations = [], []
    for number in range(1, count + 1):
        picture = Image.fromarray(draw.randint(0, 60, (64, 64, 3)).astype(np.uint8))
        pen = ImageDraw.Draw(picture)
        for place in range(draw.randint(1, 3)):
            kind, side = draw.randint(2), draw.randint(16, 28)
            x, y = 32 * place + draw.randint(0, 4), draw.randint(0, 64 - side)
            shape = (pen.rectangle, pen.ellipse)[kind]
            shape((x, y, x + side - 1, y + side - 1), fill=((250, 200, 40), (60, 220, 250))[kind])
            box = [int(x), int(y), int(side), int(side)]
            outline = [[x, y, x + side, y, x + side, y + side, x, y + side]]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": IDS[kind],
                    "bbox": box,
                    "area": int(side * side),
                    "iscrowd": 0,
                    "segmentation": [[int(value) for value in outline[0]]],
                }
            )
        name = f"{split}_{number:02}.png"
        picture.save(folder / "pictures" / name)
        images.append({"id": number, "file_name": name, "width": 64, "height": 64})
    categories = [{"id": number, "name": name} for number, name in zip(IDS, CLASSES, strict=True)]
    return {"images": images, "annotations": annotations, "categories": categories}


def data_options(data, splits=("train", "val")):
    """The options that name our own data."""
    options = {"data_root": f"{data}/"}
    for split in splits:
        place = f"{split}_dataloader.dataset"
        options |= {f"{place}.ann_file": f"{split}.json", f"{place}.data_prefix.img": "pictures/"}
        options |= {f"{place}.metainfo": "None"}
    return options


def flags(data, **changes):
    """``--cfg-options`` of a small training; dots of a key are written as two underscores."""
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    merged = {**data_options(data), **NETWORK, **changes}
    return ["--cfg-options", *(f"{key}={value}" for key, value in merged.items())]


def train(data, work_dir, *more, **changes):
    """Trains with the tool, which must end well; gives what it printed but for notes on the schedule."""
    status, out, err = call("train_detection", [CONFIG, "--work-dir", work_dir, *more, *flags(data, **changes)])
    assert status == 0, err
    return "".join(line for line in out.splitlines(True) if not line.startswith("note: the learning rate schedule"))
