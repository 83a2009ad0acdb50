"""Writes a report on one or more scored runs: python tools/report.py --help."""

import sys

from tresnet_downstream.cli.report import main
from tresnet_downstream.command_line import run

if __name__ == "__main__":
    sys.exit(run(main))
