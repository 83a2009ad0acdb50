"""Reads a weight file of any project and recognises the network that it has the weights of."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tresnet_downstream.backbones import VARIANTS, Variant
from tresnet_downstream.classification.descriptions import input_size, read_description, resized
from tresnet_downstream.classification.recognition import backbone_config, head_config, nearest_network
from tresnet_downstream.classification.timm_files import timm_weight_file
from tresnet_downstream.classification.weight_file import WeightFile
from tresnet_downstream.errors import UserError
from tresnet_downstream.weights.catalogue import CATALOGUE, PublicWeight, imagenet_classes
from tresnet_downstream.weights.formats import OURS, translate
from tresnet_downstream.weights.pretrained import require_match, shape
from tresnet_downstream.weights.public_files import catalogue_name, locate
from tresnet_downstream.weights.reading import read_checkpoint, stored_at, unwrap

# Numbers of classes of the public files with one label per image. Other numbers stand for several labels.
_SINGLE_LABEL = (1000, 11221, 10450, 196)
# Input sizes by `multi_label`, if neither the file nor the catalogue has one.
_SIZES = {True: 448, False: 224}
_COUNTER = ".num_batches_tracked"
_NAME_OF_TIMM = "if the file is from timm, name its network by `network`"


def read_weight_file(
    path_or_name: str | Path,
    variant: str | None = None,
    slopes: Sequence[float] | None = None,
    weights: str | None = None,
    multi_label: bool | None = None,
    input_size: int | None = None,
    network: str | None = None,
) -> WeightFile:
    """Reads a weight file and recognises its network. Arguments and errors are those of :func:`load_model`."""
    entry = _entry_of(path_or_name)
    path = locate(path_or_name)
    checkpoint = read_checkpoint(path, finite=False)
    which, tensors = unwrap(checkpoint, weights, path)
    older = _older_description(checkpoint)
    description = read_description(path, checkpoint)
    network = network or (entry.network if entry else None)
    if network:
        file = timm_weight_file(path, tensors, network)
        _require_shapes(file)
    elif description.classifier is not None:
        file = _described(path, tensors, description.classifier)
    elif older["backbone"].get("type") == "TimmNetwork":
        file = _timm_network(path, tensors, older)
    else:
        file = _tresnet(path, tensors, older, entry)
    if entry is not None and file.variant != entry.variant:
        if catalogue_name(path_or_name):
            raise UserError(
                f"{path}: has the variant {file.variant}, but the catalogue has {entry.variant}; delete it and fetch "
                "it again"
            )
        entry = None  # another file with the name of a public one
    if variant is not None and variant != file.variant:
        known = "" if variant in VARIANTS else f", and {variant!r} is not one of {', '.join(VARIANTS)}"
        raise UserError(
            f"{path}: its shapes are those of variant {file.variant!r}, not {variant!r}{known}; leave `variant` out, "
            "or give another file"
        )
    if slopes is not None and file.backbone.get("type") == "TResNet":
        file.backbone["slopes"] = tuple(slopes)
    if multi_label is None:
        multi_label = _is_multi_label(file, older, entry)
    steps = file.pipeline or description.pipeline
    if network and entry is not None:
        input_size = input_size or entry.input_size
    pipeline = _pipeline(steps, entry, multi_label, input_size)
    names = _class_names(checkpoint, file, multi_label)
    classes = names or tuple(str(index) for index in range((file.head or {}).get("num_classes", 0)))
    return replace(
        file,
        weights=which,
        classes=classes,
        multi_label=multi_label,
        pipeline=pipeline,
        entry=entry,
        named=names is not None,
        thresholds=_thresholds(path, checkpoint, classes),
    )


def _thresholds(path: Path, checkpoint: Mapping[str, object], classes: Sequence[str]) -> dict[str, float | None] | None:
    """The thresholds in the description of a shared folder; None if it has none.

    Raises:
        UserError: if they are not a number or None for each class.
    """
    stored = stored_at(checkpoint, "meta", "thresholds")
    if stored is None:
        return None
    by_class = stored if isinstance(stored, Mapping) else {}
    if set(by_class) != set(classes) or not all(
        threshold is None or _is_finite_number(threshold) for threshold in by_class.values()
    ):
        raise UserError(f"{path}: its thresholds are not a number for each of its classes")
    return {name: by_class[name] for name in classes}


def _is_finite_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e30


def _entry_of(path_or_name: str | Path) -> PublicWeight | None:
    """The catalogue's entry for a name or URL in it, or for a file with the name of a public file; None otherwise."""
    if name := catalogue_name(path_or_name):
        return CATALOGUE[name]
    base = PurePosixPath(str(path_or_name).replace("\\", "/")).name
    for entry in CATALOGUE.values():
        if any(str(path_or_name) == place.url or base == place.file_name for place in entry.places):
            return entry
    return None


def _older_description(checkpoint: Mapping[str, object]) -> dict[str, Any]:
    """The settings in a checkpoint that is older than :mod:`.descriptions` and that its weights do not determine."""
    model = stored_at(checkpoint, "meta", "model")
    parts = {key: stored_at(checkpoint, "meta", "model", key) for key in ("backbone", "head")}
    configs = {key: part if isinstance(part, Mapping) else {} for key, part in parts.items()}
    return {**(model if isinstance(model, Mapping) else {}), **configs}


def _described(path: Path, tensors: dict[str, Tensor], classifier: dict[str, Any]) -> WeightFile:
    """A checkpoint that describes its classifier."""
    multi_label = bool(classifier.get("multi_label", True))
    backbone, head = dict(classifier["backbone"]), classifier["head"]
    file = WeightFile(path, OURS, tensors, backbone, head, multi_label=multi_label, described=classifier)
    layout = file.layout()
    require_match(layout, tensors, path)
    return replace(file, name=layout.variant)


def _tresnet(path: Path, tensors: dict[str, Tensor], older: dict[str, Any], entry: PublicWeight | None) -> WeightFile:
    translated = translate(tensors)
    if translated is None:
        raise UserError(f"{path}: has the weights of another network; {nearest_network(tensors)}; {_NAME_OF_TIMM}")
    state_dict = translated.state_dict
    for name in [name for name in state_dict if name.endswith(".running_var")]:
        # Older files do not have these counters. Their value does not affect results.
        state_dict.setdefault(name.replace(".running_var", _COUNTER), torch.tensor(0))
    backbone = backbone_config(state_dict)
    if backbone is None:
        raise UserError(f"{path}: has the weights of another network; {nearest_network(tensors)}; {_NAME_OF_TIMM}")
    slopes = older["backbone"].get("slopes") or (entry.slopes if entry else None) or Variant((1,)).slopes
    if not isinstance(slopes, list | tuple) or not all(isinstance(slope, int | float) for slope in slopes):
        raise UserError(f"{path}: has slopes={slopes!r:.40}; give two numbers as `slopes`")
    backbone["slopes"] = tuple(slopes)
    head = head_config(state_dict, path, older["head"])
    file = WeightFile(
        path, translated.style, state_dict, backbone, head, inexact=translated.inexact, unused=translated.unused
    )
    _require_shapes(file)
    return file


def _timm_network(path: Path, tensors: dict[str, Tensor], older: dict[str, Any]) -> WeightFile:
    """A checkpoint whose backbone is a network of timm. The checkpoint names it, since shapes do not determine it."""
    backbone = {"type": "TimmNetwork", "model": str(older["backbone"].get("model"))}
    head = head_config(tensors, path, older["head"])
    file = WeightFile(path, OURS, tensors, backbone, head)
    _require_shapes(file)
    return file


def _require_shapes(file: WeightFile) -> None:
    """Raises UserError unless the names and shapes are exactly those of the recognised network."""
    expected = {name: shape(tensor) for name, tensor in file.layout().state_dict().items()}
    present = {name: shape(tensor) for name, tensor in file.state_dict.items()}
    differing = [
        *(f"{name} is missing" for name in expected.keys() - present.keys()),
        *(f"{name} is unknown" for name in present.keys() - expected.keys()),
        *(
            f"{name} is {present[name]} instead of {expected[name]}"
            for name in expected.keys() & present.keys()
            if expected[name] != present[name]
        ),
    ]
    if differing and all(name.startswith("head.") for name in differing):
        raise UserError(
            f"{file.path}: the backbone fits ({file.variant}), but the head is of another type: "
            f"{'; '.join(sorted(differing)[:3])}. A state dict does not say which head it belongs to: load it into "
            "your own model by `load_state_dict`, or train with a config, whose checkpoints name the head"
        )
    if differing:
        family = "TResNet " if file.backbone["type"] == "TResNet" else ""
        raise UserError(
            f"{file.path}: has the weights of another network; the most similar one is {family}{file.variant}, from "
            f"which {len(differing)} names differ: {'; '.join(sorted(differing)[:3])}"
        )


def _is_multi_label(file: WeightFile, older: Mapping[str, object], entry: PublicWeight | None) -> bool:
    if file.described is not None or file.pipeline:
        return file.multi_label
    if "multi_label" in older:
        return bool(older["multi_label"])
    if entry is not None:
        return entry.multi_label
    if file.head is None or file.head["type"] != "LinearHead" or file.style == OURS:
        return True
    return file.head["num_classes"] not in _SINGLE_LABEL


def _pipeline(
    steps: tuple[dict[str, Any], ...], entry: PublicWeight | None, multi_label: bool, side: int | None
) -> tuple[dict[str, Any], ...]:
    if side is None and steps:
        return steps
    if side is not None and side < 1:
        raise UserError(f"`input_size` {side}: give 1 pixel or more")
    if steps and input_size(at_new_size := resized(steps, side)) == side:
        return at_new_size
    size = side or (entry.input_size if entry else _SIZES[multi_label])
    resize = entry.resize if entry else ("squash" if multi_label else "crop")
    return ({"type": "SquashResize" if resize == "squash" else "ResizeAndCrop", "size": size},)


def _class_names(checkpoint: Mapping[str, object], file: WeightFile, multi_label: bool) -> tuple[str, ...] | None:
    """The class names in the file, in the order of the logits; None if it has none.

    For 1000 classes with one label per image, they are the names of ImageNet.
    """
    if file.head is None:
        return None
    names = stored_at(checkpoint, "meta", "dataset_meta", "classes")
    if names is None:
        names = checkpoint.get("idx_to_class")
    if isinstance(names, Mapping):
        names = [names[key] for key in sorted(names, key=lambda key: int(key) if str(key).isdecimal() else 0)]
    if isinstance(names, list | tuple | np.ndarray) and len(names) == file.head["num_classes"]:
        return tuple(str(name).strip("'\"") for name in names)  # names of OpenImages are in quotes
    if file.head["num_classes"] == 1000 and not multi_label:
        return imagenet_classes()
    return None
