"""The command line program ``tresnet COMMAND ...``; each command has a module in this folder."""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

from tresnet_downstream.command_line import Parser, run
from tresnet_downstream.version import __version__


class Command(NamedTuple):
    """A command of ``tresnet``. Its module has the functions ``parser()`` and ``main(arguments)``."""

    module: str
    summary: str
    resumable: bool = False


COMMANDS = {
    "demo": Command("demo", "create the sample data, train on it, score, and write a report"),
    "digits": Command("digits", "create the sample data, with a number of images of your choice"),
    "config": Command("config", "list the packaged configs, print one with the meanings of its keys, or copy one"),
    "check": Command("check", "check annotations and images before a training"),
    "train": Command("train", "train a classifier, a detector or a joint model", resumable=True),
    "score": Command("score", "score a checkpoint or an exported model"),
    "report": Command("report", "write a report on one or more scored runs"),
    "thresholds": Command("thresholds", "choose thresholds for each class on a scored run"),
    "calibrate": Command("calibrate", "calibrate probabilities on a scored run"),
    "predict": Command("predict", "label images or find boxes, with a checkpoint or an exported model"),
    "export": Command("export", "export a model to ONNX or OpenVINO, optionally in int8"),
    "weights": Command("weights", "list, show, convert, download, share and verify weight files"),
    "maps": Command("maps", "compare the maps of explanations with boxes"),
    "scale": Command("scale", "propose a ResNet-RS for a budget of multiply-adds"),
    "reproduce": Command("reproduce", "run small experiments for published claims, in stages that can be resumed"),
    "benchmark": Command("benchmark", "compare speed and memory with other networks"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status.

    Args:
        arguments: the command and its arguments; those of the process by default.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in COMMANDS:
        name, *rest = words
        command = COMMANDS[name]
        module = import_module(f"{__package__}.{command.module}")
        return run(module.main, rest, command.resumable, program=f"tresnet {name}")
    return run(_help, words, program="tresnet")


def _help(arguments: Sequence[str] | None) -> None:
    """Parses a command line without a valid command: ``--help``, ``--version`` or a mistake."""
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items())
    parser = Parser(
        usage="tresnet COMMAND ...",
        description="Multi-label image classification and object detection with the TResNet family.",
        note=f"commands:\n{listed}\n\ntresnet COMMAND --help shows the options and examples of a command.",
        add_help=False,
    )
    parser.add_argument("-h", "--help", action="help", help="show this help and exit")
    parser.add_argument("--version", action="version", version=__version__, help="show the version and exit")
    parser.add_argument("command", metavar="COMMAND", choices=COMMANDS, help="one of the commands below")
    parser.parse_args(arguments)
