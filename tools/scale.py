"""Proposes a ResNet-RS for a budget of multiply-adds: python tools/scale.py --help."""

import sys

from tresnet_downstream.cli.scale import main
from tresnet_downstream.command_line import run

if __name__ == "__main__":
    sys.exit(run(main))
