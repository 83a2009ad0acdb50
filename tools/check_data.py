"""Checks annotations and images before a training: python tools/check_data.py --help."""

import sys

from tresnet_downstream.cli.check import main
from tresnet_downstream.command_line import run

if __name__ == "__main__":
    sys.exit(run(main))
