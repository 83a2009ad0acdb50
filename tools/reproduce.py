"""Runs small experiments on real images for published claims: python tools/reproduce.py --help."""

import sys

from tresnet_downstream.cli.reproduce import main
from tresnet_downstream.command_line import run

if __name__ == "__main__":
    sys.exit(run(main, resumable=True))
