"""Measures speed and memory beside other networks: python tools/benchmark.py --help."""

import sys

from tresnet_downstream.cli.benchmark import main
from tresnet_downstream.command_line import run

if __name__ == "__main__":
    sys.exit(run(main))
