"""Trains the model of a config, for any task; ``mim train tresnet_downstream CONFIG`` runs this script."""

import sys

from tresnet_downstream.cli.train import main
from tresnet_downstream.command_line import run

if __name__ == "__main__":
    sys.exit(run(main, resumable=True))
