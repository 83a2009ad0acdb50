"""Options that several commands share, and the config keys that they set.

``--size``, ``--batch-size``, ``--workers``, ``--seed`` and ``--threshold`` are short for config keys, which
:data:`CONFIG_KEYS` lists for each task.
"""

import argparse
import importlib.util
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from tresnet_downstream.cli.config_names import config_path
from tresnet_downstream.cli.tasks import CLASSIFIER, DETECTION, JOINT, MULTILABEL, TASKS
from tresnet_downstream.command_line import Parser, progress
from tresnet_downstream.errors import UserError

if TYPE_CHECKING:
    from mmengine.config import Config

_CLASSIFIERS_KEYS = {
    "size": ("image_size",),
    "batch_size": ("batch_size",),
    "workers": ("num_workers",),
    "seed": ("seed",),
    "threshold": ("threshold",),
}
_DETECTORS_KEYS = {
    "batch_size": ("{loader}.batch_size",),
    "workers": ("{loader}.num_workers", "val_dataloader.num_workers"),
    "seed": ("randomness.seed",),
}
# For each task, the config keys that an option sets; {loader} is the loader of the training or the scored images.
CONFIG_KEYS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    MULTILABEL: _CLASSIFIERS_KEYS,
    CLASSIFIER: {name: keys for name, keys in _CLASSIFIERS_KEYS.items() if name != "threshold"},
    DETECTION: _DETECTORS_KEYS,
    JOINT: {**_DETECTORS_KEYS, "threshold": ("labels.threshold",)},
}
# Advice for options that a task has no key for.
_INSTEAD = {
    ("size", DETECTION): "a detector's pipelines set the size, such as train_pipeline and test_pipeline",
    ("size", JOINT): "a detector's pipelines set the size, such as train_pipeline and test_pipeline",
}
KEYS_NOTE = "config keys: tresnet config CONFIG prints every key with its default and meaning."


def config_parser(description: str, examples: Iterable[str]) -> Parser:
    """A parser with the options of the commands that train or score with a config."""
    parser = Parser(description=description, examples=tuple(examples), note=KEYS_NOTE)
    parser.add_argument("config", help="a config file, or the name of a packaged one (tresnet config lists them)")
    add_import_option(parser)
    parser.add_argument(
        "--out",
        "--work-dir",
        dest="out",
        metavar="DIR",
        help="folder for results (default: work_dirs/ and the config's name; for scores, the run folder of the "
        "checkpoint)",
    )
    add_cfg_options(parser)
    parser.add_argument("--size", type=int, metavar="PIXELS", help="side of the images (default: the config's)")
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="images per batch, for each process (default: the config's)"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes that read images (default: the config's)")
    add_device_option(parser)
    parser.add_argument(
        "--amp",
        nargs="?",
        const="bfloat16",
        choices=["bfloat16", "float16"],
        help="mixed precision; without a type, bfloat16 (default: float32)",
    )
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch"],
        default="none",
        help="pytorch if torchrun started the command",
    )
    return parser


def changes_of(options: argparse.Namespace, task: str, loader: str) -> list[str]:
    """The changes of a config, ``key=value``, from the options and ``--cfg-options``.

    Args:
        options: options from a parser of :func:`config_parser`.
        task: task of the config.
        loader: key of the images' loader, such as ``train_dataloader``.

    Raises:
        UserError: if the task does not have an option, or ``--cfg-options`` sets the same key.
    """
    changes = []
    by_key = {change.partition("=")[0] for change in options.cfg_options}
    for name in ("size", "batch_size", "workers", "seed", "threshold"):
        value = getattr(options, name, None)
        if value is None:
            continue
        if name not in CONFIG_KEYS[task]:
            instead = _INSTEAD.get((name, task), "leave it out")
            named = options.config or options.checkpoint
            raise UserError(f"`{name}` {value}: {named} is for {TASKS[task].network}; {instead}")
        keys = list(dict.fromkeys(key.format(loader=loader) for key in CONFIG_KEYS[task][name]))
        if both := by_key & set(keys):
            raise UserError(f"`{name}` {value}: `cfg_options` sets {both.pop()} too; leave one of them out")
        changes += [f"{key}={value}" for key in keys]
        if name == "workers" and value == 0 and loader in keys[0]:
            # torch rejects persistent workers if there are none.
            changes += [f"{key.rpartition('.')[0]}.persistent_workers=False" for key in keys]
    return [*changes, *options.cfg_options, *([f"amp={options.amp}"] if options.amp else [])]


def read_config(options: argparse.Namespace, task: str, loader: str) -> "Config":
    """Reads the config with the changes of the options, and sets its ``work_dir``.

    Raises:
        UserError: as :func:`~tresnet_downstream.running.config.load_config` and :func:`changes_of`.
    """
    from tresnet_downstream.running.config import load_config

    config = load_config(config_path(options.config), changes_of(options, task, loader))
    config.work_dir = options.out or str(Path("work_dirs") / Path(options.config).stem)
    return config


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``--cfg-options``."""
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="config keys to change, such as data_root=/data/coco image_size=224",
    )


def add_seed_option(parser: argparse.ArgumentParser) -> None:
    """Adds ``--seed``."""
    parser.add_argument("--seed", type=int, metavar="N", help="seed of all random numbers (default: the config's)")


def add_threshold_option(parser: argparse._ActionsContainer, help: str) -> None:
    """Adds ``--threshold``: the probability or score above which a label or box counts as predicted."""
    parser.add_argument("--threshold", type=float, metavar="P", help=help)


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Adds ``--device``."""
    parser.add_argument(
        "--device",
        help="device of the network, such as cpu or cuda:1 (default: the first GPU or, without GPU, the CPU)",
    )


def add_import_option(parser: argparse.ArgumentParser) -> None:
    """Adds ``--import``, for commands that build networks."""
    parser.add_argument(
        "--import",
        action=_Import,
        dest="imported",
        metavar="FILE",
        help="Python file that registers your own components, such as a head; may be repeated",
    )


class _Import(argparse.Action):
    """Imports the file while the command line is parsed, so everything built later can use its components."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: object, option: str | None = None
    ) -> None:
        import_file(str(values))


def import_file(path: str) -> None:
    """Imports a user's Python file, once, as a module with the file's name.

    Raises:
        UserError: if there is no such file, another module has its name, or importing it fails.
    """
    file = Path(path)
    name = file.stem
    known = getattr(sys.modules.get(name), "__file__", None)
    if known is not None and file.is_file() and file.samefile(known):
        return
    if not file.is_file() or file.suffix != ".py":
        raise UserError(f"--import {path}: no such Python file")
    if name in sys.modules or not name.isidentifier():
        raise UserError(f"--import {path}: {name} is another module's name, or not a valid name; rename the file")
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Spawned worker processes import the module by its name.
    sys.path.append(str(file.resolve().parent))
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"--import {path}: {type(error).__name__}: {error}") from error


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of commands that load a weight file."""
    add_import_option(parser)
    parser.add_argument(
        "--variant",
        metavar="NAME",
        help="variant of the backbone (default: inferred from tensor shapes)",
    )
    parser.add_argument(
        "--slopes",
        type=float,
        nargs=2,
        metavar=("STEM", "BLOCKS"),
        help="negative slopes of the leaky ReLU; they cannot be inferred from tensor shapes",
    )
    parser.add_argument(
        "--weights",
        choices=["raw", "averaged"],
        help="weights of a checkpoint to use (default: the weights with the better validation score)",
    )
    parser.add_argument("--size", type=int, metavar="PIXELS", help="side of the images (default: the file's)")
    parser.add_argument("--network", metavar="NAME", help="timm's name of the network, for a weight file of timm")


class ModelOptions(TypedDict):
    """Arguments of ``load_model``; None for an option that is not given.

    Attributes:
        variant: variant of the backbone.
        slopes: negative slopes of the leaky ReLU, in the stem and in the blocks.
        weights: ``raw`` or ``averaged``.
        input_size: side of the images in pixels.
        network: timm's name of the network.
    """

    variant: str | None
    slopes: Sequence[float] | None
    weights: str | None
    input_size: int | None
    network: str | None


def model_options(options: argparse.Namespace) -> ModelOptions:
    """The arguments of ``load_model`` from the options of :func:`add_model_options`."""
    return {
        "variant": options.variant,
        "slopes": options.slopes,
        "weights": options.weights,
        "input_size": options.size,
        "network": options.network,
    }


def add_report_option(parser: argparse.ArgumentParser) -> None:
    """Adds ``--report``."""
    parser.add_argument("--report", metavar="DIR", help="folder to write a report to, as report.html and as Markdown")


def write_report_of(folder: Path, out: str | None) -> None:
    """Writes the report of a run folder to ``out``, and prints its files; does nothing if ``out`` is None."""
    if out is None:
        return
    from tresnet_downstream.evaluation import write_report

    for path in write_report(folder, out, track=progress, tell=print):
        print(f"wrote {path}")


def best_device(name: str | None) -> str:
    """The named device or, without a name, the first GPU or else the CPU.

    Raises:
        UserError: if torch does not know the device, or it is not available.
    """
    import torch

    device = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"`device` {device}: {str(error).splitlines()[0]}") from error
    return device


def use_device(name: str | None, launcher: str) -> None:
    """Makes MMEngine's runner use the named device; by itself it uses the first available device.

    Must be called before torch initialises a GPU.

    Raises:
        UserError: if the device is not available, or MMEngine would use another one.
    """
    if name is None:
        return
    kind, _, index = name.partition(":")
    if launcher != "none" and index:
        raise UserError(f"`device` {name}: torchrun gives each process its own device; leave the index out")
    if kind == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif kind == "cuda" and index:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        if visible != [""] and not (index.isdigit() and int(index) < len(visible)):
            raise UserError(f"`device` {name}: CUDA_VISIBLE_DEVICES shows {len(visible)} devices")
        os.environ["CUDA_VISIBLE_DEVICES"] = index if visible == [""] else visible[int(index)]
        name = "cuda"
    best_device(name)
    from mmengine.device import get_device

    if get_device() != kind:
        raise UserError(f"`device` {name}: MMEngine trains and scores on {get_device()} here; leave it out")
