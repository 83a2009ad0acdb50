"""What the tools share: options, and how they end."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from tresnet_downstream.errors import UserError

# Whatever the command was, 2 is the user's mistake and 130 is Ctrl-C.
USER_ERROR, INTERRUPTED = 2, 130


def run(main: Callable[[Sequence[str] | None], None], arguments: Sequence[str] | None = None) -> int:
    """Calls a tool's ``main`` and gives its exit status: a user's mistake is one line and 2, Ctrl-C is 130."""
    # Set here, before any worker starts: Albumentations otherwise asks the network for a newer version.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        main(arguments)
    except UserError as error:
        print(f"error: {_innermost(error)}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("interrupted; checkpoints that are complete stay, --resume goes on from the last", file=sys.stderr)
        return INTERRUPTED
    return 0


def _innermost(error: BaseException) -> str:
    """The message as it was raised: MMEngine's registries raise it again with their own words before it."""
    message = str(error)
    while error.__context__ is not None:
        error = error.__context__
        if isinstance(error, UserError) and message.endswith(str(error)):
            message = str(error)
    # From a data loader's worker the message comes with that process's traceback before it.
    last_line = message.strip().splitlines()[-1]
    return last_line.rpartition("Error: ")[2] if "Original Traceback" in message else " ".join(message.split())


def config_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the options that every tool has that reads a config."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("config", help="a file of configs/")
    parser.add_argument("--work-dir", help="where results go; work_dirs/ and the config's name by default")
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
