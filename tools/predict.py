"""Predicts labels or boxes of images, with a checkpoint or an exported model: python tools/predict.py --help."""

import sys

from tresnet_downstream.cli.predict import main
from tresnet_downstream.command_line import run

if __name__ == "__main__":
    sys.exit(run(main))
