"""Damaged annotation files, run folders, thresholds and descriptions are read, or refused by one short UserError.

TRESNET_MUTATIONS sets how many of each kind are tried.
"""

import io
import json
import os
import sys

import hostile
import numpy as np
import pytest
from PIL import Image

COUNT = int(os.environ.get("TRESNET_MUTATIONS", "12"))
IMAGES = [{"id": 10 + n, "file_name": f"{n}.png", "width": 32, "height": 24} for n in range(3)]
SHAPES = (
    [[1, 1, 9, 1, 9, 9, 1, 9]],
    {"size": [24, 32], "counts": [5, 4, 759]},
    {"size": [24, 32], "counts": "54gg0"},
)
COCO = {
    "images": IMAGES,
    "annotations": [
        {
            "id": n + 1,
            "image_id": 10 + n,
            "category_id": (7, 40)[n % 2],
            "bbox": [1, 1, 8.5, 9],
            "area": 70.0,
            "iscrowd": int(n == 1),
            "segmentation": SHAPES[n],
        }
        for n in range(3)
    ],
    "categories": [{"id": 40, "name": "square"}, {"id": 7, "name": "disc"}],
}
TABLE = 'path,label,unknown\n0.png,disc;square,\n1.png,disc,square\n"2.png",,disc\n'


def prepare():
    """Imports what is slow or large before memory is limited."""
    import mmdet.datasets.transforms  # noqa: F401

    import tresnet_downstream.classification
    import tresnet_downstream.detection.datasets
    import tresnet_downstream.evaluation.report  # noqa: F401


def write_images(folder):
    for image in IMAGES:
        Image.new("RGB", (32, 24), (90, 120, 60)).save(folder / image["file_name"])


def read_multilabel(path):
    from tresnet_downstream.classification.datasets import MultiLabelDataset

    dataset = MultiLabelDataset(str(path), str(path.parent), [{"type": "SquashResize", "size": 8}])
    dataset[0], dataset[len(dataset) - 1], dataset.annotations.targets()


def read_boxes(path):
    from mmengine.registry import init_default_scope

    from tresnet_downstream.detection.datasets import CocoBoxes
    from tresnet_downstream.detection.metrics import DetectionMetric
    from tresnet_downstream.evaluation import detection_scores

    init_default_scope("mmdet")
    pipeline = [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations", "with_bbox": True, "with_mask": True},
        {"type": "PackDetInputs"},
    ]
    dataset = CocoBoxes(
        ann_file=str(path), data_prefix={"img": str(path.parent)}, pipeline=pipeline, filter_cfg={"min_size": 1}
    )
    for place in range(len(dataset)):
        dataset[place]
    truth = DetectionMetric(str(path), ["bbox", "segm"]).ground_truth
    for kind in ("bbox", "segm"):
        detection_scores(truth, [], iou_type=kind)


def annotation_files(kind, folder, count):
    draw, path = hostile.seeded(kind), folder / ("a.csv" if kind == "csv" else "a.json")
    write_images(folder)
    read = read_boxes if kind == "boxes" else read_multilabel

    def attempt(_):
        content = hostile.flipped(TABLE.encode(), draw) if kind == "csv" else hostile.damaged_json(COCO, draw)
        path.write_bytes(content)
        read(path)

    path.write_bytes(TABLE.encode() if kind == "csv" else json.dumps(COCO).encode())
    read(path)
    return hostile.try_all(attempt, count)


def array_bytes(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


MULTILABEL_RUN = {
    "format": "tresnet_downstream.run",
    "version": 1,
    "task": "multilabel",
    "about": {
        "model": {"type": "A", "head": {"type": "B"}},
        "data": "a.json",
        "unreadable": {},
        "versions": {"a": "1"},
    },
    "classes": ["square", "disc"],
    "image_folder": "images",
    "num_images": 3,
    "threshold": 0.5,
    "top_k": 1,
}
DETECTION_RUN = {
    **{key: MULTILABEL_RUN[key] for key in ("format", "version", "about", "classes", "image_folder")},
    "task": "detection",
    "kinds": ["bbox", "segm"],
    "image_ids": [10, 11, 12],
    "coco_eval": "pycocotools",
}
FOUND = [
    {
        "image_id": 10 + n,
        "category_id": (7, 40)[n % 2],
        "bbox": [1, 1, 8, 8],
        "score": 0.9 - 0.1 * n,
        "segmentation": {"size": [24, 32], "counts": "54gg0"},
    }
    for n in range(3)
]
ARRAYS = {
    "probabilities.npy": np.linspace(0.1, 0.9, 6, dtype=np.float32).reshape(3, 2),
    "targets.npy": np.array([[1, 0], [0, 1], [1, -1]], np.int8),
}
RUNS = {
    "multilabel": {"run.json": MULTILABEL_RUN, "images.json": ["0.png", "1.png", "2.png"], **ARRAYS},
    "detection": {
        "run.json": DETECTION_RUN,
        "ground_truth.json.gz": COCO,
        "predictions_bbox.json.gz": FOUND,
        "predictions_segm.json.gz": FOUND,
    },
}


def damaged(name, content, draw):
    if name.endswith(".npy"):
        whole = array_bytes(content)
        # Half of them in the header.
        return hostile.flipped(whole, draw) if draw.random() < 0.5 else hostile.flipped(whole[:128], draw) + whole[128:]
    return hostile.damaged_gzip(content, draw) if name.endswith(".gz") else hostile.damaged_json(content, draw)


def use_run(folder, report):
    from tresnet_downstream.evaluation import detection_scores, multilabel_scores, read_run
    from tresnet_downstream.evaluation.outcomes import MultilabelRun
    from tresnet_downstream.evaluation.report import write_report
    from tresnet_downstream.evaluation.run_thresholds import thresholds_for
    from tresnet_downstream.evaluation.thresholds import Objective

    run = read_run(folder)
    if isinstance(run, MultilabelRun):
        multilabel_scores(run.probabilities, run.targets, run.classes, run.threshold, run.top_k)
    else:
        for kind, rows in run.predictions.items():
            detection_scores(run.ground_truth, rows, run.classes, run.image_ids, kind, run.backend)
    thresholds_for(folder, Objective.parse("f1"))
    if report:
        write_report(folder, folder.parent / "report", resamples=0)


def run_folders(task, folder, count, reports=20):
    draw, run = hostile.seeded(task), folder / "run"
    whole = {name: damage_free(name, content) for name, content in RUNS[task].items()}

    def write(changes):
        run.mkdir(exist_ok=True)
        for name, content in {**whole, **changes}.items():
            (run / name).write_bytes(content)

    def attempt(number):
        name = draw.choice(list(whole))
        write({name: damaged(name, RUNS[task][name], draw)})
        use_run(run, report=number % (count // reports + 1) == 0)

    write({})
    use_run(run, report=True)
    return hostile.try_all(attempt, count)


def damage_free(name, content):
    import gzip

    if name.endswith(".npy"):
        return array_bytes(content)
    text = json.dumps(content).encode()
    return gzip.compress(text) if name.endswith(".gz") else text


THRESHOLDS = {
    "format": "tresnet_downstream.thresholds",
    "version": 1,
    "task": "multilabel",
    "objective": "f1",
    "scope": "per-class",
    "borrowed": [],
    "short": ["disc"],
    "chosen_on": {"run": "work", "data": "a.json"},
    "thresholds": {"square": 0.4, "disc": None},
}


def threshold_files(folder, count):
    from tresnet_downstream.evaluation.run_thresholds import notes_on
    from tresnet_downstream.evaluation.thresholds import read_thresholds

    draw, path = hostile.seeded("thresholds"), folder / "thresholds.json"

    def use():
        thresholds = read_thresholds(path)
        thresholds.limits(("square", "disc"), "multilabel")
        str(thresholds), notes_on(thresholds), thresholds.flatter({"data": "a.json"})

    def attempt(_):
        path.write_bytes(hostile.damaged_json(THRESHOLDS, draw))
        use()

    path.write_text(json.dumps(THRESHOLDS))
    use()
    return hostile.try_all(attempt, count)


CLASSIFIER = {
    "classifier": {
        "type": "ImageClassifier",
        "backbone": {"type": "TResNet", "layers": [1, 1, 1, 1], "width": 0.125},
        "head": {"type": "LinearHead", "num_classes": 2},
        "multi_label": True,
    },
    "pipeline": [{"type": "SquashResize", "size": 32}, {"type": "OneOf", "transforms": [{"type": "ToGray"}], "p": 0}],
    "labels": {"threshold": 0.4, "top_k": 1},
}


def small_classifier():
    from tresnet_downstream import load_model
    from tresnet_downstream.classification import ImageClassifier

    described = CLASSIFIER["classifier"]
    model = ImageClassifier(described["backbone"], described["head"])
    meta = {"model": CLASSIFIER, "dataset_meta": {"classes": ["square", "disc"]}}
    return {"state_dict": dict(model.state_dict()), "meta": meta}, load_model


def small_detector():
    import copy

    from detection.small_boxes import CONFIG, NETWORK
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    from tresnet_downstream.detection.hooks import describe_detector
    from tresnet_downstream.detection.predict import load_detector
    from tresnet_downstream.running.config import load_config

    config = load_config(CONFIG, [f"{key}={value}" for key, value in NETWORK.items() if "model." in key])
    init_default_scope("mmdet")
    model = MODELS.build(copy.deepcopy(config.model))
    pipeline = [dict(step) for step in config.val_dataloader.dataset.pipeline]
    described = json.loads(json.dumps({"detector": describe_detector(config.model), "pipeline": pipeline}))
    meta = {"model": described, "dataset_meta": {"classes": ["square", "disc"]}}
    return {"state_dict": dict(model.state_dict()), "meta": meta}, load_detector


def odd_tensor(tensor, draw):
    """The tensor in a kind, a shape or with values that no network has."""
    import torch

    return draw.choice(
        (
            *(lambda: tensor.to(torch.float8_e4m3fn), lambda: tensor > 0, lambda: tensor.to(torch.complex64)),
            *(lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), lambda: tensor.to_sparse()),
            *(lambda: tensor.float() * torch.nan, lambda: tensor.float() + torch.inf, lambda: tensor.to(torch.int64)),
            *(lambda: tensor[None], lambda: tensor.flatten()[:0], lambda: torch.zeros(()), lambda: tensor.tolist()),
            *(lambda: None, lambda: "a", lambda: tensor.half(), lambda: torch.ones(1).expand(2**40)),
        )
    )()


def checkpoints(make, folder, count):
    """Half with another description, half with other weights."""
    import torch

    content, load = make()
    draw, path = hostile.seeded(make.__name__), folder / "m.pth"

    def attempt(_):
        weights, meta = dict(content["state_dict"]), content["meta"]
        if draw.random() < 0.5:
            meta = hostile.changed(meta, draw)
        else:
            name = draw.choice(list(weights))
            weights[name] = odd_tensor(weights[name], draw)
        torch.save({"state_dict": weights, "meta": meta}, path)
        load(path)

    torch.save(content, path)
    load(path)
    return hostile.try_all(attempt, count)


CALLS = {
    **{kind: f"annotation_files({kind!r}, {{}}, {COUNT})" for kind in ("multilabel", "boxes", "csv")},
    **{f"{task} run": f"run_folders({task!r}, {{}}, {COUNT})" for task in RUNS},
    "thresholds": f"threshold_files({{}}, {COUNT})",
    **{
        f"{make}": f"checkpoints(test_hostile_files.{make}, {{}}, {COUNT})"
        for make in ("small_classifier", "small_detector")
    },
}


@pytest.mark.faults
@pytest.mark.skipif(sys.platform == "win32", reason="memory is limited by resource.setrlimit")
@pytest.mark.parametrize("kind", CALLS)
def test_damaged_files_are_read_or_refused_in_2_gib(kind, tmp_path):
    call = CALLS[kind].format("__import__('pathlib').Path(sys.argv[1])")
    refused, errors = hostile.in_little_memory("test_hostile_files", call, tmp_path, 90 + COUNT)
    print(kind, refused, errors)
    assert refused > COUNT // 10
