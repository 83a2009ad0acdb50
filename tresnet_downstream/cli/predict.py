"""Predicts labels or boxes of images, with a checkpoint or an exported model."""

import argparse
from collections.abc import Iterable, Sequence

from tresnet_downstream.cli.config_names import config_path
from tresnet_downstream.cli.options import (
    add_device_option,
    add_model_options,
    add_threshold_option,
    best_device,
    model_options,
)
from tresnet_downstream.command_line import Parser, progress
from tresnet_downstream.errors import UserError


def parser() -> Parser:
    """The parser of ``tresnet predict``."""
    parser = Parser(
        description="Predicts labels of images with their probabilities or, with a detector, boxes.",
        examples=(
            "m_in1k image.jpg photos/ --top-k 3",
            "work_dirs/digits_tresnet/best.pth data/digits/val --threshold 0.5 --out drawn",
        ),
    )
    parser.add_argument("model", help="a weight file, exported model, URL, or name that tresnet weights lists")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="images, folders, or patterns in quotes")
    limits = parser.add_mutually_exclusive_group()
    add_threshold_option(
        limits, "probability above which a label or box is shown (default: 0.5 for multi-label, 0.3 for boxes)"
    )
    limits.add_argument(
        "--thresholds", metavar="FILE", help="file with a threshold for each class, from tresnet thresholds"
    )
    parser.add_argument(
        "--top-k",
        type=int,
        metavar="K",
        help="largest number of labels or boxes per image (default: 5 for single-label classifiers)",
    )
    parser.add_argument("--out", metavar="DIR", help="folder for images with drawn labels or boxes")
    parser.add_argument(
        "--explain",
        action="store_true",
        help="draw maps of the regions that a classifier uses for each label; needs --out",
    )
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of text")
    parser.add_argument("--batch-size", type=int, metavar="N", default=16, help="images per batch")
    add_device_option(parser)
    parser.add_argument(
        "--config", metavar="FILE", help="config of a detector that was trained without this package's runner"
    )
    add_model_options(parser)
    parser.add_argument(
        "--tta",
        action="store_true",
        help="test-time augmentation of a classifier: mean probabilities of each image and its mirror image",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line, and prints a line of predictions for each image."""
    options = parser().parse_args(arguments)

    from tresnet_downstream.images import find_images

    if options.thresholds:
        from tresnet_downstream.evaluation.thresholds import read_thresholds

        options.threshold = read_thresholds(options.thresholds)
    images = find_images(options.images)
    lines = _lines(options, images)
    for line in progress(lines, len(images), "predict"):
        print(line)


def _lines(options: argparse.Namespace, images: Sequence[str]) -> Iterable[str]:
    from tresnet_downstream.exported import is_exported

    if is_exported(options.model):
        return _exported(options, images)
    try:
        from tresnet_downstream.weights import is_detector, locate
    except ImportError as error:
        raise UserError(
            f"{options.model}: weight files need torch ({error}): pip install tresnet-downstream, or give an exported "
            "model"
        ) from error

    device = best_device(options.device)
    label = _detector if options.config or is_detector(locate(options.model)) else _classifier
    return label(options, images, device)


def _exported(options: argparse.Namespace, images: Sequence[str]) -> Iterable[str]:
    from tresnet_downstream.exported import ExportedClassifier, open_exported

    of_weight_files = {"config": options.config, **model_options(options)}
    if fixed := [name for name, value in of_weight_files.items() if value is not None]:
        raise UserError(f"{options.model}: `{fixed[0]}` is for weight files; it cannot be changed in an exported model")
    if options.tta:
        raise UserError(f"{options.model}: `tta` is for weight files; an exported model has no test-time augmentation")
    if options.explain:
        raise UserError(f"{options.model}: `explain` is for weight files; an exported model returns no feature maps")
    model = open_exported(options.model, options.device or "cpu")
    shown = (options.threshold, options.top_k, options.batch_size, options.out, options.json)
    if isinstance(model, ExportedClassifier):
        from tresnet_downstream.prediction.label_output import label_images

        return label_images(model, images, *shown)
    from tresnet_downstream.prediction.box_output import detect_in_images

    return detect_in_images(model, images, *shown)


def _classifier(options: argparse.Namespace, images: Sequence[str], device: str) -> Iterable[str]:
    from tresnet_downstream.backbones import TResNet
    from tresnet_downstream.classification.explained_images import explainer
    from tresnet_downstream.classification.model_loading import load_model
    from tresnet_downstream.deployment import fuse
    from tresnet_downstream.prediction.label_output import label_images

    model = load_model(options.model, **model_options(options)).to(device)
    if isinstance(model.backbone, TResNet):
        model = fuse(model)
    model.tta = options.tta
    shown = (options.threshold, options.top_k, options.batch_size, options.out, options.json)
    return label_images(model, images, *shown, explainer(model) if options.explain else None)


def _detector(options: argparse.Namespace, images: Sequence[str], device: str) -> Iterable[str]:
    if options.explain:
        raise UserError(f"{options.model}: is a detector, and `explain` is for classifiers")
    from tresnet_downstream import joint  # noqa: F401 - registers joint models
    from tresnet_downstream.detection.predict import LoadedDetector, load_detector
    from tresnet_downstream.prediction.box_output import detect_in_images
    from tresnet_downstream.running.config import load_config

    if options.tta:
        raise UserError(f"{options.model}: `tta` is for classifiers; for detectors only tresnet score has it")
    if unused := [name for name, value in model_options(options).items() if value is not None]:
        raise UserError(f"{options.model}: is a detector, and `{unused[0]}` is for classifiers; leave it out")
    config = load_config(config_path(options.config)) if options.config else None
    if config is not None and "test_dataloader" not in config:
        raise UserError(f"{options.config}: is not a detector's config; weights of a classifier need no config")
    detector = load_detector(options.model, config).to(device)
    shown = (options.threshold, options.top_k, options.batch_size, options.out, options.json)
    return detect_in_images(LoadedDetector(detector), images, *shown)
