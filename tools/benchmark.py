"""Measures speed and memory in comparison with other networks: python tools/benchmark.py --help."""

import sys

from tresnet_downstream.cli.benchmark import main
from tresnet_downstream.command_line import run

if __name__ == "__main__":
    sys.exit(run(main))
