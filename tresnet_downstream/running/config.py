"""Configs: MMEngine's files, options from the command line, and ``$name`` references.

A string in a config may name a key of the config's top level: ``'$image_size'`` stands for its value, and
``'train${coco_year}'`` has it filled in. References are resolved after the options are merged, so that
``--cfg-options image_size=224`` reaches every place that uses it. ``$$`` is a plain dollar sign.
"""

import ast
import contextlib
import copy
import inspect
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.registry import Registry

from tresnet_downstream.errors import UserError
from tresnet_downstream.files import whole_file
from tresnet_downstream.registry import SCOPE

_WHOLE = re.compile(r"\$(\w+)")
_WITHIN = re.compile(r"\$\$|\$\{(\w+)\}")
# Stands for the value of an option while it is looked for.
_MARK = "<set>"
_UNKNOWN_TYPE = re.compile(r"(\S+) is not in the \S+::(.+?) registry")
_UNKNOWN_ARGUMENT = re.compile(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'")
_MISSING_ARGUMENT = re.compile(r"(\w+)\.__init__\(\) missing \d+ required \S+ arguments?: (.+)")

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
# MMEngine's writers of logs, and the package that each imports when the run begins.
WRITERS = {
    "AimVisBackend": "aim",
    "ClearMLVisBackend": "clearml",
    "DVCLiveVisBackend": "dvclive",
    "MLflowVisBackend": "mlflow",
    "NeptuneVisBackend": "neptune",
    "TensorboardVisBackend": "tensorboard",
    "WandbVisBackend": "wandb",
}


def read_config_file(path: str | Path) -> Config:
    """Reads a config file, without resolving references.

    Raises:
        UserError: for a file that is missing or cannot be read.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such config file")
    # Where `custom_imports` finds the user's own files: beside the config, or where the command is typed.
    for folder in (str(Path(path).resolve().parent), str(Path.cwd())):
        if folder not in sys.path:
            sys.path.append(folder)
    try:
        return Config.fromfile(str(path))
    except Exception as error:
        # A config is Python: whatever its author's mistake raises belongs to the file.
        raise UserError(f"{path}: cannot be read as a config: {' '.join(str(error).split())}") from error


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
    return with_options(read_config_file(path), options)


def with_options(config: Config, options: Sequence[str]) -> Config:
    """Merges ``key=value`` options into a config and resolves its references; errors as of :func:`load_config`."""
    for option in options:
        key, separator, value = option.partition("=")
        if not separator or not key:
            raise UserError(f"--cfg-options {option}: write it as key=value")
        _require_key(config, key, str(config.filename))
        current = _current(config, key)
        new = _parse(value, current)
        if (
            isinstance(new, dict)
            and isinstance(current, Mapping)
            and new.get("type", current.get("type")) != current.get("type")
        ):
            # Another component: nothing of the old one's is for it.
            new = {"_delete_": True, **new}
        config.merge_from_dict({key: new})
        if key.endswith(".type") and new != current:
            _leave_out_arguments(config, key.removesuffix(".type"), str(current))
        _require_effect(config, key, str(config.filename))
    return _resolved(config)


def _leave_out_arguments(config: Config, place: str, before: str) -> None:
    """Takes the arguments away that the component now named at a place does not have, and tells which."""
    node: Any = config._cfg_dict
    for name in place.split("."):
        node = node[int(name)] if isinstance(node, list | tuple) else node[name]
    scope = config.get("default_scope") or SCOPE
    if not _is_registered(node["type"], scope):
        return
    others = [key for key in node if key != "type" and not _takes_argument(node["type"], key, scope)]
    for key in others:
        left_out = node.pop(key)
        # Before a run there is no log, and processes have not joined yet.
        if os.environ.get("RANK", "0") == "0":
            print(f"{place}.type={node['type']}: leaves out {key}={left_out!r}, which is {before}'s")


def places_set_by(options: Sequence[str], unresolved: Config) -> set[str]:
    """The places of a resolved config that options decide, such as ``model.head.num_classes``.

    Args:
        options: ``key=value``, as of :func:`load_config`.
        unresolved: the config before options and references, from :func:`read_config_file`.
    """
    places = set()
    for key in (option.partition("=")[0] for option in options):
        config = copy.deepcopy(unresolved)
        try:
            config.merge_from_dict({key: _MARK})
        except (TypeError, KeyError, AttributeError, IndexError):
            places.add(key)  # below what another option brings
            continue
        places |= {key, *_marked(_resolved(config)._cfg_dict)}
    return places


def _marked(node: Any, place: str = "") -> Iterator[str]:
    if isinstance(node, str) and _MARK in node:
        yield place.removeprefix(".")
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list | tuple) else ()
    for key, value in items:
        yield from _marked(value, f"{place}.{key}")


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
    if (referring := with_references(config)) is not None:
        with contextlib.suppress(UserError):
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
        return _literal(ast.parse(value.strip(), mode="eval").body)
    except (ValueError, TypeError, SyntaxError):
        # MMEngine's own reading makes lists of words: blocks=basic,basic,bottleneck,bottleneck.
        return value if current is None or "," not in value else DictAction._parse_iterable(value)


def _literal(node: ast.expr) -> Any:
    """As ``ast.literal_eval``, and dicts may be written as in a config: ``dict(type='LinearHead')``."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        if any(keyword.arg is None for keyword in node.keywords):
            raise ValueError("dict(**...) is no literal")
        return {str(keyword.arg): _literal(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.List | ast.Tuple):
        items = [_literal(item) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    return ast.literal_eval(node)


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


def _is_registered(component: Any, scope: str) -> bool:
    return isinstance(component, str) and _registered(component, scope) is not None


def _registered(component: str, scope: str) -> Any:
    """The class that is registered under a name in a scope; None if there is none."""
    for room in vars(import_module(f"{scope}.registry")).values():
        if isinstance(room, Registry) and room.scope == scope and inspect.isclass(room.get(component)):
            return room.get(component)
    return None


def _takes_argument(component: Any, name: str, scope: str) -> bool:
    """Whether the component registered as ``component`` in a scope has a constructor argument ``name``."""
    if not isinstance(component, str):
        return False
    if (found := _registered(component, scope)) is not None:
        return any(name in inspect.signature(base).parameters for base in inspect.getmro(found)[:-1])
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
        if key.startswith(tuple(splits)) and key in config and config[key] is None and _is_referred_to(config, key):
            raise UserError(f"{key}: the config leaves it to you; set it with --cfg-options {key}=PATH")
    for key, least in WHOLE_NUMBERS.items():
        if key in config and (type(config[key]) is not int or config[key] < least):
            raise UserError(f"{key}={config[key]!r}: give a whole number, at least {least}")
    for key in NUMBERS:
        if key in config and (type(config[key]) not in (int, float) or not config[key] >= 0):
            raise UserError(f"{key}={config[key]!r}: give a number, at least 0")
    if config.get("threshold", 0) > 1:
        raise UserError(f"threshold={config.threshold!r}: is a probability; give a number from 0 to 1")
    if config.get("average_decay", 0) >= 1:
        raise UserError(f"average_decay={config.average_decay!r}: give a number from 0 to below 1")
    _check_writers(config.visualizer)


def with_references(config: Config) -> Config | None:
    """The config before its references were resolved; None if it does not come from :func:`load_config`."""
    with contextlib.suppress(ValueError, SyntaxError):
        return Config(ast.literal_eval(config.text), filename=config.filename, cfg_text=config.text)
    return None


def _is_referred_to(config: Config, key: str) -> bool:
    """Whether a part of the config reads a top-level key; a data set of the user's may need no annotation file."""
    referring = with_references(config)
    return referring is None or any(key in _names_in(text) for text in _texts(referring._cfg_dict))


def _check_writers(visualizer: Any) -> None:
    """Names the package that a writer of logs needs and that is not installed; MMEngine would say so in the run."""
    for writer in (visualizer or {}).get("vis_backends") or ():
        package = WRITERS.get(str(writer.get("type")).rpartition(".")[2]) if isinstance(writer, Mapping) else None
        if package is not None and not _is_installed(package):
            raise UserError(
                f"visualizer.vis_backends: {writer['type']} needs the package {package}, which is not installed: "
                f"pip install {package}, or leave it out"
            )


def _is_installed(package: str) -> bool:
    """Whether the package can be imported; a mere folder of that name, as some writers leave, does not count."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


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
        if match := _MISSING_ARGUMENT.match(message):
            raise UserError(f"{match[1]} in the config needs the argument {match[2]}") from error
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
