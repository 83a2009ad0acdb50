"""Measures explanations against boxes."""

from collections.abc import Sequence

from tresnet_downstream.cli.options import add_device_option, add_model_options, best_device, model_options
from tresnet_downstream.command_line import Parser, progress


def parser() -> Parser:
    """The parser of ``tresnet maps``."""
    parser = Parser(
        description="Measures how much of the maps of --explain lies inside the boxes of their classes, beside the "
        "boxes' share of the pictures: the two are equal where a map knows nothing.",
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
        help="measure the same network with random weights of this seed, for comparison",
    )
    add_device_option(parser)
    add_model_options(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line, measures and prints what the maps have in the boxes of their classes."""
    options = parser().parse_args(arguments)

    from tresnet_downstream.classification.map_check import check_maps, untrained
    from tresnet_downstream.classification.model_loading import load_model

    model = load_model(options.checkpoint, **model_options(options)).to(best_device(options.device))
    if options.untrained is not None:
        model = untrained(options.checkpoint, model, options.untrained)
    found = check_maps(model, options.annotations, options.images, options.most, progress)
    empty = f", {found.empty:,} of them empty and left out" if found.empty else ""
    print(f"{found.maps:,} maps of {found.images:,} pictures by {found.method}{empty}")
    mass, area = 100 * found.mass, 100 * found.area
    print(f"{mass:.1f}% of a map's mass lies inside the boxes of its class, which cover {area:.1f}% of the picture")
    print(f"{100 * found.above:.1f}% of the maps have more of their mass inside than the boxes cover")
