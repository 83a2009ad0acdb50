"""Runs small experiments for published claims about TResNet, ASL and ML-Decoder, and writes the page of results."""

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from tresnet_downstream.command_line import Parser
from tresnet_downstream.errors import UserError


def parser() -> Parser:
    """The parser of ``tresnet reproduce``."""
    parser = Parser(
        description="Runs small experiments on real images for published claims about TResNet, ASL and ML-Decoder. "
        "Each stage can be resumed.",
        examples=(
            "--tiny-imagenet tiny --voc2007 VOCdevkit/VOC2007 --lite0 tf_efficientnet_lite0.safetensors",
            "pretraining --tiny-imagenet tiny --jobs 2",
        ),
    )
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="stages to run (default: all, in their order)")
    parser.add_argument(
        "--tiny-imagenet", metavar="DIR", help="Tiny ImageNet: train/ and val/, a folder for each class"
    )
    parser.add_argument("--voc2007", metavar="DIR", help="PASCAL VOC 2007: JPEGImages/, Annotations/ and ImageSets/")
    parser.add_argument("--lite0", metavar="FILE", help="ImageNet weights of timm's tf_efficientnet_lite0")
    parser.add_argument(
        "--out",
        default="work_dirs/reproduce",
        metavar="DIR",
        help="folder of all results (default: work_dirs/reproduce)",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="number of parallel trainings, which share the cores (default: 1)",
    )
    parser.add_argument(
        "--records", metavar="DIR", help="folder for the JSON record of each stage (default: records in --out)"
    )
    parser.add_argument(
        "--page", metavar="FILE", help="write the page of results from the records, without running a stage"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line and runs the stages, or writes the page."""
    options = parser().parse_args(arguments)

    from tresnet_downstream.files import whole_file
    from tresnet_downstream.reproduction.page import page, read_records
    from tresnet_downstream.reproduction.records import write
    from tresnet_downstream.reproduction.running import Settings, run_stage
    from tresnet_downstream.reproduction.stages import STAGES

    records = Path(options.records or Path(options.out) / "records")
    if options.page:
        if options.stages:
            raise UserError("`page` runs no stage: give either `page` or stages")
        if not records.is_dir():
            raise UserError(f"{records}: does not exist; run a stage first")
        with whole_file(options.page) as partial:
            partial.write_text(page(read_records(records)), encoding="utf-8")
        print(f"wrote {options.page}")
        return
    if unknown := [name for name in options.stages if name not in STAGES]:
        raise UserError(f"stage {unknown[0]!r} is unknown: choose among {', '.join(STAGES)}")
    if options.jobs < 1:
        raise UserError(f"`jobs`: {options.jobs}: give a whole number, at least 1")
    paths = {name: getattr(options, name) for name in ("tiny_imagenet", "voc2007", "lite0")}
    data = {name: Path(path).absolute() for name, path in paths.items() if path}
    stages = [stage for name, stage in STAGES.items() if not options.stages or name in options.stages]
    settings = Settings(data, Path(options.out).absolute(), options.jobs, lambda line: print(line, flush=True))
    with _stopped_in_order():
        for stage in stages:
            print(f"wrote {write(run_stage(stage, settings), records)}", flush=True)


@contextmanager
def _stopped_in_order() -> Iterator[None]:
    """A context in which SIGTERM stops all trainings like Ctrl-C, and a line says how to continue."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        print("stopped; run the same command again to continue from the newest checkpoints", file=sys.stderr)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
