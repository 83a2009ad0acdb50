"""Creates the sample data."""

from collections.abc import Sequence

from tresnet_downstream.command_line import Parser, progress
from tresnet_downstream.digits import OPTIONS, make_digits


def parser() -> Parser:
    """The parser of ``tresnet digits``."""
    parser = Parser(
        description="Creates small images of several handwritten digits, with labels and boxes.",
        examples=("--train 300 --val 50", "--long-tail 100 --out data/digits_long_tail"),
    )
    parser.add_argument("--out", metavar="DIR", default="data/digits", help="folder to create")
    for name, (default, _, meaning) in OPTIONS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, metavar="N", help=meaning)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line, and creates the sample data."""
    options = vars(parser().parse_args(arguments))
    out = options.pop("out")
    if make_digits(out, **options, track=progress):
        print(f"{out}: {options['train']} training and {options['val']} validation images")
    else:
        print(f"{out}: has been created with these arguments, nothing to do")
