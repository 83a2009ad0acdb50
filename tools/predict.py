"""Labels pictures, or finds boxes: python tools/predict.py MODEL IMAGE...; MODEL is a file, URL or public name.

What tools/export.py wrote is a file too: .onnx runs in ONNX Runtime, .xml in OpenVINO.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence

from tresnet_downstream.command_line import (
    Parser,
    add_mirror_option,
    add_model_options,
    model_options,
    progress,
    run,
)
from tresnet_downstream.errors import UserError


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line, predicts and prints a line for each picture."""
    parser = Parser(description="Labels pictures with their probabilities; a detector finds boxes.")
    parser.add_argument("model", help="a weight file, exported model, URL, or name that tools/weights.py lists")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="pictures, folders, or patterns in quotes")
    limits = parser.add_mutually_exclusive_group()
    limits.add_argument(
        "--threshold", type=float, help="what is above it is shown; 0.5 for multi-label weights, 0.3 for boxes"
    )
    limits.add_argument("--thresholds", metavar="FILE", help="one for each class, from tools/thresholds.py")
    parser.add_argument("--top-k", type=int, help="most labels or boxes of a picture; 5 for single-label weights")
    parser.add_argument("--out", metavar="DIR", help="draws each picture with its labels or boxes there")
    parser.add_argument(
        "--explain", action="store_true", help="draws where a classifier looks for each label, too; needs --out"
    )
    parser.add_argument("--json", action="store_true", help="JSON lines in place of text")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument(
        "--device", help="such as cuda; the first GPU by default, else the CPU, which is an exported model's default"
    )
    parser.add_argument("--config", help="of a detector that MMDetection's own tools trained without ours")
    add_model_options(parser)
    add_mirror_option(parser)
    options = parser.parse_args(arguments)

    from tresnet_downstream.pictures import find_images

    if options.thresholds:
        from tresnet_downstream.evaluation.thresholds import read_thresholds

        options.threshold = read_thresholds(options.thresholds)
    images = find_images(options.images)
    lines = _lines(options, images)
    for line in progress(lines, len(images), "predict"):
        print(line)


def _lines(options: argparse.Namespace, images: Sequence[str]) -> Iterable[str]:
    from tresnet_downstream.command_line import best_device
    from tresnet_downstream.deployment.formats import is_exported
    from tresnet_downstream.weights import is_detector, locate

    if is_exported(options.model):
        return _exported(options, images)
    device = best_device(options.device)
    label = _detector if options.config or is_detector(locate(options.model)) else _classifier
    return label(options, images, device)


def _exported(options: argparse.Namespace, images: Sequence[str]) -> Iterable[str]:
    from tresnet_downstream.deployment.exported import open_exported

    of_weight_files = {"config": options.config, **model_options(options)}
    if fixed := [name for name, value in of_weight_files.items() if value is not None]:
        raise UserError(
            f"{options.model}: `{fixed[0]}` is for weight files; an exported model is what it was exported as"
        )
    if options.tta:
        raise UserError(f"{options.model}: --tta is for weight files; an exported model has no test-time augmentation")
    model = open_exported(options.model, options.device or "cpu")
    given = (options.threshold, options.top_k, options.batch_size, options.out, options.json)
    if model.kind == "classifier":
        from tresnet_downstream.classification.labelling import label_pictures

        return label_pictures(model, images, *given, options.explain)
    if options.explain:
        raise UserError(f"{options.model}: is a {model.kind}, and `explain` is for classifiers")
    from tresnet_downstream.detection.drawing import detect_in_pictures
    from tresnet_downstream.joint.predict import LabelsOfPictures

    labels = LabelsOfPictures(model.classes) if model.kind == "joint" else None
    return detect_in_pictures(model, images, *given, labels)


def _classifier(options: argparse.Namespace, images: Sequence[str], device: str) -> Iterable[str]:
    from tresnet_downstream.backbones import TResNet
    from tresnet_downstream.classification.labelling import label_pictures
    from tresnet_downstream.classification.model_files import load_model
    from tresnet_downstream.deployment import fuse

    model = load_model(options.model, **model_options(options)).to(device)
    if isinstance(model.backbone, TResNet):
        model = fuse(model)
    model.tta = options.tta
    return label_pictures(
        model, images, options.threshold, options.top_k, options.batch_size, options.out, options.json, options.explain
    )


def _detector(options: argparse.Namespace, images: Sequence[str], device: str) -> Iterable[str]:
    if options.explain:
        raise UserError(f"{options.model}: is a detector, and `explain` is for classifiers")
    from tresnet_downstream.detection.drawing import detect_in_pictures
    from tresnet_downstream.detection.predict import LoadedDetector, load_detector
    from tresnet_downstream.joint.predict import LabelsOfPictures, gives_labels_and_boxes
    from tresnet_downstream.running.config import load_config

    if options.tta:
        raise UserError(f"{options.model}: --tta is for classifiers; tools/test_detection.py has it for detectors")
    config = load_config(options.config) if options.config else None
    if config is not None and "test_dataloader" not in config:
        raise UserError(f"{options.config}: is not a detector's config; weights of a classifier need none")
    detector = load_detector(options.model, config).to(device)
    labels = LabelsOfPictures(detector.classes) if gives_labels_and_boxes(detector) else None
    given = (options.threshold, options.top_k, options.batch_size, options.out, options.json)
    return detect_in_pictures(LoadedDetector(detector), images, *given, labels)


if __name__ == "__main__":
    sys.exit(run(main))
