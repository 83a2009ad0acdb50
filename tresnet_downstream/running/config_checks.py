"""Checks of a config before anything is built from it, and one-line errors for unknown types and arguments."""

import contextlib
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry

from tresnet_downstream import registry
from tresnet_downstream.errors import UserError
from tresnet_downstream.registry import DATASETS, SCOPE
from tresnet_downstream.running.options import DATA_KEYS
from tresnet_downstream.running.references import refers_to, with_references
from tresnet_downstream.running.top_level import PARTS
from tresnet_downstream.running.trackers.settings import is_installed, require_trackers

_UNKNOWN_TYPE = re.compile(r"(\S+) is not in the \S+::(.+?) registry")
_UNKNOWN_ARGUMENT = re.compile(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'")
_MISSING_ARGUMENT = re.compile(r"(\w+)\.__init__\(\) missing \d+ required \S+ arguments?: (.+)")
# The smallest value allowed for each key.
WHOLE_NUMBERS = {
    "batch_size": 1,
    "num_workers": 0,
    "max_epochs": 1,
    "accumulation": 1,
    "keep_checkpoints": 1,
    "seed": 0,
}
NUMBERS = ("max_lr", "weight_decay", "average_decay", "threshold")
# MMEngine's log writers, and the package that each imports when the run begins.
WRITERS = {
    "AimVisBackend": "aim",
    "ClearMLVisBackend": "clearml",
    "DVCLiveVisBackend": "dvclive",
    "MLflowVisBackend": "mlflow",
    "NeptuneVisBackend": "neptune",
    "TensorboardVisBackend": "tensorboard",
    "WandbVisBackend": "wandb",
}


def check_config(config: Config, splits: Sequence[str]) -> None:
    """Checks the top-level keys of a classifier's config before anything is built.

    Args:
        config: the config.
        splits: whose files must be set, such as ``("train", "val")``; those of other splits may be None.

    Raises:
        UserError: if a part is missing, a path that the user must give is not set, or a number is invalid.
    """
    if config.get("default_scope", SCOPE) != SCOPE:
        raise UserError(f"{config.filename}: is a detector's config, not a classifier's; tresnet train takes both")
    if lacking := [key for key in PARTS if key not in config]:
        raise UserError(
            f"{config.filename}: has no {', '.join(lacking)}; inherit from the files of configs/_base_, which define "
            "them"
        )
    if config.get("sync_bn"):
        raise UserError("sync_bn: TResNet's norms are not converted; set model.backbone.norm='sync' instead")
    for key in unset_keys(config, splits):
        raise UserError(f"{key}: is not set; set it with `options` {key}=PATH")
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
    require_trackers(config)


def unset_keys(config: Config, splits: Sequence[str]) -> list[str]:
    """The keys that name files or folders of these splits, and are needed but not set."""
    keys = [key for key in DATA_KEYS if key.startswith(tuple(splits)) and key in config and config[key] is None]
    # A user's own data set may need no annotation file.
    return [key for key in keys if refers_to(config, key) and not _may_be_unset(config, key)]


def _may_be_unset(config: Config, key: str) -> bool:
    """Whether only arguments that are None by default use the key, such as an annotation file beside class folders."""
    referring = with_references(config)
    split = key.partition("_")[0]
    dataset = {} if referring is None else (referring.get(f"{split}_dataloader") or {}).get("dataset") or {}
    defaults = [
        _default_of(node, name) for node in _with_parts(dataset) for name, value in node.items() if value == f"${key}"
    ]
    return bool(defaults) and all(default is None for default in defaults)


def _with_parts(dataset: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The config of a data set, and the configs of the data sets that it repeats or joins."""
    yield dataset
    for part in (dataset.get("dataset"), *(dataset.get("datasets") or ())):
        if isinstance(part, Mapping):
            yield from _with_parts(part)


def _default_of(dataset: Mapping[str, object], argument: str) -> object:
    """The default of an argument of a data set's class; ``inspect.Parameter.empty`` if it has none."""
    kind = DATASETS.get(str(dataset.get("type")))
    parameters: Mapping[str, inspect.Parameter] = {} if kind is None else inspect.signature(kind).parameters
    return parameters[argument].default if argument in parameters else inspect.Parameter.empty


def _check_writers(visualizer: Any) -> None:
    """Raises UserError if a log writer needs a package that is not installed; MMEngine would raise within the run."""
    for writer in (visualizer or {}).get("vis_backends") or ():
        package = WRITERS.get(str(writer.get("type")).rpartition(".")[2]) if isinstance(writer, Mapping) else None
        if package is not None and not is_installed(package):
            raise UserError(
                f"visualizer.vis_backends: {writer['type']} needs the package {package}, which is not installed: "
                f"pip install {package}, or leave it out"
            )


@contextlib.contextmanager
def mistakes_in_types() -> Iterator[None]:
    """Turns the exceptions of MMEngine and Python for an unknown ``type`` or argument into a UserError."""
    try:
        yield
    except (KeyError, TypeError) as error:
        message = str(error.args[0]) if error.args else ""
        if match := _UNKNOWN_TYPE.match(message):
            nearest = _nearest_types(match[1], match[2])
            raise UserError(
                f"type={match[1]!r} in the config: there is no {match[2]} of that name{nearest}; if it is your "
                "own, import the Python file that registers it (`import`, or custom_imports in a config)"
            ) from error
        if match := _UNKNOWN_ARGUMENT.match(message):
            raise UserError(f"{match[1]} in the config takes no argument {match[2]!r}; remove it") from error
        if match := _MISSING_ARGUMENT.match(message):
            raise UserError(f"{match[1]} in the config needs the argument {match[2]}; add it") from error
        raise


def _nearest_types(name: str, kind: str) -> str:
    """The part of a message that lists registered names similar to ``name``; empty if there are none."""
    registries = [room for room in vars(registry).values() if isinstance(room, Registry) and room.name == kind]
    members = {
        each for own in registries for each in (own, own.parent, *(own.parent.children.values() if own.parent else ()))
    }
    names = {known for each in members if isinstance(each, Registry) for known in each.module_dict}
    close = get_close_matches(name.rpartition(".")[2], sorted(names), n=3, cutoff=0.6)
    return f" (nearest: {', '.join(close)})" if close else ""
