"""Hostile annotation files, run folders, thresholds and descriptions are read, or refused by one short UserError.

TRESNET_MUTATIONS sets how many of each kind are tried.
"""

import gzip
import io
import itertools
import json
import random
import shutil
import sys

import hostile
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

COUNT = hostile.number_of_inputs(20)
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


def prepare(_):
    """Imports what is slow or large before memory is limited."""
    import mmdet.datasets.transforms  # noqa: F401

    import tresnet_downstream.classification
    import tresnet_downstream.data_check
    import tresnet_downstream.detection.datasets
    import tresnet_downstream.evaluation.report  # noqa: F401


def polygons():
    return st.lists(st.lists(st.floats(-5, 40) | st.integers(-5, 40), min_size=4, max_size=9), max_size=3)


def run_lengths():
    counts = st.lists(st.integers(-1, 800), max_size=9) | st.text("0123456789OPQabc`_\\", max_size=12)
    return st.fixed_dictionaries({"size": hostile.mostly(st.just([24, 32])), "counts": counts})


def coco_annotations():
    sides = st.floats(0, 12) | st.integers(0, 12)
    return st.fixed_dictionaries(
        {
            "id": hostile.mostly(st.integers(0, 99)),
            "image_id": hostile.mostly(st.integers(10, 12)),
            "category_id": hostile.mostly(st.sampled_from((7, 40))),
            "bbox": hostile.mostly(st.just([1, 1, 8.5, 9]) | st.lists(hostile.mostly(sides), min_size=4, max_size=4)),
        },
        optional={
            "area": hostile.mostly(st.floats(0, 900)),
            "iscrowd": hostile.mostly(st.integers(0, 1)),
            "segmentation": hostile.mostly(st.sampled_from(SHAPES) | polygons() | run_lengths()),
        },
    )


def coco_documents():
    """COCO documents made up of parts, most of which are sound."""

    def records(*each):
        fixed = [
            st.fixed_dictionaries({key: hostile.mostly(st.just(value)) for key, value in record.items()})
            for record in each
        ]
        return hostile.mostly(st.tuples(*fixed).map(list))

    annotations = st.lists(
        coco_annotations(), min_size=1, max_size=4, unique_by=lambda annotation: repr(annotation["id"])
    )
    return st.fixed_dictionaries(
        {
            "images": records(*IMAGES),
            "annotations": hostile.mostly(annotations),
            "categories": records(*COCO["categories"]),
            "info": hostile.mostly(st.just({"year": 2014})),
        }
    )


def coco_files():
    return hostile.json_files(hostile.changed(COCO) | coco_documents())


def tables():
    """CSV files of cells with quotes, separators, line ends and characters of several encodings."""
    names = st.sampled_from(("0.png", "1.png", "2.png", '"2.png"', "../0.png", "", "path"))
    labels = st.lists(st.sampled_from(("disc", "square", " disc ", "ä", "\u2028", "")), max_size=3).map(";".join)
    cells = labels | st.text('a,;"\r\n\0ä\ud800 ', max_size=6)
    rows = st.tuples(names, st.lists(cells, max_size=3)).map(lambda row: ",".join((row[0], *row[1])))
    headers = st.sampled_from((("path,label,unknown",), ("path,label",), ("path,lable",), ()))
    ends = st.sampled_from(("\n", "\r\n", "\r"))
    texts = st.tuples(headers, st.lists(rows, max_size=5), ends).map(
        lambda parts: parts[2].join((*parts[0], *parts[1]))
    )
    made_up = st.tuples(texts, st.sampled_from(("utf-8", "utf-8-sig", "utf-16", "latin-1"))).map(
        lambda parts: parts[0].encode(parts[1], "replace")
    )
    seeds = st.integers(0, 2**32).map(random.Random)
    return seeds.map(lambda draw: hostile.flipped(TABLE.encode(), draw)) | hostile.sometimes_flipped(made_up)


ANNOTATIONS = {"labels": coco_files, "boxes": coco_files, "table": tables}


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


def annotation_files(kind, read):
    def call(folder):
        write_images(folder)
        path = folder / ("a.csv" if kind == "table" else "a.json")

        def write_and_read(content):
            path.write_bytes(content)
            read(path)

        write_and_read(TABLE.encode() if kind == "table" else json.dumps(COCO).encode())
        return hostile.try_generated(ANNOTATIONS[kind](), write_and_read, COUNT)

    return call


def check_and_fix(task):
    """Checks an annotation file, writes the report, and a file without what it can cure, which is checked again."""

    def read(path):
        from tresnet_downstream.data_check import Source, check_data, table, write_cleaned, write_json

        def checked(file):
            (path.parent / "report.json").unlink(missing_ok=True)
            report = check_data([Source("train", str(file), str(path.parent), task, needs_masks=task == "detection")])
            table(report)
            write_json(report, path.parent / "report.json")
            return report

        report, cleaned = checked(path), path.with_name(f"cleaned{path.suffix}")
        write_cleaned(report.listings[0], cleaned, overwrite=True)
        checked(cleaned)

    return read


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


def damaged_file(name, content):
    if name.endswith(".npy"):
        whole = array_bytes(content)
        seeds = st.integers(0, 2**32).map(random.Random)
        # Half of them in the header.
        in_header = seeds.map(lambda draw: hostile.flipped(whole[:128], draw) + whole[128:])
        return seeds.map(lambda draw: hostile.flipped(whole, draw)) | in_header
    trees = hostile.changed(content)
    return hostile.gzip_files(trees) if name.endswith(".gz") else hostile.json_files(trees)


def use_run(folder, report):
    from tresnet_downstream.evaluation import detection_scores, multilabel_scores, read_run
    from tresnet_downstream.evaluation.outcomes import MultilabelRun
    from tresnet_downstream.evaluation.report import write_report
    from tresnet_downstream.evaluation.run_thresholds import thresholds_for
    from tresnet_downstream.evaluation.threshold_curves import Objective

    run = read_run(folder)
    if isinstance(run, MultilabelRun):
        multilabel_scores(run.probabilities, run.targets, run.classes, run.threshold, run.top_k)
    else:
        for kind, rows in run.predictions.items():
            detection_scores(run.ground_truth, rows, run.classes, run.image_ids, kind, run.backend)
    thresholds_for(folder, Objective.parse("f1"))
    if report:
        write_report(folder, folder.parent / "report", resamples=0)


def run_folders(task, reports=20):
    def call(folder):
        run, number = folder / "run", itertools.count()
        whole = {name: damage_free(name, content) for name, content in RUNS[task].items()}
        inputs = st.one_of(
            [st.tuples(st.just(name), damaged_file(name, content)) for name, content in RUNS[task].items()]
        )

        def write(changes):
            run.mkdir(exist_ok=True)
            for name, content in {**whole, **changes}.items():
                (run / name).write_bytes(content)

        def write_and_use(change):
            write(dict([change]))
            use_run(run, report=next(number) % (COUNT // reports + 1) == 0)

        write({})
        use_run(run, report=True)
        return hostile.try_generated(inputs, write_and_use, COUNT)

    return call


def damage_free(name, content):
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


def threshold_files(folder):
    from tresnet_downstream.evaluation.run_thresholds import notes_on
    from tresnet_downstream.evaluation.thresholds import read_thresholds

    def write_and_use(content):
        (folder / "thresholds.json").write_bytes(content)
        thresholds = read_thresholds(folder / "thresholds.json")
        thresholds.limits(("square", "disc"), "multilabel")
        str(thresholds), notes_on(thresholds), thresholds.flatter({"data": "a.json"})

    write_and_use(json.dumps(THRESHOLDS).encode())
    return hostile.try_generated(hostile.json_files(hostile.changed(THRESHOLDS)), write_and_use, COUNT)


def earlier_scores(folder):
    """The scores of before, which new ones are compared with: those that differ are kept, whatever they are."""
    from tresnet_downstream.evaluation.scored import same_result

    scores, path = {"mAP": 50.0, "per_class": {"disc": 1.0}, "date": "today"}, folder / "scores.json"

    def write_and_use(content):
        path.write_bytes(content)
        same_result(path, scores)

    return hostile.try_generated(hostile.json_files(hostile.changed(scores)), write_and_use, COUNT)


def notes_of_trainings(folder):
    """What a training's folder says of its last validation."""
    from tresnet_downstream.running.folders import LAST_VALIDATION, last_validation, write_validation

    note = {"iter": 30, "epoch": 3, "best_ckpt": "best_coco_bbox_mAP_epoch_3.pth", "best_score": 0.5}
    write_validation(folder, note)
    assert last_validation(folder) == note

    def write_and_use(content):
        (folder / LAST_VALIDATION).write_bytes(content)
        read = last_validation(folder)
        assert {key: type(read.get(key, value)) for key, value in note.items() if key != "best_score"} == {
            "iter": int,
            "epoch": int,
            "best_ckpt": str,
        }

    return hostile.try_generated(hostile.json_files(hostile.changed(note)), write_and_use, COUNT)


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
    from tresnet_downstream import load_model, predict
    from tresnet_downstream.classification import ImageClassifier
    from tresnet_downstream.weights import is_detector

    def load(path):
        is_detector(path)
        predict(load_model(path), np.zeros((20, 30, 3), np.uint8))

    described = CLASSIFIER["classifier"]
    model = ImageClassifier(described["backbone"], described["head"])
    meta = {"model": CLASSIFIER, "dataset_meta": {"classes": ["square", "disc"]}}
    return {"state_dict": dict(model.state_dict()), "meta": meta}, load


def small_detector():
    import copy

    from detection.small_boxes import CONFIG, NETWORK
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    from tresnet_downstream.detection.hooks import describe_detector
    from tresnet_downstream.detection.predict import detect, load_detector
    from tresnet_downstream.running.checkpoints import plain
    from tresnet_downstream.running.config import load_config

    config = load_config(CONFIG, [f"{key}={value}" for key, value in NETWORK.items() if "model." in key])
    init_default_scope("mmdet")
    model = MODELS.build(copy.deepcopy(config.model))
    pipeline = [dict(step) for step in config.val_dataloader.dataset.pipeline]
    described = plain({"detector": describe_detector(config.model), "pipeline": pipeline})
    meta = {"model": described, "dataset_meta": {"classes": ["square", "disc"]}}

    def load(path):
        list(detect(load_detector(path), np.zeros((20, 30, 3), np.uint8)))

    return {"state_dict": dict(model.state_dict()), "meta": meta}, load


def odd_tensors(tensor):
    """The tensor in kinds, shapes or with values that no network has."""
    import torch

    return st.sampled_from(
        (
            *(lambda: tensor.to(torch.float8_e4m3fn), lambda: tensor > 0, lambda: tensor.to(torch.complex64)),
            *(lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), lambda: tensor.to_sparse()),
            *(lambda: tensor.float() * torch.nan, lambda: tensor.float() + torch.inf, lambda: tensor.to(torch.int64)),
            *(lambda: tensor[None], lambda: tensor.flatten()[:0], lambda: torch.zeros(()), lambda: tensor.tolist()),
            *(lambda: None, lambda: "a", lambda: tensor.half(), lambda: torch.ones(1).expand(2**40)),
        )
    ).map(lambda make: make())


def checkpoints(make):
    """Half with another description, half with other weights."""

    def call(folder):
        import torch

        content, load = make()
        weights, meta, path = content["state_dict"], content["meta"], folder / "m.pth"
        other_weights = st.sampled_from(list(weights)).flatmap(
            lambda name: odd_tensors(weights[name]).map(lambda tensor: {**weights, name: tensor})
        )
        descriptions = hostile.changed(meta, KEYS).map(lambda changed: {"state_dict": weights, "meta": changed})

        def write_and_load(checkpoint):
            torch.save(checkpoint, path)
            load(path)

        write_and_load(content)
        inputs = descriptions | other_weights.map(lambda changed: {"state_dict": changed, "meta": meta})
        return hostile.try_generated(inputs, write_and_load, COUNT)

    return call


def resumed_trainings(task):
    """Trainings that go on from checkpoints whose state was changed; the weights, which others test, are whole."""

    def call(folder):
        import torch
        from detection.small_boxes import CONFIG, flags, make_boxes
        from running import small_data

        if task == "detection":
            tool, config, options = "train_detection", CONFIG, flags(make_boxes(folder / "data", 4, 2))
        else:
            tool, config = "train_multilabel", small_data.DIGITS
            options = small_data.options(small_data.make_small_data(folder / "data", 8, 4))

        def train(*more):
            status, _, err = small_data.call(tool, [config, "--work-dir", work_dir, *more, *options])
            assert status in (0, 2), err
            if status:
                raise hostile.UserError(err.strip())

        work_dir = folder / "first"
        train()
        work_dir, whole = folder / "run", torch.load(work_dir / "epoch_1.pth", weights_only=True)
        state = [key for key in whole if "state_dict" not in key and key != "cfg"]
        inputs = st.sampled_from(state).flatmap(
            lambda key: st.tuples(
                st.just(key), hostile.changed({key: whole[key]}).filter(lambda changed: isinstance(changed, dict))
            )
        )

        def write_and_resume(change):
            shutil.rmtree(work_dir, ignore_errors=True)
            work_dir.mkdir()
            key, changed = change
            kept = {name: value for name, value in whole.items() if name != key}
            torch.save({**kept, **changed}, work_dir / "epoch_1.pth")
            train("--resume")

        write_and_resume(("meta", {"meta": whole["meta"]}))
        return hostile.try_generated(inputs, write_and_resume, COUNT // 10, shrink=False)

    return call


# Arguments that networks and transforms have besides those of the examples.
KEYS = (
    *("act_cfg", "backbone", "conv_cfg", "drop_path_rate", "embed_dim", "frozen_stages", "init_cfg", "in_channels"),
    *("layers", "mean", "norm", "norm_cfg", "num_classes", "num_heads", "out_indices", "p", "pretrained", "size"),
    *("test_cfg", "threshold", "train_cfg", "transforms", "type", "variant", "width", "with_cp", "_scope_", "_delete_"),
)
KINDS = {
    "annotations": {
        "labels": annotation_files("labels", read_multilabel),
        "boxes": annotation_files("boxes", read_boxes),
        "table": annotation_files("table", read_multilabel),
        "check of labels": annotation_files("labels", check_and_fix("classification")),
        "check of boxes": annotation_files("boxes", check_and_fix("detection")),
        "check of a table": annotation_files("table", check_and_fix("classification")),
    },
    "results": {
        **{f"{task} run": run_folders(task) for task in RUNS},
        "thresholds": threshold_files,
        "earlier scores": earlier_scores,
        "last validation": notes_of_trainings,
    },
    "descriptions": {"classifier": checkpoints(small_classifier), "detector": checkpoints(small_detector)},
    "trainings": {task: resumed_trainings(task) for task in ("classification", "detection")},
}
# A damaged one is done without.
READ_ANYWAY = ("earlier scores", "last validation")


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.skipif(sys.platform == "win32", reason="memory is limited by resource.setrlimit")
@pytest.mark.parametrize(
    "group", ["annotations", "results", "descriptions", pytest.param("trainings", marks=pytest.mark.slow)]
)
def test_hostile_files_are_read_or_refused_in_2_gib(group, tmp_path):
    tallies = hostile.in_little_memory("test_hostile_files", group, tmp_path, 120 + len(KINDS[group]) * (30 + COUNT))
    assert tallies.keys() == KINDS[group].keys()
    for kind, tally in tallies.items():
        assert 10 * tally["refused"] > tally["read"] or kind in READ_ANYWAY, kind
