"""Trains a detector: python tools/train_detection.py --help."""

import sys
from functools import partial

from tresnet_downstream.cli.tasks import DETECTION
from tresnet_downstream.cli.train import main as train
from tresnet_downstream.command_line import run

main = partial(train, task=DETECTION)

if __name__ == "__main__":
    sys.exit(run(main, resumable=True))
