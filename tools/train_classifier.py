"""Trains a classifier with one label per image: python tools/train_classifier.py --help."""

import sys
from functools import partial

from tresnet_downstream.cli.tasks import CLASSIFIER
from tresnet_downstream.cli.train import main as train
from tresnet_downstream.command_line import run

main = partial(train, task=CLASSIFIER)

if __name__ == "__main__":
    sys.exit(run(main, resumable=True))
