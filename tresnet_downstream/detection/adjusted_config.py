"""The changes that :class:`DetectionRunner` makes to a config of MMDetection: paths, checked components, classes."""

import copy
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import ClassBalancedDataset
from mmengine.fileio import join_path
from torch.utils.data import Dataset

from tresnet_downstream.detection.tta import detector_config
from tresnet_downstream.errors import UserError
from tresnet_downstream.formats import read_classes
from tresnet_downstream.notices import tell
from tresnet_downstream.registry import SCOPE
from tresnet_downstream.running.split_overlap import SPLITS as SCORED
from tresnet_downstream.running.split_overlap import require_split

# Replacements of MMDetection's CocoDataset and CocoMetric, with more checks.
OUR_DATA, OUR_METRIC = f"{SCOPE}.CocoBoxes", f"{SCOPE}.DetectionMetric"
BALANCED = ClassBalancedDataset.__name__
SPLITS = ("train", "val", "test")
# Top-level keys that are passed to every data set that does not set them itself.
DATA_OPTIONS = ("outside_paths", "on_bad_image", "trust_boxes")
OUR_IMPORT = f"{SCOPE}.detection.training"
# Normalisation for TResNet's weights. Sides of images must be multiples of the stem's stride; they are padded to
# multiples of the stride of the last feature map.
PIXELS = {"mean": [0, 0, 0], "std": [255, 255, 255], "bgr_to_rgb": True}
STEM_STRIDE, PAD_DIVISOR = 4, 32
# Mean and standard deviation, rounded to a tenth, in MMDetection's configs: for networks of torchvision in RGB and BGR,
# of Caffe, Detectron and SSD, and for YOLOX, which does not normalise.
OTHER_PIXELS = {
    ((123.7, 116.3, 103.5), (58.4, 57.1, 57.4)),
    ((103.5, 116.3, 123.7), (57.4, 57.1, 58.4)),
    ((103.5, 116.3, 123.7), (58.4, 57.1, 57.4)),
    ((103.5, 116.3, 123.7), (1.0, 1.0, 1.0)),
    ((103.0, 115.9, 122.8), (1.0, 1.0, 1.0)),
    ((123.7, 116.3, 103.5), (1.0, 1.0, 1.0)),
    (None, None),
}


def follow_options(cfg: Config) -> None:
    """Applies options to dependent keys: ``data_root`` of the data sets, the test data, and the evaluators' files."""
    written = _as_written(cfg)
    for part in ("dataloader", "evaluator"):
        val, test = f"val_{part}", f"test_{part}"
        if val in cfg and _without_views(cfg, test) == written.get(test) == written.get(val):
            views = _views(cfg, test)
            cfg[test] = copy.deepcopy(cfg[val])
            if views is not None:
                if "tta_pipeline" not in written:  # the views are made from the images of the test pipeline
                    views = cfg.tta_pipeline = [*cfg[test].dataset.pipeline[:-1], views[-1]]
                cfg[test].dataset.pipeline = views
    for split, dataset in datasets_of(cfg):
        if cfg.get("data_root") and dataset.get("data_root") == written.get("data_root"):
            dataset.data_root = cfg.data_root
        before = _listed(written.get(f"{split}_evaluator") or [])
        for evaluator, original in zip(_listed(cfg.get(f"{split}_evaluator") or []), before, strict=False):
            if "ann_file" in evaluator and evaluator.ann_file == original.get("ann_file"):
                evaluator.ann_file = annotation_file(dataset)


def take_split(cfg: Config, split: str) -> None:
    """Sets the data that a test scores: with ``val``, the validation data replaces the test data.

    Args:
        cfg: the config after :func:`follow_options`; it is modified.
        split: ``val`` or ``test``.

    Raises:
        UserError: if the split is unknown, or the config has no data for it.
    """
    require_split(split)
    if not cfg.get(f"{split}_dataloader"):
        others = [each for each in SCORED if cfg.get(f"{each}_dataloader")]
        instead = f"; it has split {others[0]}" if others else ""
        raise UserError(f"`split` {split}: the config has no {split}_dataloader{instead}")
    files = {each: [(annotation_file(d), image_folder(d)) for s, d in datasets_of(cfg) if s == each] for each in SCORED}
    is_same = files["val"] == files["test"] and bool(files["val"])
    if split == "test":
        if is_same:
            tell("note: the test data of the config is its validation data, by which the best epoch was chosen")
        return
    if cfg.get("test_dataloader") and not is_same:
        tell("note: the val split is scored; the config has other data for `split` test")
    if is_same:
        return  # keeps the test data's own keys, such as its pipeline
    cfg.test_dataloader, cfg.test_evaluator = copy.deepcopy(cfg.val_dataloader), copy.deepcopy(cfg.val_evaluator)
    if not cfg.get("test_cfg"):
        cfg.test_cfg = {"type": "TestLoop"}
    if cfg.get("labels"):
        cfg.labels.test = copy.deepcopy(cfg.labels.get("val"))


def _views(cfg: Config, part: str) -> Any:
    """The pipeline of a part of the config, if MMDetection's test tool set it to that of test-time augmentation."""
    loader = cfg.get(part)
    dataset = loader.get("dataset") if isinstance(loader, Mapping) else None  # evaluators may be several
    pipeline = dataset.get("pipeline") if isinstance(dataset, Mapping) else None
    return pipeline if pipeline is not None and pipeline == cfg.get("tta_pipeline") else None


def _without_views(cfg: Config, part: str) -> Any:
    """A part of the config before MMDetection's test tool changed its pipeline."""
    if _views(cfg, part) is None:
        return cfg.get(part)
    before = copy.deepcopy(cfg[part])
    before.dataset.pipeline = _as_written(cfg)[part].dataset.pipeline
    return before


def _as_written(cfg: Config) -> Config:
    """The config of the file, without options of the command line."""
    return Config.fromfile(cfg.filename) if cfg.filename and Path(cfg.filename).is_file() else cfg


def tell_of_schedule(cfg: Config) -> None:
    """Prints a note if the learning rate schedule ends before or after the training."""
    epochs = (cfg.get("train_cfg") or {}).get("max_epochs")
    ends = [
        (schedule.get("end"), f"param_scheduler.{number}.end")
        for number, schedule in enumerate(_listed(cfg.get("param_scheduler") or []))
        if schedule.get("by_epoch", True) and isinstance(schedule.get("end"), int)
    ]
    if not ends or not isinstance(epochs, int):
        return
    last, key = max(ends)
    if last == epochs:
        return
    effect = "the learning rate stays constant after it" if last < epochs else "the schedule is not completed"
    tell(f"note: the learning rate schedule ends at epoch {last}, the training at {epochs}: {effect} ({key})")


def use_checked_components(cfg: Config) -> None:
    """Replaces MMDetection's data set and metric by ours; the metric only if the data set was replaced."""
    written = _as_written(cfg)
    for split in SPLITS:
        if (cfg.get(f"{split}_dataloader") or {}).get("num_workers") == 0:
            cfg[f"{split}_dataloader"].persistent_workers = False
    for split, dataset in datasets_of(cfg):
        if _plain_name(dataset) == "CocoDataset":
            dataset.type = OUR_DATA
        if dataset.type == OUR_DATA:
            for key in DATA_OPTIONS:
                # In a config that a training saved, every data set has these keys.
                if cfg.get(key) and dataset.get(key) in (None, written.get(key)):
                    dataset[key] = cfg[key]
            if split != "train" and dataset.get("on_bad_image") == "skip":
                # A neighbouring image as a replacement would be scored twice.
                dataset.on_bad_image = "leave_out"
        for evaluator in _listed(cfg.get(f"{split}_evaluator") or []):
            # Only MMDetection's metric scores region proposals.
            boxes = set(_listed(evaluator.get("metric", "bbox"))) <= {"bbox", "segm"}
            if dataset.type == OUR_DATA and _plain_name(evaluator) == "CocoMetric" and boxes:
                evaluator.type = OUR_METRIC
                evaluator.setdefault("ann_file", annotation_file(dataset))
            if evaluator.type == OUR_METRIC:
                evaluator.setdefault("backend", cfg.get("coco_eval", "pycocotools"))
                for key in ("trust_boxes", "voc_rules"):
                    if cfg.get(key):
                        evaluator.setdefault(key, cfg[key])


def repeat_rare_classes(cfg: Config) -> None:
    """Wraps the training data in MMEngine's ``ClassBalancedDataset`` if ``sampling`` is ``repeat_factor``.

    Raises:
        UserError: if ``sampling`` is unknown, or ``repeat_threshold`` is not above 0 and at most 1.
    """
    sampling, threshold = cfg.get("sampling"), cfg.get("repeat_threshold")
    if sampling is None or "train_dataloader" not in cfg:
        return
    if sampling != "repeat_factor":
        raise UserError(f"sampling={sampling!r}: detectors take 'repeat_factor' or None")
    if type(threshold) not in (int, float) or not 0 < threshold <= 1:
        raise UserError(f"repeat_threshold={threshold!r}: give a share of the images, above 0 to 1")
    holder = cfg.train_dataloader
    # A data set that mixes images reads them from the data set that it wraps, and does not report their classes.
    while _plain_name(holder.dataset) == "MultiImageMixDataset":
        holder = holder.dataset
    if str(holder.dataset.get("type")).rpartition(".")[2] != BALANCED:
        holder.dataset = {"type": f"mmengine.{BALANCED}", "dataset": holder.dataset}
    holder.dataset.oversample_thr = threshold  # a config that a training saved may have another value


def draws_text(dataset: Dataset[object] | None) -> str:
    """The line about a data set that ``ClassBalancedDataset`` repeats; empty for other data sets."""
    while dataset is not None and not isinstance(dataset, ClassBalancedDataset):
        dataset = getattr(dataset, "dataset", None)
    if dataset is None:
        return ""
    images = len(dataset.dataset)
    return (
        f"sampling: repeat_factor with repeat_threshold {dataset.oversample_thr:.3g}: {len(dataset):,} draws of "
        f"{images:,} images in an epoch, each image up to {max(Counter(dataset.repeat_indices).values())} times"
    )


def fill_neck_channels(cfg: Config) -> None:
    """Sets ``in_channels`` of the neck, or of its first part, to the backbone's channels if it is None.

    Raises:
        UserError: if the backbone has no ``feature_info``, which lists its channels.
    """
    if "model" not in cfg:
        return
    detector = detector_config(cfg)
    neck, place = detector.get("neck"), "model.neck"
    if isinstance(neck, list | tuple) and neck:
        neck, place = neck[0], "model.neck.0"
    if not isinstance(neck, dict) or "in_channels" not in neck or neck["in_channels"] is not None:
        return
    from mmdet.registry import MODELS

    described = {key: value for key, value in detector.backbone.items() if key != "init_cfg"}
    with torch.device("meta"):
        backbone = MODELS.build(described)
    info = getattr(backbone, "feature_info", None)
    if info is None:
        raise UserError(
            f"{place}.in_channels: is None, and {type(backbone).__name__} does not list its channels; write them here"
        )
    neck["in_channels"] = [info[index]["channels"] for index in backbone.out_indices]


def import_again(cfg: Config) -> None:
    """Adds this package to the config's ``custom_imports``, for the copy of the config in the work dir.

    The base config of this package does not use ``custom_imports``, because MMEngine refuses a key that two bases
    define.
    """
    custom = dict(cfg.get("custom_imports") or {})
    imports = _listed(custom.get("imports") or [])
    if OUR_IMPORT not in imports:
        cfg.custom_imports = {"allow_failed_imports": False, **custom, "imports": [*imports, OUR_IMPORT]}


def prepare_pixels(cfg: Config) -> None:
    """Sets the normalisation and padding of images for a TResNet.

    Only the means and standard deviations that MMDetection's configs have for other networks are replaced; a line says
    so.
    """
    if not any(str(node.get("type")).rpartition(".")[2] == "TResNet" for node in _nodes(detector_config(cfg))):
        return
    for place, node in [*_preprocessors(detector_config(cfg)), ("data_preprocessor", cfg.get("data_preprocessor"))]:
        if not isinstance(node, dict) or "data_preprocessor" in node:
            continue  # no preprocessor, or one that wraps another one
        changed = []
        if (_numbers(node.get("mean")), _numbers(node.get("std"))) in OTHER_PIXELS:
            node.update(PIXELS)
            node.pop("rgb_to_bgr", None)
            changed.append("are RGB in [0, 1]")
        if (node.get("pad_size_divisor") or 1) % STEM_STRIDE:
            node.update(pad_size_divisor=PAD_DIVISOR)
            changed.append(f"are padded to multiples of {PAD_DIVISOR}")
        if changed:
            tell(
                f"note: {place}: the values of another network are replaced: images {' and '.join(changed)}, as "
                "TResNet requires; data_preprocessor=_base_.pixels sets this in the config"
            )


def _numbers(values: Iterable[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(round(float(value), 1) for value in values)


def _preprocessors(node: object, place: str = "model") -> Iterator[tuple[str, object]]:
    """Each ``data_preprocessor`` in a model's config, with its path."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "data_preprocessor":
                yield f"{place}.{key}", value
            yield from _preprocessors(value, f"{place}.{key}")


def _nodes(node: object) -> Iterator[Mapping[str, object]]:
    """Each dictionary in a config."""
    if isinstance(node, Mapping):
        yield node
    values: Iterable[object] = (
        node.values() if isinstance(node, Mapping) else node if isinstance(node, list | tuple) else ()
    )
    for value in values:
        yield from _nodes(value)


def require_mask_loading(cfg: Config, model: ConfigDict) -> None:
    """Checks that the training data of a detector with masks loads masks; ``model`` is the detector's config.

    Raises:
        UserError: if a pipeline loads only boxes.
    """
    preprocessor = model.get("data_preprocessor") or {}
    if _plain_name(preprocessor) != "DetDataPreprocessor":
        return  # BoxInst's preprocessor makes masks from boxes
    for split, dataset in datasets_of(cfg):
        steps = dataset.get("pipeline") or ()
        loading = [step for step in steps if isinstance(step, Mapping) and _plain_name(step) == "LoadAnnotations"]
        if split == "train" and loading and not any(step.get("with_mask") for step in loading):
            raise UserError(
                "train_dataloader.dataset.pipeline: its LoadAnnotations loads no masks, and the detector has a head "
                "for them: set with_mask=True there, or choose a detector of boxes, such as "
                "configs/faster_rcnn_tresnet_m.py"
            )


def _plain_name(component: Mapping[str, object]) -> str:
    return str(component.get("type")).removeprefix("mmdet.")


def set_classes(cfg: Config) -> None:
    """Sets the classes of all data sets and heads: the classes in the config, or else those of the training data."""
    datasets = [dataset for _, dataset in datasets_of(cfg) if dataset.type == OUR_DATA]
    classes = next(filter(None, map(_classes_of, datasets)), None)
    if classes is None:
        return
    for dataset in datasets:
        dataset.metainfo = {"classes": classes, **(dataset.get("metainfo") or {})}
    counts_by_place = dict(_num_classes(detector_config(cfg)))
    written = dict(_num_classes(_as_written(cfg).get("model")))
    for place, count in counts_by_place.items():
        if count not in (len(classes), written.get(place)):
            tell(f"note: {place}={count} has no effect: every head predicts the {len(classes)} classes of the data")
    _set_num_classes(cfg.model, len(classes))


def _num_classes(node: object, place: str = "model") -> Iterator[tuple[str, object]]:
    """Each ``num_classes`` in a config, with its path."""
    items: Iterable[tuple[object, object]] = ()
    if isinstance(node, Mapping):
        items = node.items()
    elif isinstance(node, list | tuple):
        items = enumerate(node)
    for key, value in items:
        if key == "num_classes":
            yield f"{place}.{key}", value
        else:
            yield from _num_classes(value, f"{place}.{key}")


def _classes_of(dataset: ConfigDict) -> tuple[str, ...] | None:
    """The classes of a data set's config, or else those of its annotation file, if it exists."""
    if (classes := (dataset.get("metainfo") or {}).get("classes")) is not None:
        if isinstance(classes, str):
            raise UserError(f"metainfo.classes={classes!r}: write a list of names, such as ({classes!r},)")
        return tuple(classes)
    file = Path(annotation_file(dataset))
    return read_classes(file) if file.is_file() else None


def _set_num_classes(model: object, count: int) -> None:
    if isinstance(model, dict):
        if "num_classes" in model:
            model["num_classes"] = count
        if "num_things_classes" in model:
            _set_things(model, count)
        for key, value in model.items():
            if key != "semantic_head":  # it predicts stuff, which has no boxes
                _set_num_classes(value, count)
    elif isinstance(model, list | tuple):
        for item in model:
            _set_num_classes(item, count)


def _set_things(head: ConfigDict, count: int) -> None:
    """Sets the number of thing classes of a mask head, and adapts the class weights of its loss."""
    before = head["num_things_classes"]
    head["num_things_classes"] = count
    loss = head.get("loss_cls") or {}
    weights = loss.get("class_weight")
    # The last weight is for no object; the weights of stuff classes come before it.
    if isinstance(weights, list | tuple) and len(weights) == before + head.get("num_stuff_classes", 0) + 1:
        loss["class_weight"] = [*list(weights[:1]) * count, *weights[before:]]


def datasets_of(cfg: Config) -> Iterator[tuple[str, ConfigDict]]:
    """The configs of each split's data sets that read an annotation file, also within wrappers like RepeatDataset."""
    for split in SPLITS:
        loader = cfg.get(f"{split}_dataloader")
        if isinstance(loader, Mapping):
            yield from ((split, dataset) for dataset in _leaves(loader.get("dataset")))


def _leaves(dataset: object) -> Iterator[ConfigDict]:
    if isinstance(dataset, list | tuple):
        for item in dataset:
            yield from _leaves(item)
    elif isinstance(dataset, Mapping):
        if "ann_file" in dataset:
            yield dataset
        for key in ("dataset", "datasets"):
            yield from _leaves(dataset.get(key))


def annotation_file(dataset: ConfigDict) -> str:
    """The path of a data set's annotation file, including ``data_root``."""
    return _below_root(dataset, dataset.ann_file)


def image_folder(dataset: ConfigDict) -> str:
    """The path of a data set's image folder, including ``data_root``."""
    return _below_root(dataset, (dataset.get("data_prefix") or {}).get("img", ""))


def _below_root(dataset: ConfigDict, path: str) -> str:
    if not dataset.get("data_root") or Path(path).is_absolute():
        return str(path)
    return str(join_path(dataset.data_root, path))


def _listed(one_or_more: Any) -> list[Any]:
    return [one_or_more] if isinstance(one_or_more, Mapping | str) else list(one_or_more)
