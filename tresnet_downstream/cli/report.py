"""Writes a report on one or more scored runs."""

from collections.abc import Sequence

from tresnet_downstream.cli.options import add_import_option
from tresnet_downstream.command_line import Parser, progress


def parser() -> Parser:
    """The parser of ``tresnet report``."""
    parser = Parser(
        description="Writes a page of scores, curves and mistakes from the folders of scored runs; the network is not "
        "needed.",
        examples=(
            "work_dirs/digits_tresnet --out report",
            "work_dirs/first work_dirs/second --names small large --out comparison",
        ),
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="folders of scored runs; differences are relative to the first run"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for report.html and its files")
    parser.add_argument(
        "--names", nargs="+", metavar="NAME", help="names of the runs (default: the names of their folders)"
    )
    parser.add_argument(
        "--resamples",
        type=int,
        default=1000,
        metavar="N",
        help="number of bootstrap resamples for 95%% intervals, at least 100; 0 for no intervals",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the bootstrap")
    parser.add_argument(
        "--thresholds",
        metavar="FILE",
        help="file with a threshold for each class, from tresnet thresholds (default: the config's threshold)",
    )
    parser.add_argument(
        "--frequency-cutoffs",
        nargs=2,
        type=int,
        metavar=("TAIL", "MIDDLE"),
        help="largest numbers of training images of tail and middle classes, for their scores (default: the config's)",
    )
    parser.add_argument("--images", metavar="DIR", help="folder of the images, if they were moved after scoring")
    add_import_option(parser)
    parser.add_argument("--outside-paths", action="store_true", help="also show images outside of the image folder")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line, reads the run folders, and writes the report."""
    options = parser().parse_args(arguments)

    from tresnet_downstream.evaluation.report import write_report
    from tresnet_downstream.wording import worded

    for path in write_report(
        options.runs,
        options.out,
        options.names,
        options.resamples,
        options.thresholds,
        options.images,
        options.seed,
        progress,
        tell=lambda note: print(worded(note)),
        outside_paths=options.outside_paths,
        frequency_cutoffs=options.frequency_cutoffs,
    ):
        print(f"wrote {path}")
