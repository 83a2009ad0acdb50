"""The parser, the exit status and the progress bar of all commands. Shared options are in `cli/options.py`."""

import argparse
import os
import select
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TextIO, TypeVar

from tresnet_downstream import interrupts, wording
from tresnet_downstream.errors import UserError
from tresnet_downstream.system_errors import NotWrittenError, chain_of, message_of, release, silence_failing_logs

T = TypeVar("T")

# Exit status of every command: 2 after a user's mistake, 130 after Ctrl-C, 1 (with a traceback) after a fault of ours.
FAULT, USER_ERROR, INTERRUPTED = 1, 2, 130
RESUMABLE = "complete files stay, and --resume continues from the last checkpoint"
# Beginnings of warnings that a user cannot avoid: MMEngine's, for configs that inherit from MMDetection and for models
# in several processes; and torch's, for 1x1 kernels with different strides of the same layout.
NOT_THE_USERS = (
    "pkg_resources is deprecated",
    "`broadcast_buffers` is deprecated",
    "Grad strides do not match bucket view strides",
)
# Parameters of the library that have another name than their option.
PARAMETERS = {"size": "input_size", "cfg_options": "options", "images": "num_images", "boxes": "num_boxes"}


class Parser(argparse.ArgumentParser):
    """A parser with examples in its help. :mod:`tresnet_downstream.wording` replaces parameters by its options.

    Args:
        args: see :class:`argparse.ArgumentParser`.
        examples: arguments for example commands in the help, such as ``"MODEL image.jpg"``.
        note: last line of the help.
        kwargs: see :class:`argparse.ArgumentParser`; the default of ``prog`` is the command that the user ran.
    """

    def __init__(self, *args: Any, examples: Sequence[str] = (), note: str = "", **kwargs: Any) -> None:
        kwargs.setdefault("prog", wording.program())
        kwargs.setdefault("formatter_class", _Formatter)
        super().__init__(*args, **kwargs)
        self.examples = examples
        self.note = note

    def format_help(self) -> str:
        """The help, followed by the examples and the note."""
        start = self.prog if wording.program() else f"python tools/{self.prog}"
        examples = "".join(f"  {start} {example}\n" for example in self.examples)
        ending = (f"\nexamples:\n{examples}" if examples else "") + (f"\n{self.note}\n" if self.note else "")
        return wording.worded(super().format_help()) + wording.worded(ending)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses the arguments; a subcommand's own parser parses the subcommand's arguments."""
        typed = set(args if args is not None else sys.argv[1:])
        for action in self._actions:
            # If an option has several names, messages show the one that the user typed.
            shown = next((option for option in action.option_strings if option in typed), None)
            for option in action.option_strings:
                name = option.lstrip("-").replace("-", "_")
                wording.name_options({name: shown or option, PARAMETERS.get(name, name): shown or option})
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Exits with usage and message; only one of several processes prints them."""
        if _is_first_to_tell():
            super().error(message)
        raise SystemExit(USER_ERROR)

    def print_help(self, file: Any = None) -> None:
        """Prints the help; only one of several processes prints it."""
        if _is_first_to_tell():
            super().print_help(file)


class _Formatter(argparse.HelpFormatter):
    """Adds the default of an option to its help, unless the help mentions it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        has_default = action.option_strings and action.default not in (None, False, [], argparse.SUPPRESS)
        if action.help is None or not has_default or "default" in action.help:
            return action.help
        shown = " ".join(map(str, action.default)) if isinstance(action.default, list) else "%(default)s"
        return f"{action.help} (default: {shown})"


def run(
    main: Callable[[Sequence[str] | None], int | None],
    arguments: Sequence[str] | None = None,
    resumable: bool = False,
    program: str | None = None,
) -> int:
    """Calls a command's ``main`` and returns its exit status: 2 and one line for a user's mistake, 130 for Ctrl-C.

    If the reader of standard output, such as ``head``, has closed the pipe, the command ends with status 0 and no
    message.

    Args:
        main: the command; returns an exit status, or None for 0.
        arguments: arguments of the command; those of the process if None.
        resumable: whether ``--resume`` can continue the command after Ctrl-C.
        program: the command as the user typed it, such as ``tresnet train``; None for a script of ``tools/``.
    """
    # Albumentations would check for a newer version in the network; this must be set before any worker starts.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    for text in NOT_THE_USERS:
        warnings.filterwarnings("ignore", message=text)
    silence_failing_logs()
    try:
        with interrupts.remembered(), wording.of_command(program):
            try:
                status = main(arguments) or 0
                sys.stdout.flush()
                return status
            except Exception as error:
                if isinstance(error, BrokenPipeError) and _is_output_closed():
                    # Without this, Python would print another error when it closes the stream.
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
            print(f"interrupted; {RESUMABLE if resumable else 'complete files stay'}", file=sys.stderr)
        return INTERRUPTED


@contextmanager
def outliving_reader() -> Iterator[None]:
    """A context in which the command continues after the reader of standard output, such as ``head``, has ended."""
    before, sys.stdout = sys.stdout, _Outliving(sys.stdout)
    try:
        yield
    finally:
        sys.stdout = before


class _Outliving:
    """Standard output that drops text after its reader has closed the pipe."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._or_drop(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._or_drop(self._stream.flush)

    def _or_drop(self, action: Callable[[], object]) -> None:
        try:
            action()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


def _is_output_closed() -> bool:
    """Whether standard output is a pipe or socket that its reader has closed. Always False on Windows."""
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    try:
        poll.register(sys.stdout, 0)  # poll always reports errors
    except (OSError, TypeError, ValueError):
        return False  # not a file of the operating system, or closed by this process
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _is_interrupt(error: BaseException) -> bool:
    return any(isinstance(link, KeyboardInterrupt) for link in chain_of(error))


def _is_first_to_tell() -> bool:
    """Whether this is the first process of a training that calls this; each calls it once, before it ends."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return True
    from tresnet_downstream.running.processes import is_first_to_fail

    return is_first_to_fail()


def is_mistake(error: BaseException) -> bool:
    """Whether an error is a user's mistake, and not a failure of the system."""
    return isinstance(error, UserError) and not isinstance(error, NotWrittenError)


def progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yields the items; on a terminal, shows a progress bar with the remaining time below other output."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(file=sys.stderr)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        yield from bar.track(items, total=total)
