"""Makes the sample data."""

from collections.abc import Sequence

from tresnet_downstream.command_line import Parser, progress
from tresnet_downstream.digits import OPTIONS, make_digits


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line and makes the digits."""
    parser = Parser(description="Makes small images with several handwritten digits, with labels and boxes.")
    parser.add_argument("--out", metavar="DIR", default="data/digits", help="the folder to make (%(default)s)")
    for name, (default, _, meaning) in OPTIONS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, help=f"{meaning} (%(default)s)")
    options = vars(parser.parse_args(arguments))
    out = options.pop("out")
    if make_digits(out, **options, track=progress):
        print(f"{out}: {options['train']} training and {options['val']} validation images")
    else:
        print(f"{out}: already made with these arguments, nothing to do")
