"""Calibrates label probabilities on a scored run: python tools/calibrate.py --help."""

import sys

from tresnet_downstream.cli.calibrate import main
from tresnet_downstream.command_line import run

if __name__ == "__main__":
    sys.exit(run(main))
