"""From any weight file of the family to a network that is ready: ``load_model`` and ``read_weight_file``."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tresnet_downstream.backbones import VARIANTS, Variant
from tresnet_downstream.classification.classifier import ImageClassifier
from tresnet_downstream.classification.descriptions import input_size, read_description, resized
from tresnet_downstream.classification.recognition import backbone_config, head_config, nearest_network
from tresnet_downstream.classification.timm_files import timm_weight_file
from tresnet_downstream.classification.weight_file import WeightFile, not_finite
from tresnet_downstream.errors import UserError
from tresnet_downstream.weights.catalogue import CATALOGUE, PublicWeight, imagenet_classes
from tresnet_downstream.weights.formats import OURS, translate
from tresnet_downstream.weights.pretrained import require_match, shape
from tresnet_downstream.weights.public_files import catalogue_name, locate
from tresnet_downstream.weights.reading import read_checkpoint, stored_at, unwrap

# Classes of the public single-label files; other numbers are taken for multi-label.
_SINGLE_LABEL = (1000, 11221, 10450, 196)
# Where neither the file nor the catalogue says.
_SIZES = {True: 448, False: 224}
_COUNTER = ".num_batches_tracked"
_NAME_OF_TIMM = "if the file is from timm, `network` names its network"


def load_model(
    path_or_name: str | Path,
    variant: str | None = None,
    slopes: Sequence[float] | None = None,
    weights: str | None = None,
    multi_label: bool | None = None,
    input_size: int | None = None,
    network: str | None = None,
) -> ImageClassifier:
    """A public or own network from its file alone, ready for prediction.

    Reads the files of TResNet, ASL, ML-Decoder, ImageNet-21K and timm, this toolkit's checkpoints, and of
    MMDetection's checkpoints the backbone, whatever dict they are wrapped in. A checkpoint of this toolkit says what
    network it is of; the module of a head or backbone of your own must be imported before.

    Args:
        path_or_name: a path, an ``https://`` URL or a name of the catalogue, such as ``l_coco_asl_448``; a folder that
            was shared, or ``hf://OWNER/NAME`` with ``@REVISION`` behind it if need be, see :func:`locate`.
        variant: the backbone's, for a check; the shapes decide.
        slopes: leaky slopes of stem and blocks. Shapes cannot tell them: 1e-2 and 1e-3 are taken unless the
            checkpoint or the catalogue says otherwise. The V2-L that was trained on Stanford Cars has 1e-6, 1e-6.
        weights: ``raw`` or ``averaged``; None takes those that scored better, else the average if there is one.
        multi_label: whether probabilities are a sigmoid for each class or a softmax over all; None follows the
            file or the catalogue, and else takes 1000, 11221, 10450 and 196 classes for single-label.
        input_size: side of the pictures, in place of the file's.
        network: timm's name of the network that the file is of, such as ``tf_efficientnet_lite0``; pictures are then
            prepared as timm does. Files of TResNets need none.

    Returns:
        a network in evaluation mode: N x 3 x H x W in [0, 1] to N x C logits, or to pooled features if the file
        has no head. It has ``classes``, ``input_size``, ``variant``, ``multi_label``, ``pipeline`` and ``thresholds``.

    Raises:
        UserError: if the file cannot be read, is of another network, contradicts ``variant``, names a part that is
            not registered, or holds numbers that are not finite.
    """
    file = read_weight_file(path_or_name, variant, slopes, weights, multi_label, input_size, network)
    if bad := not_finite(file.state_dict):
        raise UserError(f"{file.path}: holds numbers that are not finite, in {bad[0]} and {len(bad) - 1} more")
    return assembled(file)


def assembled(file: WeightFile) -> ImageClassifier:
    """The network of a file that was read; the file's dict of weights is emptied, so that they exist once."""
    # Laid out without memory; the tensors that were read become its parameters.
    classifier = file.layout()
    dtype = torch.get_default_dtype()
    state_dict = {}
    expected = classifier.state_dict()
    for name in list(file.state_dict):
        tensor = file.state_dict.pop(name)
        if name in expected and expected[name].is_floating_point() and not tensor.is_floating_point():
            raise UserError(f"{file.path}: {name} is of {tensor.dtype}, where the network has {expected[name].dtype}")
        if name in expected and not expected[name].is_floating_point():
            tensor = tensor.to(expected[name].dtype)  # counts, which some files hold as floats
        elif tensor.is_floating_point():
            tensor = _laid_out(tensor.to(dtype))
        state_dict[name] = tensor
    classifier.load_state_dict(state_dict, assign=True)
    return classifier


def _laid_out(tensor: Tensor) -> Tensor:
    """A tensor with the strides that it has in a network in training, which kernels choose their way of rounding by.

    `contiguous` leaves the strides of a 1 x 1 filter as they are: its values lie in the same order either way.
    """
    layout = torch.channels_last if tensor.dim() == 4 else torch.contiguous_format
    wanted = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta", memory_format=layout)
    return tensor.contiguous(memory_format=layout).as_strided(tensor.shape, wanted.stride())


def read_weight_file(
    path_or_name: str | Path,
    variant: str | None = None,
    slopes: Sequence[float] | None = None,
    weights: str | None = None,
    multi_label: bool | None = None,
    input_size: int | None = None,
    network: str | None = None,
) -> WeightFile:
    """Reads a file and finds out what it holds; arguments and errors as of :func:`load_model`."""
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
            raise UserError(f"{path}: holds {file.variant}, where the catalogue has {entry.variant}")
        entry = None  # Another file of the same name.
    if variant is not None and variant != file.variant:
        known = "" if variant in VARIANTS else f", and {variant!r} is none of {', '.join(VARIANTS)}"
        raise UserError(f"{path}: its shapes are those of variant {file.variant!r}, not {variant!r}{known}")
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


def _thresholds(path: Path, checkpoint: Mapping[str, Any], classes: Sequence[str]) -> dict[str, float | None] | None:
    """The thresholds in a shared folder's description; None if it has none.

    Raises:
        UserError: they are not one number, or None, for each class.
    """
    stored = stored_at(checkpoint, "meta", "thresholds")
    if stored is None:
        return None
    of_class = stored if isinstance(stored, Mapping) else {}
    if set(of_class) != set(classes) or not all(each is None or _is_finite_number(each) for each in of_class.values()):
        raise UserError(f"{path}: its thresholds are not a number for each of its classes")
    return {name: of_class[name] for name in classes}


def _is_finite_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e30


def _entry_of(path_or_name: str | Path) -> PublicWeight | None:
    """The catalogue's entry of a name, of one of its places, or of a file that bears the name of a published one."""
    if name := catalogue_name(path_or_name):
        return CATALOGUE[name]
    base = PurePosixPath(str(path_or_name).replace("\\", "/")).name
    for entry in CATALOGUE.values():
        if any(str(path_or_name) == place.url or base == place.file_name for place in entry.places):
            return entry
    return None


def _older_description(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint of before :mod:`.descriptions` says that its weights do not."""
    model = stored_at(checkpoint, "meta", "model")
    parts = {key: stored_at(checkpoint, "meta", "model", key) for key in ("backbone", "head")}
    of_parts = {key: part if isinstance(part, Mapping) else {} for key, part in parts.items()}
    return {**(model if isinstance(model, Mapping) else {}), **of_parts}


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
        # Older files do not count batches, and nothing is computed from the count.
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
    """A checkpoint of this toolkit whose backbone is timm's: shapes do not tell which, so the checkpoint does."""
    backbone = {"type": "TimmNetwork", "model": str(older["backbone"].get("model"))}
    head = head_config(tensors, path, older["head"])
    file = WeightFile(path, OURS, tensors, backbone, head)
    _require_shapes(file)
    return file


def _require_shapes(file: WeightFile) -> None:
    """Raises UserError unless the names and shapes are exactly those of the network that they were taken for."""
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
    if differing:
        family = "TResNet " if file.backbone["type"] == "TResNet" else ""
        raise UserError(
            f"{file.path}: has the weights of another network; the nearest known is {family}{file.variant}, from which "
            f"{len(differing)} names differ: {'; '.join(sorted(differing)[:3])}"
        )


def _is_multi_label(file: WeightFile, older: Mapping[str, Any], entry: PublicWeight | None) -> bool:
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
        raise UserError(f"pictures of {side} x {side}: give a side of 1 pixel or more (`input_size`)")
    if steps and input_size(again := resized(steps, side)) == side:
        return again
    size = side or (entry.input_size if entry else _SIZES[multi_label])
    resize = entry.resize if entry else ("squash" if multi_label else "crop")
    return ({"type": "SquashResize" if resize == "squash" else "ResizeAndCrop", "size": size},)


def _class_names(checkpoint: Mapping[str, Any], file: WeightFile, multi_label: bool) -> tuple[str, ...] | None:
    """The names in the file, in the order of the logits; ImageNet's where a published file has its 1000 classes."""
    if file.head is None:
        return None
    names = stored_at(checkpoint, "meta", "dataset_meta", "classes")
    if names is None:
        names = checkpoint.get("idx_to_class")
    if isinstance(names, Mapping):
        names = [names[key] for key in sorted(names, key=lambda key: int(key) if str(key).isdecimal() else 0)]
    if isinstance(names, list | tuple | np.ndarray) and len(names) == file.head["num_classes"]:
        return tuple(str(name).strip("'\"") for name in names)  # OpenImages' are in quotes
    if file.head["num_classes"] == 1000 and not multi_label:
        return imagenet_classes()
    return None
