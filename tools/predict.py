"""Labels pictures, or finds boxes: python tools/predict.py MODEL IMAGE...; MODEL is a file, URL or public name."""

import argparse
import sys
from collections.abc import Iterable, Sequence

from tresnet_downstream.command_line import add_model_options, model_options, progress, run


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line, predicts and prints a line for each picture."""
    parser = argparse.ArgumentParser(description="Labels pictures with their probabilities; a detector finds boxes.")
    parser.add_argument("model", help="a weight file, URL, or name that tools/weights.py lists")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="pictures, folders, or patterns in quotes")
    limits = parser.add_mutually_exclusive_group()
    limits.add_argument(
        "--threshold", type=float, help="what is above it is shown; 0.5 for multi-label weights, 0.3 for boxes"
    )
    limits.add_argument("--thresholds", metavar="FILE", help="one for each class, from tools/thresholds.py")
    parser.add_argument("--top-k", type=int, help="most labels or boxes of a picture; 5 for single-label weights")
    parser.add_argument("--out", metavar="DIR", help="draws each picture with its labels or boxes there")
    parser.add_argument("--json", action="store_true", help="JSON lines in place of text")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--device", help="such as cuda; the first GPU by default, else the CPU")
    parser.add_argument("--config", help="of a detector that MMDetection's own tools trained without ours")
    add_model_options(parser)
    options = parser.parse_args(arguments)

    from tresnet_downstream.command_line import best_device
    from tresnet_downstream.pictures import find_images
    from tresnet_downstream.weights import is_detector, locate

    if options.thresholds:
        from tresnet_downstream.evaluation.thresholds import read_thresholds

        options.threshold = read_thresholds(options.thresholds)
    images, device = find_images(options.images), best_device(options.device)
    label = _detector if options.config or is_detector(locate(options.model)) else _classifier
    lines = label(options, images, device)
    for line in progress(lines, len(images), "predict"):
        print(line)


def _classifier(options: argparse.Namespace, images: Sequence[str], device: str) -> Iterable[str]:
    from tresnet_downstream.classification.labelling import label_pictures
    from tresnet_downstream.classification.model_files import load_model

    model = load_model(options.model, **model_options(options)).to(device)
    return label_pictures(
        model, images, options.threshold, options.top_k, options.batch_size, options.out, options.json
    )


def _detector(options: argparse.Namespace, images: Sequence[str], device: str) -> Iterable[str]:
    from tresnet_downstream.detection.drawing import detect_in_pictures
    from tresnet_downstream.detection.predict import load_detector
    from tresnet_downstream.training.config import load_config

    config = load_config(options.config) if options.config else None
    model = load_detector(options.model, config).to(device)
    return detect_in_pictures(
        model, images, options.threshold, options.top_k, options.batch_size, options.out, options.json
    )


if __name__ == "__main__":
    sys.exit(run(main))
