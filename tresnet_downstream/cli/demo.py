"""Creates the sample data, trains on it, scores the best checkpoint, and writes a report."""

from collections.abc import Sequence
from pathlib import Path

from tresnet_downstream.cli import digits, predict, score, train
from tresnet_downstream.command_line import Parser
from tresnet_downstream.errors import UserError

DATA = Path("data/digits")
CONFIGS = {"classification": "digits_tresnet", "detection": "digits_retinanet_tresnet"}


def parser() -> Parser:
    """The parser of ``tresnet demo``."""
    parser = Parser(
        description=f"Creates {DATA}, trains a small network on it, scores it and writes a report. This takes a few "
        "minutes on a CPU.",
        examples=("", "detection --out work_dirs/boxes"),
        note="It needs the extra named digits; for detection also the one named detection, and mmcv's operators.",
    )
    parser.add_argument(
        "task", nargs="?", choices=CONFIGS, default="classification", help="task to train (default: classification)"
    )
    parser.add_argument("--out", metavar="DIR", help="folder for results (default: work_dirs/ and the config's name)")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line, and runs the commands digits, train, score and, for detection, predict.

    Raises:
        UserError: if one of the commands raises it.
    """
    options = parser().parse_args(arguments)
    config = CONFIGS[options.task]
    out = Path(options.out or f"work_dirs/{config}")
    digits.main(["--out", str(DATA)])
    train.main([config, "--out", str(out), "--overwrite"])
    checkpoint = _best(out)
    score.main([config, str(checkpoint), "--out", str(out), "--report", str(out / "report")])
    if options.task == "detection":
        images = [str(DATA / "val" / f"{number:06}.jpg") for number in range(1, 9)]
        predict.main([str(checkpoint), *images, "--threshold", "0.5", "--out", str(out / "drawn")])
        print(f"images with boxes are in {out / 'drawn'}")
    print(f"the report is {out / 'report' / 'report.html'}")


def _best(out: Path) -> Path:
    """The best checkpoint of a run."""
    checkpoints = sorted(out.glob("best*.pth"))
    if not checkpoints:
        raise UserError(f"{out}: the training wrote no best checkpoint")
    return checkpoints[-1]
