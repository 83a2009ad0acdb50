"""Compares the maps of explanations with boxes."""

from collections.abc import Sequence

from tresnet_downstream.cli.options import add_device_option, add_model_options, best_device, model_options
from tresnet_downstream.command_line import Parser, progress


def parser() -> Parser:
    """The parser of ``tresnet maps``."""
    parser = Parser(
        description="Measures the share of the maps of --explain that is inside the boxes of their classes, and the "
        "boxes' share of the image area. For a map without information both are equal.",
        examples=(
            "work_dirs/digits_tresnet/best.pth --annotations val.json --images val",
            "work_dirs/digits_tresnet/best.pth --annotations val.json --images val --untrained 0",
        ),
    )
    parser.add_argument("checkpoint", help="a classifier, such as work_dirs/NAME/best.pth")
    parser.add_argument("--annotations", required=True, metavar="FILE", help="COCO file of images with boxes")
    parser.add_argument("--images", required=True, metavar="DIR", help="folder that the names in FILE are relative to")
    parser.add_argument("--most", type=int, metavar="N", help="largest number of images to measure (default: all)")
    parser.add_argument(
        "--untrained",
        type=int,
        metavar="SEED",
        help="measure the same network with random weights from this seed, for comparison",
    )
    add_device_option(parser)
    add_model_options(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line, and prints the share of the maps that is inside the boxes of their classes."""
    options = parser().parse_args(arguments)

    from tresnet_downstream.classification.map_check import check_maps, untrained
    from tresnet_downstream.classification.model_loading import load_model

    model = load_model(options.checkpoint, **model_options(options)).to(best_device(options.device))
    if options.untrained is not None:
        model = untrained(options.checkpoint, model, options.untrained)
    result = check_maps(model, options.annotations, options.images, options.most, progress)
    empty = f", {result.empty:,} of them empty and left out" if result.empty else ""
    print(f"{result.maps:,} maps of {result.images:,} images by {result.method}{empty}")
    mass, area = 100 * result.mass, 100 * result.area
    print(f"{mass:.1f}% of a map's mass is inside the boxes of its class, which cover {area:.1f}% of the image")
    print(f"for {100 * result.above:.1f}% of the maps, the share of mass inside is larger than that of the area")
