"""Which keys of a config's top level something reads, and which keys a misspelt one may mean."""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mmengine.config import Config

from tresnet_downstream.errors import UserError
from tresnet_downstream.notices import tell
from tresnet_downstream.registry import SCOPE
from tresnet_downstream.running.references import names_in, texts

# What every config of a classifier has.
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
# What else is read by name in trainings of both tasks: by MMEngine's runner and configs, and by this package.
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
# Those of dicts whose keys are names of the model's parts, which are checked once the model is there.
OF_PARTS = ("freeze", "lr_factors")
# Of classifiers: by `classification/training.py`.
READ_OF_CLASSIFIERS = ("class_weights", "effective_beta", "initial_bias", "frequency_cutoffs")
# Of detectors: by MMEngine's `Runner.from_cfg`, MMDetection's tools, and `DetectionRunner`.
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
_REFERENCE = re.compile(r"\$\{?(\w+)")


def keys_read(config: Config) -> set[str]:
    """The keys that code reads by name, whether the config has them or not."""
    of_task = READ_OF_CLASSIFIERS if config.get("default_scope") == SCOPE else READ_OF_DETECTORS
    return {*PARTS, *READ_IN_BOTH, *of_task}


def has_effect(config: Config, key: str) -> bool:
    """Whether code or a reference reads a key of the top level; references must not be resolved yet."""
    return key in keys_read(config) or any(key in names_in(text) for text in texts(config._cfg_dict))


def nearest_keys(config: Config, name: str, siblings: Iterable[str]) -> list[str]:
    """Up to three keys that a misspelt name may mean: siblings, and keys below them such as ``train_cfg.max_epochs``.

    Args:
        config: the config; what nothing reads is left out of its top level.
        name: what was written.
        siblings: the keys at its place.
    """
    close = get_close_matches(name, list(siblings), n=3, cutoff=0.75)
    below = [path for path in _paths(config._cfg_dict) if "." in path and path.partition(".")[0] in keys_read(config)]
    last = {path.rpartition(".")[2] for path in below}
    matches = [name] if name in last else get_close_matches(name, last, n=3, cutoff=0.75)
    # The less deep ones first.
    close += sorted((path for path in below if path.rpartition(".")[2] in matches), key=lambda path: path.count("."))
    return list(dict.fromkeys(key for key in close if key != name))[:3]


def _paths(node: Any, place: str = "") -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            path = f"{place}.{key}" if place else str(key)
            yield path
            yield from _paths(value, path)


def require_read_options(config: Config) -> None:
    """Raises UserError for a key of a detector's top level that its file has not, or otherwise, and nothing reads.

    MMDetection's own tools merge such an option into the config without a word.
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
    """The message about an option that nothing reads."""
    root = key.partition(".")[0]
    close = nearest_keys(config, root, keys_read(config) & set(config))
    meant = f"; nearest: {', '.join(close)}" if close else ""
    return f"{key}: nothing in {config.filename} refers to it, so it would have no effect{meant}"


def tell_unread_keys(config: Config) -> None:
    """Tells in one line which names a config's own file assigns that nothing reads; files that it inherits may.

    A file that a run saved is left alone: it has the values of all names written out.
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
        tell(f"{path}: nothing reads {', '.join(named)}")
