"""Measures speed and memory beside other networks."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tresnet_downstream.cli.options import add_device_option, best_device
from tresnet_downstream.command_line import Parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line and calls the command."""
    options = parser().parse_args(arguments)
    options.command(options)


def parser() -> Parser:
    """The parser of ``tresnet benchmark``."""
    parser = Parser(
        description="Measures speed and memory against what people use otherwise; whatever is compared takes turns.",
        examples=("networks tresnet_m resnet50 --batch-size 4", "pictures photos --size 448"),
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_networks(commands)
    _add_exported(commands)
    _add_exported_detector(commands)
    _add_pictures(commands)
    _add_start_up(commands)
    _add_detection_scoring(commands)
    _add_joint(commands)
    return parser


def _add_networks(commands: "argparse._SubParsersAction[Parser]") -> None:
    command = commands.add_parser("networks", help="networks in training and inference, with a plot against accuracy")
    command.add_argument(
        "networks", nargs="*", metavar="NETWORK", help="tresnet_m, timm_tresnet_m and resnet50 by default; or all"
    )
    command.add_argument(
        "--tasks", nargs="+", default=["training", "inference"], metavar="TASK", help="training, inference"
    )
    command.add_argument(
        "--types", nargs="+", default=["float32"], metavar="TYPE", help="float32, bfloat16, float16 (a GPU's)"
    )
    command.add_argument(
        "--forms", nargs="+", default=["eager"], metavar="FORM", help="eager, compiled, fused (TResNet's inference)"
    )
    command.add_argument(
        "--sizes",
        nargs="+",
        default=["224"],
        metavar="PIXELS",
        help="sides of the images; published takes the size of each network's published score",
    )
    command.add_argument("--batch-size", type=int, metavar="N", default=8, help="images per batch")
    command.add_argument(
        "--repeats", type=int, default=9, metavar="N", help="timed steps of each candidate, after one to warm up"
    )
    command.add_argument("--peer", metavar="NETWORK", help="network whose eager form is the unit of speed")
    command.add_argument(
        "--largest-batch",
        action="store_true",
        help="find the largest batch that fits, by bisection; on a CPU by arithmetic",
    )
    add_device_option(command)
    command.add_argument("--out", metavar="DIR", help="folder for table.md, table.json and plot.png")
    command.set_defaults(command=_networks)


def _add_exported(commands: "argparse._SubParsersAction[Parser]") -> None:
    command = commands.add_parser("exported", help="TResNet-M fused and exported, against timm's, on the CPU")
    command.add_argument("--size", type=int, default=224, metavar="PIXELS", help="side of the images")
    command.add_argument("--batch-size", type=int, metavar="N", default=8, help="images per batch")
    command.add_argument("--repeats", type=int, metavar="N", default=9, help="timed rounds")
    command.set_defaults(command=_exported)


def _add_exported_detector(commands: "argparse._SubParsersAction[Parser]") -> None:
    command = commands.add_parser("exported-detector", help="a detector exported, against MMDetection's, on the CPU")
    command.add_argument("checkpoint", metavar="CHECKPOINT", help="of a detector")
    command.add_argument("images", nargs="+", metavar="IMAGE", help="pictures or folders, to calibrate int8 with")
    command.add_argument("--batch-size", type=int, metavar="N", default=1, help="images per batch")
    command.add_argument("--repeats", type=int, metavar="N", default=9, help="timed rounds")
    command.set_defaults(command=_exported_detector)


def _add_pictures(commands: "argparse._SubParsersAction[Parser]") -> None:
    command = commands.add_parser("pictures", help="from JPEG files to the device, against the ASL release's way")
    command.add_argument("images", nargs="+", metavar="PATH", help="JPEG files, or folders of them")
    command.add_argument("--size", type=int, default=448, metavar="PIXELS", help="side of the images")
    command.add_argument("--repeats", type=int, metavar="N", default=9, help="timed rounds")
    command.set_defaults(command=_pictures)


def _add_start_up(commands: "argparse._SubParsersAction[Parser]") -> None:
    command = commands.add_parser("start-up", help="of a training with annotations of MS-COCO's size")
    command.add_argument("--repeats", type=int, metavar="N", default=5, help="timed rounds")
    command.set_defaults(command=_start_up)


def _add_detection_scoring(commands: "argparse._SubParsersAction[Parser]") -> None:
    command = commands.add_parser("detection-scoring", help="COCO's twelve numbers, against pycocotools")
    command.add_argument("--images", type=int, metavar="N", default=2_000, help="number of images")
    command.add_argument("--boxes", type=int, metavar="N", default=166_056, help="number of predicted boxes")
    command.add_argument("--repeats", type=int, metavar="N", default=3, help="timed rounds")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the boxes")
    command.set_defaults(command=_detection_scoring)


def _add_joint(commands: "argparse._SubParsersAction[Parser]") -> None:
    command = commands.add_parser("joint", help="labels and boxes in one pass, against the detector alone, on the CPU")
    command.add_argument("checkpoint", help="of a network for labels and boxes")
    command.add_argument("--size", type=int, default=128, metavar="PIXELS", help="side of the images")
    command.add_argument("--batch-size", type=int, metavar="N", default=8, help="images per batch")
    command.add_argument("--repeats", type=int, metavar="N", default=15, help="timed rounds")
    command.set_defaults(command=_joint)


def _networks(options: argparse.Namespace) -> None:
    device_name = best_device(options.device)

    from tresnet_downstream.benchmark.cases import groups
    from tresnet_downstream.benchmark.devices import device_named
    from tresnet_downstream.benchmark.machine import machine, versions
    from tresnet_downstream.benchmark.measure import measure
    from tresnet_downstream.benchmark.networks import SHORT_FORM
    from tresnet_downstream.benchmark.plot import draw_speed_accuracy
    from tresnet_downstream.benchmark.tables import PLOT, markdown, write_tables
    from tresnet_downstream.evaluation.result_files import write_files

    device = device_named(device_name)
    if options.out:
        write_files(options.out, {})  # Whether it can be, before an hour of measuring.
    names = options.networks or SHORT_FORM
    wanted = groups(names, options.tasks, options.types, options.forms, options.sizes, options.batch_size, device.kind)
    results = measure(wanted, device, options.repeats, options.peer, options.largest_batch, _tell)
    about = {**device.describe(), **machine(), **versions()}
    print(markdown(results, about, options.peer), end="")
    if options.out:
        written = write_tables(results, about, options.peer, options.out)
        plot = Path(options.out, PLOT)
        if draw_speed_accuracy(results, plot):
            written.append(plot)
        for path in written:
            print(f"wrote {path}")


def _exported(options: argparse.Namespace) -> None:
    from tresnet_downstream.benchmark.exported_models import compare_exported, markdown

    _print_machine()
    print(markdown(compare_exported(options.size, options.batch_size, options.repeats, _tell)), end="")


def _exported_detector(options: argparse.Namespace) -> None:
    from tresnet_downstream.benchmark.exported_detectors import PEER, compare_exported_detector
    from tresnet_downstream.benchmark.exported_models import markdown

    rows = compare_exported_detector(options.checkpoint, options.images, options.batch_size, options.repeats, _tell)
    _print_machine()
    print(markdown(rows, PEER), end="")


def _pictures(options: argparse.Namespace) -> None:
    from tresnet_downstream.benchmark.pictures import compare_pipelines

    total = options.repeats + 1
    compared = compare_pipelines(
        options.images, options.size, options.repeats, lambda done: _tell(f"round {done} of {total}")
    )
    _print_machine()
    print(compared.markdown(), end="")


def _start_up(options: argparse.Namespace) -> None:
    import tempfile

    from tresnet_downstream.benchmark.start_up import start_up

    _print_machine()
    with tempfile.TemporaryDirectory() as folder:
        print(start_up(Path(folder), options.repeats))


def _detection_scoring(options: argparse.Namespace) -> None:
    from tresnet_downstream.benchmark.detection_scoring import compare_scoring

    _print_machine()
    print(compare_scoring(options.images, options.boxes, options.repeats, options.seed, _tell).markdown(), end="")


def _joint(options: argparse.Namespace) -> None:
    from tresnet_downstream.benchmark.joint_pass import compare_joint, markdown

    rows = compare_joint(options.checkpoint, options.size, options.batch_size, options.repeats, _tell)
    _print_machine()
    print(markdown(rows), end="")


def _print_machine() -> None:
    from tresnet_downstream.benchmark.machine import machine, versions

    print("; ".join(f"{key}: {value}" for key, value in {**machine(), **versions()}.items()), end="\n\n")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
