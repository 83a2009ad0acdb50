"""Lists, shows, converts, downloads, shares and verifies weight files: python tools/weights.py --help."""

import sys

from tresnet_downstream.cli.weights import main
from tresnet_downstream.command_line import run

if __name__ == "__main__":
    sys.exit(run(main))
