"""Exports a classifier: python tools/export.py MODEL OUT.onnx, or OUT.xml for OpenVINO, there in int8 as well."""

import sys
from collections.abc import Sequence

from tresnet_downstream.command_line import Parser, add_model_options, model_options, progress, run
from tresnet_downstream.errors import UserError


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line, exports, and says what was written and how far it is from torch."""
    parser = Parser(description="Exports a classifier; what it computes is compared with torch.")
    parser.add_argument("model", help="a weight file, URL, or name that tools/weights.py lists")
    parser.add_argument("out", help="the file to write: .onnx, or .xml for OpenVINO")
    parser.add_argument(
        "--int8",
        nargs="+",
        default=[],
        metavar="IMAGE",
        help="quantises, calibrated with these pictures or folders: some hundred like those to come",
    )
    add_model_options(parser)
    options = parser.parse_args(arguments)

    from tresnet_downstream.classification.model_files import load_model
    from tresnet_downstream.deployment.export import export
    from tresnet_downstream.deployment.exported import is_exported
    from tresnet_downstream.pictures import find_images
    from tresnet_downstream.weights import is_detector, locate

    if is_exported(options.model):
        raise UserError(f"{options.model}: is exported already; give the weights that it was made from")
    if is_detector(locate(options.model)):
        raise UserError(
            f"{options.model}: is a detector; classifiers alone can be exported (MMDeploy exports detectors)"
        )
    model = load_model(options.model, **model_options(options))
    print(export(model, options.out, find_images(options.int8), progress))


if __name__ == "__main__":
    sys.exit(run(main))
