"""Compares explanation maps with annotated boxes: python tools/check_maps.py --help."""

import sys

from tresnet_downstream.cli.maps import main
from tresnet_downstream.command_line import run

if __name__ == "__main__":
    sys.exit(run(main))
