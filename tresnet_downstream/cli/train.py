"""Trains the classifier, detector or joint model of a config."""

import argparse
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from tresnet_downstream.cli.config_names import config_path
from tresnet_downstream.cli.options import CONFIG_KEYS, add_seed_option, config_parser, read_config, use_device
from tresnet_downstream.cli.tasks import CLASSIFIERS, DETECTION, JOINT, MULTILABEL, TASKS, require_task
from tresnet_downstream.command_line import Parser, outliving_reader
from tresnet_downstream.errors import UserError

if TYPE_CHECKING:
    from mmengine.config import Config

# Modules and functions that train detectors. They are imported when needed, because importing takes seconds.
_TRAINERS = {
    DETECTION: ("tresnet_downstream.detection.training", "train_detection"),
    JOINT: ("tresnet_downstream.joint.training", "train_joint"),
}
_EXAMPLES = {
    None: ("digits_tresnet --seed 1", "custom_tresnet_m_448 --size 224 --cfg-options data_root=photos"),
    MULTILABEL: (
        "configs/digits_tresnet.py --seed 1",
        "configs/coco_tresnet_l_448.py --amp --cfg-options data_root=coco",
    ),
    "classifier": (
        "configs/tiny_imagenet_tresnet_64.py --seed 1",
        "configs/folders_tresnet_m_224.py --batch-size 32 --cfg-options data_root=photos",
    ),
    DETECTION: (
        "configs/digits_retinanet_tresnet.py --seed 1",
        "configs/retinanet_tresnet_m.py --amp --batch-size 4 --cfg-options data_root=coco/",
    ),
    JOINT: (
        "configs/digits_labels_and_boxes.py --seed 1",
        "configs/digits_labels_and_boxes.py --cfg-options labels.loss_weights=learned",
    ),
}


def parser(task: str | None = None) -> Parser:
    """The parser of ``tresnet train``, or of the script of one task."""
    network = "the network of a config" if task is None else TASKS[task].network
    parser = config_parser(f"Trains {network}.", _EXAMPLES[task])
    add_seed_option(parser)
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        metavar="N",
        help="train with each seed, in folders seed_N, and write the mean score with its 95%% interval",
    )
    parser.add_argument("--resume", action="store_true", help="continue from the newest checkpoint in the folder")
    parser.add_argument(
        "--overwrite", action="store_true", help="start a new run, and rename the folder of the existing run"
    )
    return parser


def main(arguments: Sequence[str] | None = None, *, task: str | None = None) -> None:
    """Parses the command line, trains, and prints the best score and the folder of the results.

    Args:
        arguments: the arguments; those of the process by default.
        task: required task of the config, a key of :data:`~tresnet_downstream.cli.tasks.TASKS`; None accepts any.

    Raises:
        UserError: if the config is of another task, the task does not have an option, or the training raises it.
    """
    options = parser(task).parse_args(arguments)
    with outliving_reader():
        _train(options, task)


def _train(options: argparse.Namespace, task: str | None) -> None:
    """Trains with the seed of a config, or with several seeds."""
    use_device(options.device, options.launcher)

    from tresnet_downstream.running.config import read_config_file

    options.config = config_path(options.config)
    task = require_task(read_config_file(options.config), task, "train")
    if options.seeds is not None:
        _train_seeds(options, task)
        return
    config = read_config(options, task, "train_dataloader")
    train = _train_classifier if task in CLASSIFIERS else _train_detector
    train(config, task, options)


def _train_seeds(options: argparse.Namespace, task: str) -> None:
    """Trains with several seeds, and prints the table of their scores."""
    from mmengine.dist import is_main_process

    from tresnet_downstream.running.several_seeds import TABLE, Train, table_of, train_seeds

    if options.seed is not None:
        raise UserError(f"`seed` {options.seed}: `seeds` names the seeds; leave one of them out")
    if by_key := {change.partition("=")[0] for change in options.cfg_options} & set(CONFIG_KEYS[task]["seed"]):
        raise UserError(f"`seeds`: `cfg_options` sets {by_key.pop()} too; leave one of them out")

    def config_of(seed: int) -> "Config":
        return read_config(argparse.Namespace(**{**vars(options), "seed": seed}), task, "train_dataloader")

    work_dir = config_of(options.seeds[0]).work_dir
    if task in CLASSIFIERS:
        from tresnet_downstream.classification.training import best_score, train_classifier

        train: Train = train_classifier
    else:
        from tresnet_downstream.detection.training import best_score

        module, function = _TRAINERS[task]
        train = getattr(import_module(module), function)
    train_seeds(
        options.seeds, work_dir, config_of, train, best_score, options.resume, options.launcher, options.overwrite
    )
    if is_main_process():
        print(table_of(work_dir))
        print(f"results are in {work_dir}; {TABLE} has this table")


def _train_classifier(config: "Config", task: str, options: argparse.Namespace) -> None:
    from mmengine.dist import is_main_process

    from tresnet_downstream.classification.training import best_score, train_classifier

    best = train_classifier(config, options.resume, options.launcher, options.overwrite)
    if not is_main_process():
        return
    name = config.default_hooks.checkpoint.get("save_best", "mAP" if task == MULTILABEL else "top1")
    if (score := best_score(config, best)) is not None:
        step = f"step {best['step']}, " if "step" in best else ""
        print(f"best val {name} {score.value:.2f} ({best['weights']} weights, {step}epoch {best['epoch']})")
    elif task == MULTILABEL:
        print(f"no val {name}: the validation data has no image of any class")
    else:
        print(f"no val {name}: nothing was scored")
    print(f"results are in {config.work_dir}")


def _train_detector(config: "Config", task: str, options: argparse.Namespace) -> None:
    from mmengine.dist import is_main_process

    module, function = _TRAINERS[task]
    best = getattr(import_module(module), function)(config, options.resume, options.launcher, options.overwrite)
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
