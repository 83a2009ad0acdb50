"""Configs: MMEngine's files, options from the command line, and ``$name`` references.

A string in a config may name a key of the config's top level: ``'$image_size'`` stands for its value, and
``'train${coco_year}'`` has it filled in. References are resolved after the options are merged, so that
``--cfg-options image_size=224`` reaches every place that uses it. ``$$`` is a plain dollar sign.
"""

import ast
import contextlib
import copy
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.registry import Registry

from tresnet_downstream.errors import UserError
from tresnet_downstream.files import whole_file
from tresnet_downstream.registry import SCOPE

_WHOLE = re.compile(r"\$(\w+)")
_WITHIN = re.compile(r"\$\$|\$\{(\w+)\}")
_UNKNOWN_TYPE = re.compile(r"(\S+) is not in the \S+::(.+?) registry")
_UNKNOWN_ARGUMENT = re.compile(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'")

PARTS = (
    "default_scope",
    "randomness",
    "env_cfg",
    "log_level",
    "default_hooks",
    "custom_hooks",
    "visualizer",
    "model",
    "train_dataloader",
    "val_dataloader",
    "val_evaluator",
    "optim_wrapper",
    "param_scheduler",
    "train_cfg",
    "val_cfg",
)
# Have no default: the user's own data.
DATA_KEYS = ("train_annotations", "train_images", "val_annotations", "val_images")
# The least that each may be.
WHOLE_NUMBERS = {
    "batch_size": 1,
    "num_workers": 0,
    "max_epochs": 1,
    "accumulation": 1,
    "keep_checkpoints": 1,
    "seed": 0,
}
SET_BY_TRAINING = ("work_dir", "launcher", "model_wrapper_cfg", "overwrite", "resume")
# Of the top level, what no reference has to name.
READ_BY_CODE = ("default_scope", "log_level", "load_from", "sync_bn")
NUMBERS = ("max_lr", "weight_decay", "average_decay", "threshold")


def load_config(path: str | Path, options: Sequence[str] = ()) -> Config:
    """Reads a config file and merges ``key=value`` options into it; references are resolved.

    Args:
        path: a Python config of MMEngine.
        options: such as ``data_root=/data/coco`` or ``model.backbone.with_cp=True``. A key must be in the
            config, or be an argument of the component that it is set on.

    Raises:
        UserError: for a file that is missing or cannot be read, an option that has no such key, and a
            reference to a name that is not there or refers back to itself.
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
        config.merge_from_dict({key: _parse(value, _current(config, key))})
        _require_effect(config, key, str(path))
    return _resolved(config)


def _require_effect(config: Config, key: str, path: str) -> None:
    """Raises UserError for a value of a classifier's top level that nothing reads: no code, and no reference."""
    value = config._cfg_dict.get(key)
    if config.get("default_scope") != SCOPE or key in READ_BY_CODE or isinstance(value, Mapping | list | tuple):
        return
    if key in config._cfg_dict and not any(key in _names_in(text) for text in _texts(config._cfg_dict)):
        raise UserError(f"--cfg-options {key}: nothing in {path} refers to it, so it would have no effect")


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping | list | tuple):
        for item in node.values() if isinstance(node, Mapping) else node:
            yield from _texts(item)
    elif isinstance(node, str):
        yield node


def _names_in(text: str) -> list[str]:
    whole = _WHOLE.fullmatch(text)
    return [whole[1]] if whole else [match[1] for match in _WITHIN.finditer(text)]


def save_config(config: Config, path: Path) -> None:
    """Writes a config that :func:`load_config` reads, with its references where nothing changed it since."""
    written = copy.deepcopy(config)
    if written.get("resume"):
        written.update(resume=False, load_from=None)
    if written.get("overwrite"):
        written.overwrite = False
    with contextlib.suppress(ValueError, SyntaxError, UserError):
        referring = Config(ast.literal_eval(config.text), filename=config.filename, cfg_text=config.text)
        before, now = (_settled(c._cfg_dict.to_dict()) for c in (_resolved(referring), config))
        if before == now:
            written = referring
    text = written.pretty_text
    with whole_file(path) as partial:
        partial.write_text(text)


def _settled(config: dict[str, Any]) -> dict[str, Any]:
    """A config without what a training sets in it, which its own file leaves open."""
    settled = {key: value for key, value in config.items() if key not in SET_BY_TRAINING}
    if isinstance(model := settled.get("model"), dict):
        model.pop("classes", None)
        if isinstance(backbone := model.get("backbone"), dict):
            backbone.pop("init_cfg", None)
    return settled


def _parse(value: str, current: Any) -> Any:
    """A Python literal, or else text; text also stays text where it replaces text, such as a folder named 2014."""
    if isinstance(current, str) and not current.startswith("$") and value != "None":
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        # MMEngine's own reading makes lists of words: blocks=basic,basic,bottleneck,bottleneck.
        return value if current is None or "," not in value else DictAction._parse_iterable(value)


def _current(config: Config, key: str) -> Any:
    """What the config has under ``key``; ``"$"`` where an argument is new."""
    node: Any = config._cfg_dict
    for name in key.split("."):
        if isinstance(node, Mapping):
            node = node.get(name, "$")
        elif not isinstance(node, str):
            node = node[int(name)]
    return "" if key in DATA_KEYS and node is None else node


def _require_key(config: Config, key: str, path: str) -> None:
    node: Any = config._cfg_dict
    scope = config.get("default_scope") or SCOPE
    for depth, name in enumerate(parts := key.split(".")):
        if isinstance(node, Sequence) and not isinstance(node, str):
            if not name.isdigit() or int(name) >= len(node):
                raise UserError(f"--cfg-options {key}: {'.'.join(parts[:depth])} has {len(node)} items, no {name!r}")
            node = node[int(name)]
        elif isinstance(node, Mapping) and name in node:
            node = node[name]
        elif isinstance(node, Mapping) and depth == len(parts) - 1 and _takes_argument(node.get("type"), name, scope):
            return
        else:
            known = ", ".join(sorted(node)) if isinstance(node, Mapping) else "nothing below it"
            place = ".".join(parts[:depth]) or path
            raise UserError(f"--cfg-options {key}: {place} has no key {name!r}; it has {known}")


def _takes_argument(component: Any, name: str, scope: str) -> bool:
    """Whether the component registered as ``component`` in a scope has a constructor argument ``name``."""
    if not isinstance(component, str):
        return False
    for room in vars(import_module(f"{scope}.registry")).values():
        if isinstance(room, Registry) and room.scope == scope and inspect.isclass(room.get(component)):
            return any(name in inspect.signature(base).parameters for base in inspect.getmro(room.get(component))[:-1])
    # Albumentations' transforms are found by name too; their pipeline says which argument it does not know.
    return scope == SCOPE and hasattr(import_module("albumentations"), component)


def check_config(config: Config, splits: Sequence[str]) -> None:
    """Looks at the top level before anything is built; the paths of other splits may be unset.

    Raises:
        UserError: for a part that is missing, a path that is left to the user, or a number that is none.
    """
    if config.get("default_scope", SCOPE) != SCOPE:
        raise UserError(f"{config.filename}: is a detector's config, for train_detection.py and test_detection.py")
    if lacking := [key for key in PARTS if key not in config]:
        raise UserError(f"{config.filename}: has no {', '.join(lacking)}; the files of configs/_base_ bring them")
    if config.get("sync_bn"):
        raise UserError("sync_bn: TResNet's norms are not converted; set model.backbone.norm='sync' instead")
    for key in DATA_KEYS:
        if key.startswith(tuple(splits)) and key in config and config[key] is None:
            raise UserError(f"{key}: the config leaves it to you; set it with --cfg-options {key}=PATH")
    for key, least in WHOLE_NUMBERS.items():
        if key in config and (type(config[key]) is not int or config[key] < least):
            raise UserError(f"{key}={config[key]!r}: give a whole number, at least {least}")
    for key in NUMBERS:
        if key in config and (type(config[key]) not in (int, float) or not config[key] >= 0):
            raise UserError(f"{key}={config[key]!r}: give a number, at least 0")


@contextlib.contextmanager
def mistakes_in_types() -> Iterator[None]:
    """Turns what MMEngine and Python raise at an unknown ``type`` or argument of a component into a UserError."""
    try:
        yield
    except (KeyError, TypeError) as error:
        message = str(error.args[0]) if error.args else ""
        if match := _UNKNOWN_TYPE.match(message):
            raise UserError(f"type={match[1]!r} in the config: there is no {match[2]} of that name") from error
        if match := _UNKNOWN_ARGUMENT.match(message):
            raise UserError(f"{match[1]} in the config takes no argument {match[2]!r}") from error
        raise


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
        if name in within:
            raise UserError(f"{config.filename}: {text!r} refers to {name!r}, which refers back to itself")
        if name not in names:
            raise UserError(f"{config.filename}: {text!r} refers to {name!r}, which the config does not define")
        return resolve(names[name], (*within, name))

    # The text is the config with its references: what a training saves.
    text = repr(config._cfg_dict.to_dict())
    return Config(resolve(names), filename=config.filename, cfg_text=text)
