"""Measures speed and memory in comparison with other networks."""

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
        description="Compares speed and memory with those of the alternatives; the candidates are measured in turn.",
        examples=("networks tresnet_m resnet50 --batch-size 4", "exported --size 448"),
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_networks(commands)
    _add_exported(commands)
    _add_exported_detector(commands)
    _add_joint(commands)
    return parser


def _add_networks(commands: "argparse._SubParsersAction[Parser]") -> None:
    command = commands.add_parser(
        "networks", help="compares networks in training and inference, and plots speed over accuracy"
    )
    command.add_argument(
        "networks",
        nargs="*",
        metavar="NETWORK",
        help="networks to compare, or all (default: tresnet_m, timm_tresnet_m, resnet50)",
    )
    command.add_argument(
        "--tasks",
        nargs="+",
        default=["training", "inference"],
        metavar="TASK",
        help="training, inference (default: both)",
    )
    command.add_argument(
        "--types", nargs="+", default=["float32"], metavar="TYPE", help="float32, bfloat16, float16 (only on a GPU)"
    )
    command.add_argument(
        "--forms",
        nargs="+",
        default=["eager"],
        metavar="FORM",
        help="eager, compiled, fused (only inference of TResNet)",
    )
    command.add_argument(
        "--sizes",
        nargs="+",
        default=["224"],
        metavar="PIXELS",
        help="sides of the images; published means the size of each network's published score",
    )
    command.add_argument("--batch-size", type=int, metavar="N", default=8, help="images per batch")
    command.add_argument(
        "--repeats", type=int, default=9, metavar="N", help="timed steps of each candidate, after one warm-up step"
    )
    command.add_argument(
        "--peer", metavar="NETWORK", help="reference network: all speeds are divided by the speed of its eager form"
    )
    command.add_argument(
        "--largest-batch",
        action="store_true",
        help="find the largest batch that fits into memory, by bisection; on a CPU, estimate it",
    )
    add_device_option(command)
    command.add_argument("--out", metavar="DIR", help="folder for table.md, table.json and plot.png")
    command.set_defaults(command=_networks)


def _add_exported(commands: "argparse._SubParsersAction[Parser]") -> None:
    command = commands.add_parser("exported", help="compares TResNet-M, fused and exported, with timm's, on the CPU")
    command.add_argument("--size", type=int, default=224, metavar="PIXELS", help="side of the images")
    command.add_argument("--batch-size", type=int, metavar="N", default=8, help="images per batch")
    command.add_argument("--repeats", type=int, metavar="N", default=9, help="timed rounds")
    command.set_defaults(command=_exported)


def _add_exported_detector(commands: "argparse._SubParsersAction[Parser]") -> None:
    command = commands.add_parser(
        "exported-detector", help="compares an exported detector with MMDetection's, on the CPU"
    )
    command.add_argument("checkpoint", metavar="CHECKPOINT", help="checkpoint of a detector")
    command.add_argument("images", nargs="+", metavar="IMAGE", help="images or folders for the calibration of int8")
    command.add_argument("--batch-size", type=int, metavar="N", default=1, help="images per batch")
    command.add_argument("--repeats", type=int, metavar="N", default=9, help="timed rounds")
    command.set_defaults(command=_exported_detector)


def _add_joint(commands: "argparse._SubParsersAction[Parser]") -> None:
    command = commands.add_parser("joint", help="compares a joint model with the detector alone, on the CPU")
    command.add_argument("checkpoint", help="checkpoint of a joint model, which gives labels and boxes")
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
        write_files(options.out, {})  # raises now, not after an hour of measuring
    names = options.networks or SHORT_FORM
    cases = groups(names, options.tasks, options.types, options.forms, options.sizes, options.batch_size, device.kind)
    results = measure(cases, device, options.repeats, options.peer, options.largest_batch, _tell)
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


def _joint(options: argparse.Namespace) -> None:
    from tresnet_downstream.benchmark.joint_pass import compare_joint, markdown

    rows = compare_joint(options.checkpoint, options.size, options.batch_size, options.repeats, _tell)
    _print_machine()
    print(markdown(rows), end="")


def _print_machine() -> None:
    from tresnet_downstream.benchmark.machine import machine_line

    print(machine_line(), end="\n\n")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
