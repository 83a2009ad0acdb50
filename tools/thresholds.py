"""Chooses thresholds on a scored run: python tools/thresholds.py --help."""

import sys

from tresnet_downstream.cli.thresholds import main
from tresnet_downstream.command_line import run

if __name__ == "__main__":
    sys.exit(run(main))
