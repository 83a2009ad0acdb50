"""The splits to check, from a config or from a single annotation file."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from tresnet_downstream.data_check.listing import Source
from tresnet_downstream.errors import UserError
from tresnet_downstream.registry import SCOPE
from tresnet_downstream.running.config_checks import check_config, unset_keys
from tresnet_downstream.text_files import read_text

SPLITS = ("train", "val", "test")


def sources_of_config(config: Config) -> list[Source]:
    """The splits of a config, in the order train, val, test.

    Args:
        config: a config of a classifier or detector, from :func:`load_config`.

    Raises:
        UserError: a data set is of a type that cannot be checked, or no split has files.
    """
    if config.get("default_scope", SCOPE) == SCOPE:
        return list(_classification_sources(config))
    return _detection_sources(config)


def source_of_file(
    annotation_file: str, image_folder: str, task: str | None = None, outside_paths: bool = False
) -> Source:
    """The source for an annotation file without a config.

    Args:
        annotation_file: a COCO ``.json``, a ``.csv`` or a VOC list ``.txt`` file.
        image_folder: folder to which the names in it are relative.
        task: ``classification`` or ``detection``; by default detection if the file is JSON and has boxes.
        outside_paths: whether images may be outside of the folder.
    """
    if task is None:
        task = "detection" if _has_boxes(annotation_file) else "classification"
    if task == "detection":
        return Source("data", annotation_file, image_folder, "detection", outside_paths=outside_paths)
    return Source("data", annotation_file, image_folder, "classification", outside_paths=outside_paths)


def _has_boxes(annotation_file: str) -> bool:
    try:
        return annotation_file.lower().endswith(".json") and '"bbox"' in read_text(annotation_file)
    except UserError:
        return False  # the check will report the unreadable file


def _classification_sources(config: Config) -> Iterator[Source]:
    unset = {key.split("_")[0] for key in unset_keys(config, SPLITS)}
    # Scoring needs no training data. If all splits are unset, this raises an error with the key to set.
    check_config(config, [split for split in ("train", "val") if split not in unset] or ("train", "val"))
    for split in SPLITS:
        dataset = (config.get(f"{split}_dataloader") or {}).get("dataset")
        if dataset is None or split in unset:
            continue
        _require_files(split, dataset)
        root = dataset.get("data_root") or ""
        folder = os.path.join(root, dataset["image_folder"])
        annotations = dataset["annotation_file"]
        yield Source(
            split,
            folder if annotations is None else os.path.join(root, annotations),
            folder,
            "classification",
            tuple(dataset["classes"]) if dataset.get("classes") else None,
            keep_empty=bool(dataset.get("keep_empty")),
            tolerates_bad_images=dataset.get("on_bad_image", "error") != "error",
            outside_paths=bool(dataset.get("outside_paths")),
            one_label=not (config.get("model") or {}).get("multi_label", True),
        )


def _require_files(split: str, dataset: object) -> None:
    """Raises UserError for a data set that reads neither an annotation file nor class folders."""
    if isinstance(dataset, Mapping) and "image_folder" in dataset and "annotation_file" in dataset:
        return
    kind = dataset.get("type") if isinstance(dataset, Mapping) else dataset
    raise UserError(
        f"{split}_dataloader.dataset: {kind} cannot be checked; a MultiLabelDataset or SingleLabelDataset can"
    )


def _detection_sources(config: Config) -> list[Source]:
    datasets = _detection_datasets(config)
    if not datasets:
        raise UserError(f"{config.filename}: no data set in it reads an annotation file")
    # As in training: the classes of the first data set, or else those of its file.
    first = datasets[0][1]
    classes = tuple(first["metainfo"]["classes"]) if _names_classes(first) else None
    sources = []
    for split, dataset, annotation_file, image_folder in datasets:
        if str(dataset.get("type")).rpartition(".")[2] not in ("CocoDataset", "CocoBoxes"):
            raise UserError(f"{split}_dataloader.dataset: only a CocoDataset can be checked, not {dataset.get('type')}")
        filters = dataset.get("filter_cfg") or {}
        sources.append(
            Source(
                split,
                annotation_file,
                image_folder,
                "detection",
                tuple(dataset["metainfo"]["classes"]) if _names_classes(dataset) else classes,
                keep_empty=not filters.get("filter_empty_gt", False),
                tolerates_bad_images=dataset.get("on_bad_image", config.get("on_bad_image", "error")) != "error",
                needs_labels=not dataset.get("test_mode", False),
                needs_masks=any(step.get("with_mask") for step in dataset.get("pipeline") or ()),
                outside_paths=bool(dataset.get("outside_paths", config.get("outside_paths"))),
                trusts_boxes=bool(dataset.get("trust_boxes", config.get("trust_boxes"))),
                min_size=filters.get("min_size", 0),
            )
        )
    return sources


def _names_classes(dataset: Mapping[str, Any]) -> bool:
    return bool((dataset.get("metainfo") or {}).get("classes"))


def _detection_datasets(config: Config) -> list[tuple[str, Any, str, str]]:
    """Split, config, annotation file and image folder of each data set, including wrapped ones."""
    from tresnet_downstream.detection import adjusted_config

    adjusted_config.follow_options(config)
    return [
        (split, dataset, adjusted_config.annotation_file(dataset), adjusted_config.image_folder(dataset))
        for split, dataset in adjusted_config.datasets_of(config)
    ]
