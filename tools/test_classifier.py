"""Scores a classifier with one label per image: python tools/test_classifier.py --help."""

import sys
from functools import partial

from tresnet_downstream.cli.score import main as score
from tresnet_downstream.cli.tasks import CLASSIFIER
from tresnet_downstream.command_line import run

main = partial(score, task=CLASSIFIER)

if __name__ == "__main__":
    sys.exit(run(main))
