"""Scores a checkpoint or an exported model of any task."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tresnet_downstream.cli.config_names import config_path, packaged_names
from tresnet_downstream.cli.options import (
    add_report_option,
    add_threshold_option,
    changes_of,
    config_parser,
    read_config,
    use_device,
    write_report_of,
)
from tresnet_downstream.cli.tasks import CLASSIFIERS, DETECTION, DETECTORS, JOINT, MULTILABEL, TASKS, require_task
from tresnet_downstream.command_line import Parser, outliving_reader
from tresnet_downstream.errors import UserError

if TYPE_CHECKING:
    from mmengine.config import Config

    from tresnet_downstream.running.ready_model import ReadyModel

# Options that only some tasks have, besides the options that are short for config keys.
_TASKS_OF = {"weights": CLASSIFIERS, "explain": CLASSIFIERS, "tta": (*CLASSIFIERS, DETECTION)}
_EXAMPLES = {
    None: (
        "digits_tresnet work_dirs/digits_tresnet/best.pth --report report",
        "digits_retinanet_tresnet detector.onnx --out scored",
    ),
    MULTILABEL: (
        "configs/digits_tresnet.py work_dirs/digits_tresnet/best.pth --report report",
        "work_dirs/digits_tresnet/best.pth --cfg-options val_annotations=test.json val_images=test",
    ),
    "classifier": (
        "configs/tiny_imagenet_tresnet_64.py work_dirs/tiny_imagenet_tresnet_64/best.pth --tta",
        "work_dirs/tiny_imagenet_tresnet_64/best.pth --cfg-options val_images=other",
    ),
    DETECTION: (
        "configs/digits_retinanet_tresnet.py work_dirs/digits_retinanet_tresnet/epoch_4.pth --report report",
        "configs/digits_retinanet_tresnet.py detector.onnx --out scored",
    ),
    JOINT: (
        "configs/digits_labels_and_boxes.py work_dirs/digits_labels_and_boxes/epoch_4.pth --report report",
        "configs/digits_labels_and_boxes.py joint.onnx --out scored",
    ),
}


def parser(task: str | None = None) -> Parser:
    """The parser of ``tresnet score``, or of the script of one task."""
    network = "a network" if task is None else TASKS[task].network
    parser = config_parser(f"Scores {network} on the validation or test data of a config.", _EXAMPLES[task])
    parser.add_argument(
        "--split",
        choices=["val", "test"],
        default="val",
        help="data to score: val_dataloader's, which chose the best epoch, or test_dataloader's (default: val)",
    )
    alone = ""
    if task not in DETECTORS:
        parser.usage = "%(prog)s [CONFIG] CHECKPOINT [options]"
        alone = "; a classifier's needs no config"
    parser.add_argument(
        "checkpoint",
        nargs=None if task in DETECTORS else "?",
        help=f"a checkpoint, such as work_dirs/NAME/best.pth, or an exported model{alone}",
    )
    if task != DETECTION:
        add_threshold_option(parser, "probability above which a label counts as predicted (default: the config's)")
    if task not in DETECTORS:
        parser.add_argument(
            "--weights",
            choices=["raw", "averaged"],
            help="weights of a classifier's checkpoint (default: the weights with the better validation score)",
        )
        parser.add_argument(
            "--explain",
            action="store_true",
            help="store maps of the regions that a classifier used in its worst mistakes, for reports",
        )
    if task != JOINT:
        parser.add_argument(
            "--tta",
            action="store_true",
            help="test-time augmentation: mean probabilities of each image and its mirror image; for detectors the "
            "config's tta_model and tta_pipeline, by default the merged boxes of both images",
        )
    add_report_option(parser)
    return parser


def main(arguments: Sequence[str] | None = None, *, task: str | None = None) -> None:
    """Parses the command line, scores, prints the table, and writes the scores, the run folder and the report.

    Args:
        arguments: the arguments; those of the process by default.
        task: required task of the config, a key of :data:`~tresnet_downstream.cli.tasks.TASKS`; None accepts any.

    Raises:
        UserError: if the config or checkpoint is of another task, the task does not have an option, or scoring
            raises it.
    """
    options = parser(task).parse_args(arguments)
    with outliving_reader():
        _score(options, task)


def _score(options: argparse.Namespace, task: str | None) -> None:
    """Scores with a config, or with a checkpoint only."""
    use_device(options.device, options.launcher)
    if options.checkpoint is None:  # the only argument is the checkpoint
        options.config, options.checkpoint = None, options.config
    if Path(options.checkpoint).is_dir():
        from tresnet_downstream.weights import locate

        options.checkpoint = locate(options.checkpoint)
    if options.out is None:
        options.out = _folder_of_run(options.checkpoint)
    if options.config is None:
        if options.checkpoint in packaged_names() or Path(options.checkpoint).suffix == ".py":
            raise UserError(f"{options.checkpoint}: is a config; name the checkpoint after it")
        _score_classifier(options, None, task)
        return

    from tresnet_downstream.running.config import read_config_file

    options.config = config_path(options.config)
    raw = read_config_file(options.config)
    actual = require_task(raw, task, "test")
    for name, tasks in _TASKS_OF.items():
        if getattr(options, name, None) and actual not in tasks:
            raise UserError(f"`{name}`: {options.config} is a config of {TASKS[actual].network}; leave it out")
    if actual in CLASSIFIERS:
        _score_classifier(options, raw, actual)
    elif actual == DETECTION:
        _score_detector(options)
    else:
        _score_joint(options)


def _folder_of_run(checkpoint: str) -> str | None:
    """The run folder that contains a checkpoint; None if it is in another folder."""
    folder = Path(checkpoint).parent
    return str(folder) if (folder / "run_id").is_file() else None


def _score_classifier(options: argparse.Namespace, raw: "Config | None", task: str | None) -> None:
    """Scores a classifier with a config, or with its checkpoint only."""
    from tresnet_downstream.classification.training import score_classifier
    from tresnet_downstream.evaluation import format_single_label_table, format_table, write_scored
    from tresnet_downstream.running.options import places_set_by

    ready = _ready_classifier(options)
    if raw is None:
        config, set_here, task = _config_of_checkpoint(options, ready, task)
    else:
        assert task is not None
        config = read_config(options, task, f"{options.split}_dataloader")
        set_here = places_set_by(changes_of(options, task, f"{options.split}_dataloader"), raw)
    scored = score_classifier(
        config,
        options.checkpoint,
        options.weights,
        options.launcher,
        set_here,
        options.explain,
        options.tta,
        ready,
        options.split,
    )
    if scored is None:
        return
    scores, outcome = scored
    folder = Path(config.work_dir)
    written = write_scored(scores, outcome, folder)
    table = format_table if task == MULTILABEL else format_single_label_table
    print(table(scores, f"{options.checkpoint}, {outcome.about['weights']} weights{_how(options)}"))
    metrics = outcome.about.get("metrics")
    for name, value in metrics.items() if isinstance(metrics, Mapping) else ():
        print(f"{name} {value:.2f}" if isinstance(value, float) else f"{name} {value}")
    for path in written:
        print(f"wrote {path}")
    write_report_of(folder, options.report)
    _log(options, config, folder)


def _log(options: argparse.Namespace, config: "Config", folder: Path) -> None:
    """Logs scores and report to the config's trackers."""
    from tresnet_downstream.deployment.formats import is_exported
    from tresnet_downstream.running.trackers.results import log_scored

    if not is_exported(options.checkpoint):
        log_scored(config, options.checkpoint, folder, options.report)


def _how(options: argparse.Namespace) -> str:
    """The part of a table's title that names the split and test-time augmentation."""
    return f", {options.split} split{', tta' if getattr(options, 'tta', False) else ''}"


def _ready_classifier(options: argparse.Namespace) -> "ReadyModel | None":
    """The model of an exported file that is given as the checkpoint; None for a checkpoint."""
    from tresnet_downstream.deployment.formats import is_exported

    if not is_exported(options.checkpoint):
        return None
    from tresnet_downstream.deployment.scoring import ready_classifier
    from tresnet_downstream.exported.file import CLASSIFIER, KINDS, ExportedFile

    file = ExportedFile(options.checkpoint)
    if options.config is None and file.kind != CLASSIFIER:
        raise UserError(f"{file.path}: is an exported {KINDS[file.kind]}; name the config of its data first")
    return ready_classifier(file)


def _config_of_checkpoint(
    options: argparse.Namespace, ready: "ReadyModel | None", task: str | None
) -> tuple["Config", set[str], str]:
    """The config that a checkpoint describes, the keys that options set in it, and its task."""
    from tresnet_downstream.classification.descriptions import Description, read_description
    from tresnet_downstream.classification.scoring_config import scoring_config
    from tresnet_downstream.running.options import places_set_by, with_options
    from tresnet_downstream.weights import is_detector, read_checkpoint

    checkpoint = options.checkpoint = Path(options.checkpoint)
    if ready is None and checkpoint.is_file() and is_detector(checkpoint):
        raise UserError(f"{checkpoint}: is a detector's checkpoint; name its config first")
    if ready is None:
        description = read_description(checkpoint, read_checkpoint(checkpoint))
    else:
        description = Description(ready.config, ready.pipeline)
    raw = scoring_config(description, checkpoint)
    actual = require_task(raw, task, "test")
    changes = changes_of(options, actual, f"{options.split}_dataloader")
    places = places_set_by(changes, raw)
    config = with_options(raw, changes)
    config.work_dir = options.out or str(Path("work_dirs") / checkpoint.absolute().parent.name)
    return config, places, actual


def _score_detector(options: argparse.Namespace) -> None:
    from tresnet_downstream.detection.training import score_detection
    from tresnet_downstream.evaluation import format_detection_table, write_scored

    config = read_config(options, DETECTION, f"{options.split}_dataloader")
    ready = _ready_detector(options, "detector")
    scored = score_detection(config, options.checkpoint, options.launcher, options.tta, ready, options.split)
    if scored is None:
        return
    scores, outcome = scored
    folder = Path(config.work_dir)
    written = write_scored(scores, outcome, folder)
    for kind, scores_of_kind in scores.items():
        print(format_detection_table(scores_of_kind, f"{options.checkpoint}, {kind}{_how(options)}"))
    for path in written:
        print(f"wrote {path}")
    write_report_of(folder, options.report)
    _log(options, config, folder)


def _score_joint(options: argparse.Namespace) -> None:
    from tresnet_downstream.evaluation import format_detection_table, format_table, write_scored
    from tresnet_downstream.evaluation.runs import PARTS
    from tresnet_downstream.joint.training import score_joint

    config = read_config(options, JOINT, f"{options.split}_dataloader")
    ready = _ready_detector(options, "joint")
    scored = score_joint(config, options.checkpoint, options.launcher, ready, options.split)
    if scored is None:
        return
    labels, boxes = scored
    folder = Path(config.work_dir)
    written = (*write_scored(*labels, folder / PARTS[0]), *write_scored(*boxes, folder / PARTS[1]))
    print(format_table(labels[0], f"{options.checkpoint}, labels{_how(options)}"))
    for kind, scores_of_kind in boxes[0].items():
        print(format_detection_table(scores_of_kind, f"{options.checkpoint}, {kind}{_how(options)}"))
    for path in written:
        print(f"wrote {path}")
    write_report_of(folder, options.report)
    _log(options, config, folder)


def _ready_detector(options: argparse.Namespace, kind: str) -> "ReadyModel | None":
    """The model of an exported file that is given as the checkpoint; None for a checkpoint.

    Raises:
        UserError: if the file has another kind of model, or an option would change its outputs.
    """
    from tresnet_downstream.deployment.formats import is_exported

    if not is_exported(options.checkpoint):
        return None
    from tresnet_downstream.deployment.scoring import ready_detector

    ready = ready_detector(options.checkpoint, kind)
    changes = {option.partition("=")[0] for option in options.cfg_options} | ({"amp"} if options.amp else set())
    ready.require_untouched(changes, options.checkpoint)
    return ready
