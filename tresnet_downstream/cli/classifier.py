"""Training and scoring of classifiers; one pair of tools is for several labels per image, the other for one."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tresnet_downstream.command_line import (
    add_mirror_option,
    add_report_option,
    config_parser,
    read_config,
    write_report_of,
)
from tresnet_downstream.errors import UserError

_NAMES = {True: "a multi-label classifier", False: "a classifier with one label per image"}
_TOOLS = {True: "multilabel", False: "classifier"}


def train(arguments: Sequence[str] | None = None, *, multi_label: bool) -> None:
    """Parses the command line and trains.

    Args:
        arguments: of the command line; those of the process by default.
        multi_label: whether images have several labels.

    Raises:
        UserError: for a config of the other task, and for what training raises.
    """
    parser = config_parser(f"Trains {_NAMES[multi_label]}.")
    parser.add_argument("--resume", action="store_true", help="goes on from the newest checkpoint in the work dir")
    parser.add_argument("--overwrite", action="store_true", help="moves a run that the work dir holds aside")
    options = parser.parse_args(arguments)

    from mmengine.dist import is_main_process

    from tresnet_downstream.classification.training import train_classifier

    config = read_config(options)
    _require_task(config, options.config, multi_label, "train")
    best = train_classifier(config, options.resume, options.launcher, options.overwrite)
    if not is_main_process():
        return
    name = config.default_hooks.checkpoint.get("save_best", "mAP" if multi_label else "top1")
    if "epoch" in best:
        step = f"step {best['step']}, " if "step" in best else ""
        score = best[name] if name in best else best[f"{best['weights']}/{name}"]
        print(f"best val {name} {score:.2f} ({best['weights']} weights, {step}epoch {best['epoch']})")
    elif multi_label:
        print(f"no val {name}: the validation data shows none of the classes")
    else:
        print(f"no val {name}: nothing was scored")
    print(f"results are in {config.work_dir}")


def score(arguments: Sequence[str] | None = None, *, multi_label: bool) -> None:
    """Parses the command line, scores, prints the table and writes scores, the run folder and the report asked for.

    Args:
        arguments: of the command line; those of the process by default.
        multi_label: whether images have several labels.

    Raises:
        UserError: for a config or a checkpoint of the other task, and for what scoring raises.
    """
    parser = config_parser(f"Scores {_NAMES[multi_label]} on the validation data of a config, or of its options.")
    parser.usage = "%(prog)s [CONFIG] CHECKPOINT [options]"
    parser.add_argument(
        "checkpoint",
        nargs="?",
        help="such as work_dirs/NAME/best.pth, or an exported model.onnx; alone, it takes no config",
    )
    parser.add_argument(
        "--weights", choices=["raw", "averaged"], help="by default those that scored better in validation"
    )
    parser.add_argument(
        "--explain", action="store_true", help="keeps where the network looked at its worst mistakes, for reports"
    )
    add_mirror_option(parser)
    add_report_option(parser)
    options = parser.parse_args(arguments)

    from tresnet_downstream.classification.training import score_classifier
    from tresnet_downstream.evaluation import format_single_label_table, format_table, write_scored

    ready = _ready_model(options)
    config, set_here = _scoring_config(options, ready)
    _require_task(config, options.config, multi_label, "test")
    scored = score_classifier(
        config, options.checkpoint, options.weights, options.launcher, set_here, options.explain, options.tta, ready
    )
    if scored is None:
        return
    scores, outcome = scored
    table = format_table if multi_label else format_single_label_table
    tta = ", tta" if options.tta else ""
    print(table(scores, f"{options.checkpoint}, {outcome.about['weights']} weights{tta}"))
    for name, value in outcome.about.get("metrics", {}).items():
        print(f"{name} {value:.2f}" if isinstance(value, float) else f"{name} {value}")
    folder = Path(config.work_dir)
    for path in write_scored(scores, outcome, folder):
        print(f"wrote {path}")
    write_report_of(folder, options.report)


def _require_task(config: Any, file: str, multi_label: bool, verb: str) -> None:
    if bool(config.get("model", {}).get("multi_label", True)) != multi_label:
        raise UserError(f"{file}: is of {_NAMES[not multi_label]}, for {verb}_{_TOOLS[not multi_label]}.py")


def _ready_model(options: argparse.Namespace) -> Any:
    """What runs the exported file that is named in the place of a checkpoint; None for a checkpoint."""
    from tresnet_downstream.deployment.formats import is_exported

    path = options.checkpoint or options.config
    if not is_exported(path):
        return None
    from tresnet_downstream.deployment.scoring import ready_classifier

    return ready_classifier(path)


def _scoring_config(options: argparse.Namespace, ready: Any) -> tuple[Any, set[str]]:
    """The config, of a file or of the checkpoint alone, and the places that options set in it."""
    from tresnet_downstream.classification.descriptions import Description, read_description
    from tresnet_downstream.classification.scoring_config import scoring_config
    from tresnet_downstream.running.config import read_config_file
    from tresnet_downstream.running.options import places_set_by, with_options
    from tresnet_downstream.weights import read_checkpoint

    changes = [*options.cfg_options, *([f"amp={options.amp}"] if options.amp else [])]
    if options.checkpoint is not None:
        return read_config(options), places_set_by(changes, read_config_file(options.config))
    if Path(options.config).suffix == ".py":
        raise UserError(f"{options.config}: is a config; name the checkpoint after it")
    checkpoint = options.checkpoint = Path(options.config)
    if ready is None:
        description = read_description(checkpoint, read_checkpoint(checkpoint))
    else:
        description = Description(ready.config, ready.pipeline)
    raw = scoring_config(description, checkpoint)
    places = places_set_by(changes, raw)
    config = with_options(raw, changes)
    config.work_dir = options.work_dir or str(Path("work_dirs") / checkpoint.absolute().parent.name)
    return config, places
