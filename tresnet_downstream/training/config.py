"""Configs: MMEngine's files, options from the command line, and ``$name`` references.

A string in a config may name a key of the config's top level: ``'$image_size'`` stands for its value, and
``'train${coco_year}'`` has it filled in. References are resolved after the options are merged, so that
``--cfg-options image_size=224`` reaches every place that uses it. ``$$`` is a plain dollar sign.
"""

import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction

from tresnet_downstream import registry
from tresnet_downstream.errors import UserError

_WHOLE = re.compile(r"\$(\w+)")
_WITHIN = re.compile(r"\$\$|\$\{(\w+)\}")


def load_config(path: str | Path, options: Sequence[str] = ()) -> Config:
    """Reads a config file and merges ``key=value`` options into it; references are resolved.

    Args:
        path: a Python config of MMEngine.
        options: such as ``data_root=/data/coco`` or ``model.backbone.with_cp=True``. A key must be in the
            config, or be an argument of the component that it is set on.

    Raises:
        UserError: for a file that is missing or cannot be read, an option that has no such key, and a
            reference to a name that is not there.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such config file")
    try:
        config = Config.fromfile(str(path))
    except Exception as error:
        # A config is Python: whatever its author's mistake raises belongs to the file.
        raise UserError(f"{path}: cannot be read as a config: {' '.join(str(error).split())}") from error
    for option in options:
        key, separator, value = option.partition("=")
        if not separator or not key:
            raise UserError(f"--cfg-options {option}: write it as key=value")
        _require_key(config, key, str(path))
        config.merge_from_dict({key: _parse(value)})
    return _resolved(config)


def _parse(value: str) -> Any:
    """A value as MMEngine's command lines have it: numbers, True, None, lists in brackets, otherwise text."""
    return DictAction._parse_iterable(value)


def _require_key(config: Config, key: str, path: str) -> None:
    node: Any = config._cfg_dict
    for depth, name in enumerate(parts := key.split(".")):
        if isinstance(node, Sequence) and not isinstance(node, str):
            if not name.isdigit() or int(name) >= len(node):
                raise UserError(f"--cfg-options {key}: {'.'.join(parts[:depth])} has {len(node)} items, no {name!r}")
            node = node[int(name)]
        elif isinstance(node, Mapping) and name in node:
            node = node[name]
        elif isinstance(node, Mapping) and depth == len(parts) - 1 and _takes_argument(node.get("type"), name):
            return
        else:
            known = ", ".join(sorted(node)) if isinstance(node, Mapping) else "nothing below it"
            place = ".".join(parts[:depth]) or path
            raise UserError(f"--cfg-options {key}: {place} has no key {name!r}; it has {known}")


def _takes_argument(component: Any, name: str) -> bool:
    """Whether the component registered as ``component`` has a constructor argument ``name``."""
    for room in (registry.MODELS, registry.DATASETS, registry.HOOKS, registry.OPTIM_WRAPPERS):
        if isinstance(component, str) and (found := room.get(component)) is not None:
            return any(name in inspect.signature(base).parameters for base in inspect.getmro(found)[:-1])
    return False


def _resolved(config: Config) -> Config:
    names = dict(config._cfg_dict)

    def resolve(node: Any, within: tuple[str, ...] = ()) -> Any:
        if isinstance(node, Mapping):
            return {key: resolve(value, within) for key, value in node.items()}
        if isinstance(node, list | tuple):
            return type(node)(resolve(value, within) for value in node)
        if not isinstance(node, str) or "$" not in node:
            return node
        if match := _WHOLE.fullmatch(node):
            return look_up(match[1], node, within)
        return _WITHIN.sub(lambda match: fill(match, node, within), node)

    def fill(match: re.Match[str], text: str, within: tuple[str, ...]) -> str:
        return "$" if match[0] == "$$" else str(look_up(match[1], text, within))

    def look_up(name: str, text: str, within: tuple[str, ...]) -> Any:
        if name not in names or name in within:
            raise UserError(f"{config.filename}: {text!r} refers to {name!r}, which the config does not define")
        return resolve(names[name], (*within, name))

    return Config(resolve(names), filename=config.filename)
