"""Training of detectors, and of networks that give labels too."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from tresnet_downstream.command_line import config_parser, read_config


def train(arguments: Sequence[str] | None, description: str, load: Callable[[], Callable[..., dict[str, Any]]]) -> None:
    """Parses the command line, trains and prints the best score and where the results are.

    Args:
        arguments: of the command line; those of the process if None.
        description: of the command.
        load: imports what trains, which takes seconds: ``function(config, resume, launcher, overwrite)``.
    """
    parser = config_parser(description)
    parser.add_argument("--resume", action="store_true", help="goes on from the newest checkpoint in the work dir")
    parser.add_argument("--overwrite", action="store_true", help="moves a run that the work dir holds aside")
    options = parser.parse_args(arguments)

    from mmengine.dist import is_main_process

    train_model = load()
    config = read_config(options)
    best = train_model(config, options.resume, options.launcher, options.overwrite)
    if not is_main_process():
        return
    if "last_AP" in best:
        print(f"last val AP {best['last_AP']:.2f}; the config keeps no best checkpoint (save_best)")
    elif best:
        name = next(key for key in best if key != "checkpoint")
        print(f"best val {name} {best[name]:.2f}, in {best['checkpoint']}")
    else:
        print("no val AP: nothing was scored")
    print(f"results are in {config.work_dir}")


def ready_model(options: argparse.Namespace, kind: str) -> Any:
    """The model of an exported file in the place of a checkpoint; None for a checkpoint.

    Args:
        options: of a command that scores.
        kind: ``detector`` or ``joint``.

    Raises:
        UserError: the file is of another kind, or an option would change what it computes.
    """
    from tresnet_downstream.deployment.formats import is_exported

    if not is_exported(options.checkpoint):
        return None
    from tresnet_downstream.deployment.scoring import ready_detector

    ready = ready_detector(options.checkpoint, kind)
    changes = {option.partition("=")[0] for option in options.cfg_options} | ({"amp"} if options.amp else set())
    ready.require_untouched(changes, options.checkpoint)
    return ready
