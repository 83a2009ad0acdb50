"""Reads shared folders: a ``model.safetensors`` and a ``config.json``, in the layout of the Hugging Face hub and timm.

``config.json`` has timm's keys, and the key ``tresnet_downstream`` with the ``meta`` of a checkpoint. The two files
together are a checkpoint. Neither can contain code. :mod:`tresnet_downstream.deployment.sharing` writes them.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from tresnet_downstream.errors import UserError
from tresnet_downstream.json_reading import parse_json
from tresnet_downstream.text_files import read_text
from tresnet_downstream.weights.formats import OURS, RELEASE, TIMM, translate

CONFIG, WEIGHTS, KEY, VERSION = "config.json", "model.safetensors", "tresnet_downstream", 1
_TUPLE = "__tuple__"
CLASSIFIER, DETECTOR = "classifier", "detector"


def in_folder(folder: str | Path) -> Path:
    """The path of the weights in a shared folder.

    Raises:
        UserError: if the folder has none.
    """
    path = Path(folder) / WEIGHTS
    if not path.is_file():
        raise UserError(f"{folder}: is a folder without {WEIGHTS}; name a file, or a folder that was shared")
    return path


def description_beside(path: Path) -> dict[str, object] | None:
    """The key ``tresnet_downstream`` of the ``config.json`` beside a weight file; None if there is none.

    Raises:
        UserError: if it is damaged, or of another version.
    """
    config = path.with_name(CONFIG)
    if path.name != WEIGHTS or not config.is_file():
        return None
    content = parse_json(read_text(config), config)
    description = content.get(KEY) if isinstance(content, Mapping) else None
    if description is None:
        return None
    if not isinstance(description, Mapping) or not isinstance(description.get("meta"), Mapping):
        raise UserError(f"{config}: {KEY} is {json.dumps(description)[:60]}, which does not describe a model")
    if description.get("version") != VERSION:
        raise UserError(f"{config}: is of another version ({description.get('version')!r}); update the package")
    return dict(description)


def to_json(node: object) -> object:
    """Converts plain values to JSON. A tuple becomes a dict with one key, since JSON has only lists."""
    if isinstance(node, Mapping):
        return {str(key): to_json(value) for key, value in node.items()}
    if isinstance(node, tuple):
        return {_TUPLE: [to_json(item) for item in node]}
    return [to_json(item) for item in node] if isinstance(node, list) else node


def from_json(node: object) -> object:
    """The inverse of :func:`to_json`."""
    if isinstance(node, Mapping):
        if set(node) == {_TUPLE} and isinstance(node[_TUPLE], list):
            return tuple(from_json(item) for item in node[_TUPLE])
        return {key: from_json(value) for key, value in node.items()}
    return [from_json(item) for item in node] if isinstance(node, list) else node


def require_safetensors(path: Path, start: bytes) -> None:
    """Raises UserError if a file with a ``config.json`` beside it does not begin as safetensors files do."""
    if description_beside(path) is not None and start[8:9] != b"{":
        raise UserError(f"{path}: is not a safetensors file; shared folders must have one")


def as_checkpoint(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, object]:
    """The checkpoint that a weight file and its ``config.json`` form; the tensors alone if there is no ``config.json``.

    Raises:
        UserError: as :func:`description_beside`, or if the names of the weights are not those of the description.
    """
    description = description_beside(path)
    if description is None:
        return dict(tensors)
    state_dict = _under_our_names(path, tensors, description.get("names"), description.get("classifier_layer"))
    return {"state_dict": state_dict, "meta": from_json(description["meta"])}


def _under_our_names(path: Path, tensors: Mapping[str, Tensor], names: object, layer: object) -> dict[str, Tensor]:
    if names == OURS:
        return dict(tensors)
    if names == TIMM and isinstance(layer, str):
        return from_timm_network(tensors, layer)
    translated = translate(tensors) if names == RELEASE else None
    if translated is None or translated.unused:
        raise UserError(f"{path}: does not have the weights that {CONFIG} describes (names={names!r})")
    return translated.state_dict


def from_timm_network(tensors: Mapping[str, Tensor], layer: str) -> dict[str, Tensor]:
    """Renames the weights of a network of timm, whose classifier is ``layer``, to the names of a classifier here."""
    ours = {}
    for name, tensor in tensors.items():
        place, _, kind = name.rpartition(".")
        ours[f"head.fc.{kind}" if place == layer else f"backbone.network.{name}"] = tensor
    return ours


def to_timm_network(tensors: Mapping[str, Tensor], layer: str) -> dict[str, Tensor]:
    """The inverse of :func:`from_timm_network`, without the buffers of the normalisation of images."""
    renamed = {}
    for name, tensor in tensors.items():
        if name.startswith("head.fc."):
            renamed[f"{layer}.{name.removeprefix('head.fc.')}"] = tensor
        elif name.startswith("backbone.network."):
            renamed[name.removeprefix("backbone.network.")] = tensor
    return renamed
