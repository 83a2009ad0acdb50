"""Faults that tests add to small data sets, and the messages with which training refuses them."""

import json

from PIL import Image

from tresnet_downstream.classification.datasets import MultiLabelDataset
from tresnet_downstream.data_check import Source, check_data


def change(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def source(data, task="classification", split="train", **options):
    return Source(split, str(data / f"{split}.json"), str(data / "pictures"), task, **options)


def table_source(data, split="train", **options):
    return Source(split, str(data / f"{split}.csv"), str(data / "pictures"), "classification", **options)


def kinds(*sources, **options):
    """The kinds of findings, by severity."""
    by_severity = {"error": set(), "warning": set(), "note": set()}
    for finding in check_data(sources, **options).findings:
        by_severity[finding.severity].add(finding.kind)
    return by_severity


def classification_error(of):
    """What a training of a classifier raises at this data, once all of it is read; None if nothing."""
    try:
        data = MultiLabelDataset(
            of.annotation_file,
            of.image_folder,
            [{"type": "SquashResize", "size": 32}],
            classes=of.classes,
            keep_empty=of.keep_empty,
            on_bad_image="skip" if of.tolerates_bad_images else "error",
            outside_paths=of.outside_paths,
        )
        for index in range(len(data)):
            data[index]
    except Exception as error:  # whatever it raises, the training ends
        return error
    return None


def detection_error(of):
    """What a training of a detector raises at this data, and the boxes that it drops by reason."""
    from mmdet.utils import register_all_modules

    from tresnet_downstream.detection.datasets import CocoBoxes

    register_all_modules()
    try:
        data = CocoBoxes(
            ann_file=of.annotation_file,
            data_prefix={"img": of.image_folder},
            pipeline=[
                {"type": "LoadImageFromFile"},
                {"type": "LoadAnnotations", "with_bbox": True, "with_mask": of.needs_masks},
            ],
            outside_paths=of.outside_paths,
            on_bad_image="skip" if of.tolerates_bad_images else "error",
            trust_boxes=of.trusts_boxes,
            filter_cfg={"filter_empty_gt": not of.keep_empty, "min_size": of.min_size},
            metainfo={"classes": of.classes} if of.classes else None,
        )
        for index in range(len(data)):
            data[index]
    except Exception as error:
        return error, {}
    return None, data.dropped


def twin(data, name, new_name, **options):
    """The same pixels as a file of other content."""
    Image.open(data / "pictures" / name).save(data / "pictures" / new_name, **options)
