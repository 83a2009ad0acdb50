"""Chooses thresholds for the classes on a scored run."""

from collections.abc import Sequence

from tresnet_downstream.command_line import Parser, progress


def parser() -> Parser:
    """The parser of ``tresnet thresholds``."""
    parser = Parser(
        description="Chooses thresholds on a scored run. tresnet predict and tresnet report read them with "
        "--thresholds.",
        examples=(
            "work_dirs/digits_tresnet --out thresholds.json",
            "work_dirs/digits_tresnet --objective precision=0.9 --out thresholds.json",
        ),
    )
    parser.add_argument("run", metavar="RUN", help="folder of a scored run")
    parser.add_argument(
        "--objective",
        default="f1",
        metavar="NAME",
        help="f1, precision=0.9 (largest recall with at least this precision) or recall=0.9 (largest precision)",
    )
    parser.add_argument(
        "--scope",
        choices=["per-class", "global"],
        default="per-class",
        help="a threshold for each class, or one threshold for all classes",
    )
    parser.add_argument(
        "--apply", nargs="+", default=[], metavar="RUN", help="folders of runs on which the thresholds are measured"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="file to write, such as thresholds.json")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line, chooses thresholds, prints their scores and writes them."""
    options = parser().parse_args(arguments)

    from tresnet_downstream.evaluation.run_thresholds import format_judgement, notes_on, thresholds_for
    from tresnet_downstream.evaluation.threshold_curves import Objective
    from tresnet_downstream.evaluation.thresholds import require_place, write_thresholds

    require_place(options.out)
    thresholds = thresholds_for(options.run, Objective.parse(options.objective), options.scope, progress)
    for block in [format_judgement(folder, thresholds) for folder in (options.run, *options.apply)]:
        print(f"{block}\n")
    for note in notes_on(thresholds):
        print(note)
    write_thresholds(thresholds, options.out)
    print(f"wrote {options.out}")
