"""Exports a classifier, detector or joint model to ONNX or OpenVINO, optionally in int8."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tresnet_downstream.cli.config_names import config_path
from tresnet_downstream.cli.options import add_model_options, model_options
from tresnet_downstream.command_line import Parser, progress
from tresnet_downstream.errors import UserError

if TYPE_CHECKING:
    from tresnet_downstream.deployment.classifier import ExportableClassifier
    from tresnet_downstream.deployment.detector import ExportableDetector


def parser() -> Parser:
    """The parser of ``tresnet export``."""
    parser = Parser(
        description="Exports a model and compares the outputs of the exported file with torch's.",
        examples=(
            "work_dirs/digits_tresnet/best.pth digits.onnx",
            "work_dirs/digits_tresnet/best.pth digits.xml --int8 data/digits/train",
        ),
    )
    parser.add_argument("model", help="a weight file, URL, or name that tresnet weights lists")
    parser.add_argument("out", help="file to write: .onnx, or .xml for OpenVINO")
    parser.add_argument(
        "--int8",
        nargs="+",
        default=[],
        metavar="IMAGE",
        help="quantise to int8 and calibrate with these images or folders: a few hundred images like those in use",
    )
    parser.add_argument(
        "--config", metavar="FILE", help="config of a detector that was trained without this package's runner"
    )
    add_model_options(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line, exports the model, and prints the file and its difference from torch."""
    options = parser().parse_args(arguments)

    from tresnet_downstream.deployment.export import export, require_target
    from tresnet_downstream.deployment.formats import is_exported
    from tresnet_downstream.images import find_images
    from tresnet_downstream.weights import is_detector, locate

    if is_exported(options.model):
        raise UserError(f"{options.model}: is an exported model; give the weights that it was exported from")
    require_target(options.out, bool(options.int8))
    if options.config or is_detector(locate(options.model)):
        exported = export(_detector(options), options.out, find_images(options.int8), progress)
    else:
        exported = export(_classifier(options), options.out, find_images(options.int8), progress)
    print(exported)


def _classifier(options: argparse.Namespace) -> "ExportableClassifier":
    from tresnet_downstream.classification.model_loading import load_model
    from tresnet_downstream.deployment.classifier import ExportableClassifier

    return ExportableClassifier(load_model(options.model, **model_options(options)))


def _detector(options: argparse.Namespace) -> "ExportableDetector":
    from tresnet_downstream.deployment.joint import exportable_detector
    from tresnet_downstream.detection.predict import load_detector
    from tresnet_downstream.running.config import load_config

    of_classifiers = {name: value for name, value in model_options(options).items() if name != "input_size"}
    if unused := [name for name, value in of_classifiers.items() if value is not None]:
        raise UserError(f"{options.model}: is a detector, and `{unused[0]}` is for classifiers; leave it out")
    config = load_config(config_path(options.config)) if options.config else None
    if config is not None and "test_dataloader" not in config:
        raise UserError(f"{options.config}: is not a detector's config; weights of a classifier need no config")
    return exportable_detector(load_detector(options.model, config), options.size)
