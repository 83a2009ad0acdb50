"""Proposes a ResNet-RS for a budget of multiply-adds."""

from collections.abc import Sequence

from tresnet_downstream.command_line import Parser


def parser() -> Parser:
    """The parser of ``tresnet scale``."""
    parser = Parser(
        description="Prints the ResNet-RS family, and proposes depth and input size for a budget.",
        examples=("--budget 10", "--budget 0.5"),
    )
    parser.add_argument(
        "--budget", type=float, metavar="N", help="budget of the forward pass of an image, in 10^9 multiply-adds"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line, and prints the family and the proposal."""
    options = parser().parse_args(arguments)

    from tresnet_downstream.backbones.resnet_rs import largest_within, scaled_networks_table

    chosen = None if options.budget is None else largest_within(options.budget)
    print(scaled_networks_table(chosen))
    print("Increase the depth for trainings of hundreds of epochs, the width for short ones, and the size slowly.")
    if chosen:
        print(f"in a config: backbone=dict(type='TimmNetwork', model='{chosen.model}'), image_size={chosen.input_size}")
