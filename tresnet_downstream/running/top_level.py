"""The top-level config keys that code or references read, and suggestions for misspelt keys."""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path

from mmengine.config import Config

from tresnet_downstream.errors import UserError
from tresnet_downstream.notices import tell
from tresnet_downstream.registry import SCOPE
from tresnet_downstream.running.references import names_in, texts

# The keys that every config of a classifier has.
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
# Further keys that MMEngine's runner and configs, or this package, read in trainings of both tasks.
READ_IN_BOTH = (
    "activation_checkpointing",
    "checkpoint_minutes",
    "checkpoint_steps",
    "clip_grad",
    "compile",
    "custom_imports",
    "efficient_conv_bn_eval",
    "find_unused_parameters",
    "freeze",
    "freeze_statistics",
    "launcher",
    "layer_decay",
    "layer_decay_unit",
    "load_from",
    "lr_factors",
    "min_delta",
    "model_wrapper_cfg",
    "overwrite",
    "patience",
    "resume",
    "sync_bn",
    "test_dataloader",
    "tracker",
    "val_steps",
    "work_dir",
)
# Keys whose value is a dict by names of the model's parts; these names are checked after the model is built.
OF_PARTS = ("freeze", "lr_factors")
# Keys that `classification/training.py` reads.
READ_OF_CLASSIFIERS = ("class_weights", "effective_beta", "initial_bias", "frequency_cutoffs")
# Keys that MMEngine's `Runner.from_cfg`, MMDetection's tools and `DetectionRunner` read.
READ_OF_DETECTORS = (
    "auto_scale_lr",
    "cfg",
    "data_preprocessor",
    "experiment_name",
    "log_processor",
    "runner_type",
    "test_cfg",
    "test_evaluator",
    "tta_model",
    "tta_pipeline",
    "amp",
    "coco_eval",
    "labels",
    "data_root",
    "outside_paths",
    "on_bad_image",
    "repeat_threshold",
    "sampling",
    "trust_boxes",
    "voc_rules",
)
# The value of `repeat_threshold` in configs/_base_/tresnet_detection.py.
DETECTORS_REPEAT_THRESHOLD = 1e-3
_REFERENCE = re.compile(r"\$\{?(\w+)")


def keys_read(config: Config) -> set[str]:
    """The top-level keys that code reads by name; the config need not have them."""
    of_task = READ_OF_CLASSIFIERS if config.get("default_scope") == SCOPE else READ_OF_DETECTORS
    return {*PARTS, *READ_IN_BOTH, *of_task}


def has_effect(config: Config, key: str) -> bool:
    """Whether code or a reference reads a top-level key of a config whose references are not resolved yet."""
    return key in keys_read(config) or any(key in names_in(text) for text in texts(config._cfg_dict))


def nearest_keys(config: Config, name: str, siblings: Iterable[str]) -> list[str]:
    """Up to three keys similar to a misspelt name: siblings, or deeper keys such as ``train_cfg.max_epochs``.

    Args:
        config: the config.
        name: the misspelt name.
        siblings: the keys at the same place of the config.
    """
    close = get_close_matches(name, list(siblings), n=3, cutoff=0.75)
    below = [path for path in _paths(config._cfg_dict) if "." in path and path.partition(".")[0] in keys_read(config)]
    last = {path.rpartition(".")[2] for path in below}
    matches = [name] if name in last else get_close_matches(name, last, n=3, cutoff=0.75)
    # Shallow keys first.
    close += sorted((path for path in below if path.rpartition(".")[2] in matches), key=lambda path: path.count("."))
    return list(dict.fromkeys(key for key in close if key != name))[:3]


def _paths(node: object, place: str = "") -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            path = f"{place}.{key}" if place else str(key)
            yield path
            yield from _paths(value, path)


def require_read_options(config: Config) -> None:
    """Raises UserError for a top-level key of a detector's config that an option set and nothing reads.

    MMDetection's own tools merge such an option silently.
    """
    path = config.filename
    if not path or not Path(path).is_file():
        return
    before = Config.fromfile(path)
    for key in set(config) - keys_read(config):
        if key in before and (before[key] == config[key] or any("$" in text for text in texts(before[key]))):
            continue
        raise UserError(without_effect(config, key))


def without_effect(config: Config, key: str) -> str:
    """The error message for an option that nothing reads."""
    root = key.partition(".")[0]
    close = nearest_keys(config, root, keys_read(config) & set(config))
    meant = f"; nearest: {', '.join(close)}" if close else ""
    return f"{key}: nothing in {config.filename} refers to it, so it would have no effect{meant}"


def tell_unread_keys(config: Config) -> None:
    """Prints the names that a config's own file assigns and nothing reads. Inherited files are not checked.

    A config that a run saved is not checked, because it contains all inherited names.
    """
    path = config.filename
    if not path or not Path(path).is_file():
        return
    tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    targets = [node.targets for node in tree.body if isinstance(node, ast.Assign)]
    targets += [[node.target] for node in tree.body if isinstance(node, ast.AnnAssign)]
    assigned = [target.id for several in targets for target in several if isinstance(target, ast.Name)]
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    if "_base_" not in assigned and not used - {"dict"}:
        return
    read = keys_read(config) | used | set(_REFERENCE.findall(config.text))
    unread = [key for key in dict.fromkeys(assigned) if key not in read and not key.startswith("_")]
    if unread:
        named = (f"{key} ({close[0]}?)" if (close := nearest_keys(config, key, ())) else key for key in unread)
        tell(f"note: {path}: these names have no effect: {', '.join(named)}; correct or remove them")


def tell_ineffective_keys(config: Config) -> None:
    """Prints a note for each key that has no effect because of the value of another key.

    Args:
        config: config of a training, with its references resolved.
    """
    default = None if config.get("default_scope", SCOPE) == SCOPE else DETECTORS_REPEAT_THRESHOLD
    threshold, epochs = config.get("repeat_threshold"), (config.get("train_cfg") or {}).get("max_epochs")
    if threshold != default and config.get("sampling") != "repeat_factor":
        tell(f"note: repeat_threshold={threshold!r} has no effect without sampling='repeat_factor'")
    if config.get("min_delta") and config.get("patience") is None:
        tell(f"note: min_delta={config.min_delta!r} has no effect without patience")
    stop = config.get("stop_epoch")
    if isinstance(stop, int) and isinstance(epochs, int) and stop > epochs:
        tell(f"note: stop_epoch={stop} has no effect: the training has {epochs} epochs")
