"""Labels pictures: python tools/predict.py MODEL IMAGE..., where MODEL is a file, URL or name of the catalogue."""

import argparse
import sys
from collections.abc import Sequence

from tresnet_downstream.command_line import add_model_options, model_options, progress, run


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line, predicts and prints a line for each picture."""
    parser = argparse.ArgumentParser(description="Labels pictures with their probabilities.")
    parser.add_argument("model", help="a weight file, URL, or name that tools/weights.py lists")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="pictures, folders, or patterns in quotes")
    parser.add_argument("--threshold", type=float, help="least probability; 0.5 for multi-label weights")
    parser.add_argument("--top-k", type=int, help="most labels of a picture; 5 for single-label weights")
    parser.add_argument("--out", metavar="DIR", help="draws each picture with its labels there")
    parser.add_argument("--json", action="store_true", help="JSON lines in place of text")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--device", help="such as cuda; the first GPU by default, else the CPU")
    add_model_options(parser)
    options = parser.parse_args(arguments)

    from tresnet_downstream.classification.labelling import label_pictures
    from tresnet_downstream.classification.model_files import load_model
    from tresnet_downstream.classification.predict import find_images
    from tresnet_downstream.command_line import best_device

    images = find_images(options.images)
    model = load_model(options.model, **model_options(options)).to(best_device(options.device))
    lines = label_pictures(
        model, images, options.threshold, options.top_k, options.batch_size, options.out, options.json
    )
    for line in progress(lines, len(images), "predict"):
        print(line)


if __name__ == "__main__":
    sys.exit(run(main))
