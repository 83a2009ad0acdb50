"""What the tools share: options, and how they end."""

import argparse
import importlib.util
import os
import select
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from tresnet_downstream import interrupts, wording
from tresnet_downstream.errors import UserError
from tresnet_downstream.system_errors import NotWrittenError, chain_of, message_of, release, silence_failing_logs

T = TypeVar("T")

# Whatever the command was, 2 is the user's mistake, 130 is Ctrl-C and 1, with a traceback, a fault of the toolkit.
FAULT, USER_ERROR, INTERRUPTED = 1, 2, 130
RESUMABLE = "files that are complete stay, and --resume goes on from the last checkpoint"
# Beginnings of warnings that a user can do nothing about: MMEngine's, where a config inherits from MMDetection or wraps
# a model for several processes; and torch's, where it compares strides of 1x1 kernels that mean the same layout.
NOT_THE_USERS = (
    "pkg_resources is deprecated",
    "`broadcast_buffers` is deprecated",
    "Grad strides do not match bucket view strides",
)
# What the library calls options that have another name here.
PARAMETERS = {"size": "input_size", "cfg_options": "options", "images": "num_images", "boxes": "num_boxes"}


class Parser(argparse.ArgumentParser):
    """A parser by whose options the library's messages name parameters, see :mod:`tresnet_downstream.wording`."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses the arguments; those of a subcommand are parsed by its own parser."""
        for option in (option for action in self._actions for option in action.option_strings):
            name = option.lstrip("-").replace("-", "_")
            wording.name_options({name: option, PARAMETERS.get(name, name): option})
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Ends with usage and message, which one of several processes prints."""
        if _is_first_to_tell():
            super().error(message)
        raise SystemExit(USER_ERROR)

    def print_help(self, file: Any = None) -> None:
        """Prints the help; of several processes, one does."""
        if _is_first_to_tell():
            super().print_help(file)


def run(
    main: Callable[[Sequence[str] | None], int | None], arguments: Sequence[str] | None = None, resumable: bool = False
) -> int:
    """Calls a tool's ``main`` and gives its exit status: a user's mistake is one line and 2, Ctrl-C is 130.

    If the reader of standard output, such as ``head``, has closed it, the tool ends without a message and with 0.

    Args:
        main: the tool; may give an exit status, and None is 0.
        arguments: of its command line; those of the process if None.
        resumable: whether ``--resume`` goes on where Ctrl-C ended it.
    """
    # Set here, before any worker starts: Albumentations otherwise asks the network for a newer version.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    for text in NOT_THE_USERS:
        warnings.filterwarnings("ignore", message=text)
    silence_failing_logs()
    try:
        with interrupts.remembered(), wording.of_command():
            try:
                status = main(arguments) or 0
                sys.stdout.flush()
                return status
            except Exception as error:
                if isinstance(error, BrokenPipeError) and _is_output_closed():
                    # Python would complain once more as it closes the stream.
                    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                    return 0
                message = message_of(error)
                if message is None and (_is_interrupt(error) or _is_first_to_tell()):
                    raise
                if message is None:
                    return FAULT
                if _is_first_to_tell():
                    more = f"; {RESUMABLE}" if resumable and not is_mistake(error) else ""
                    print(f"error: {wording.worded(message + more)}", file=sys.stderr)
                release(error)
                return USER_ERROR
    except KeyboardInterrupt:
        if _is_first_to_tell():
            print(f"interrupted; {RESUMABLE if resumable else 'files that are complete stay'}", file=sys.stderr)
        return INTERRUPTED


def _is_output_closed() -> bool:
    """Whether standard output is a pipe or socket whose reader has closed it. Not known on Windows: False."""
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    try:
        poll.register(sys.stdout, 0)  # poll always reports errors
    except (OSError, TypeError, ValueError):
        return False  # no file of the system, or closed by this process
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _is_interrupt(error: BaseException) -> bool:
    return any(isinstance(link, KeyboardInterrupt) for link in chain_of(error))


def _is_first_to_tell() -> bool:
    """Whether no other process of a training asked before; each asks once, before it ends."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return True
    from tresnet_downstream.running.processes import is_first_to_fail

    return is_first_to_fail()


def is_mistake(error: BaseException) -> bool:
    """Whether a user's mistake is told, rather than a failure of the system."""
    return isinstance(error, UserError) and not isinstance(error, NotWrittenError)


def read_config(options: argparse.Namespace) -> Any:
    """The config that the parsed command line asks for, with its changes, ``--amp`` among them, and a work dir."""
    from tresnet_downstream.running.config import load_config

    config = load_config(options.config, [*options.cfg_options, *([f"amp={options.amp}"] if options.amp else [])])
    config.work_dir = options.work_dir or str(Path("work_dirs") / Path(options.config).stem)
    return config


def config_parser(description: str) -> Parser:
    """A parser with the options that every tool has that reads a config."""
    parser = Parser(description=description)
    parser.add_argument("config", help="a file of configs/")
    add_import_option(parser)
    parser.add_argument(
        "--work-dir",
        help="where results go; by default work_dirs/ and the name of the config, or of the checkpoint's folder "
        "if a checkpoint is scored without a config",
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="changes to the config, such as data_root=/data/coco image_size=224",
    )
    parser.add_argument(
        "--amp",
        nargs="?",
        const="bfloat16",
        choices=["bfloat16", "float16"],
        help="mixed precision; bfloat16 if no type is named",
    )
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch"],
        default="none",
        help="pytorch under torchrun; one process by default",
    )
    return parser


def add_import_option(parser: argparse.ArgumentParser) -> None:
    """The option of tools that build networks, for parts of the user's own."""
    parser.add_argument(
        "--import",
        action=_Import,
        dest="imported",
        metavar="FILE",
        help="a Python file of yours that registers parts, such as a head; is run first, and may be given again",
    )


class _Import(argparse.Action):
    """Imports the file as soon as the command line is read: whatever is built after that may name its parts."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        _import_file(values)


def _import_file(path: str) -> None:
    """Runs a file of the user's, once, as the module that its name says."""
    file = Path(path)
    name = file.stem
    known = getattr(sys.modules.get(name), "__file__", None)
    if known is not None and file.is_file() and file.samefile(known):
        return
    if not file.is_file() or file.suffix != ".py":
        raise UserError(f"--import {path}: no such Python file")
    if name in sys.modules or not name.isidentifier():
        raise UserError(f"--import {path}: {name} is the name of another module, or none; rename the file")
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Named as by an import statement: worker processes that are started anew find it so.
    sys.path.append(str(file.resolve().parent))
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"--import {path}: {type(error).__name__}: {error}") from error


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The options of tools that load a weight file."""
    add_import_option(parser)
    parser.add_argument("--variant", help="of the backbone, for a check; the file's shapes decide")
    parser.add_argument(
        "--slopes",
        type=float,
        nargs=2,
        metavar=("STEM", "BLOCKS"),
        help="negative slopes of the leaky ReLU; they cannot be inferred from tensor shapes",
    )
    parser.add_argument("--weights", choices=["raw", "averaged"], help="by default those that scored better")
    parser.add_argument("--size", type=int, metavar="PIXELS", help="side of the pictures, in place of the file's")
    parser.add_argument("--network", metavar="NAME", help="timm's name of the network that a file of timm is of")


def model_options(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of ``load_model`` that :func:`add_model_options` parsed."""
    return {
        "variant": options.variant,
        "slopes": options.slopes,
        "weights": options.weights,
        "input_size": options.size,
        "network": options.network,
    }


def add_mirror_option(parser: argparse.ArgumentParser) -> None:
    """The option of tools that predict with classifiers."""
    parser.add_argument(
        "--tta",
        action="store_true",
        help="test-time augmentation: the mean of the probabilities of each image and its mirror image",
    )


def add_report_option(parser: argparse.ArgumentParser) -> None:
    """The option of tools that score."""
    parser.add_argument("--report", metavar="DIR", help="writes a report there: report.html and the same as Markdown")


def write_report_of(folder: Path, out: str | None) -> None:
    """Writes the report of a run folder, if one is asked for, and says where it is."""
    if out is None:
        return
    from tresnet_downstream.evaluation import write_report

    for path in write_report(folder, out, track=progress, tell=print):
        print(f"wrote {path}")


def best_device(name: str | None) -> str:
    """The device asked for, or else the first GPU, or else the CPU.

    Raises:
        UserError: if torch does not know it, or has none such here.
    """
    import torch

    device = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {device}: {str(error).splitlines()[0]}") from error
    return device


def progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Passes items on; on a terminal a bar with the time left stands below what is printed meanwhile."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(file=sys.stderr)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        yield from bar.track(items, total=total)
