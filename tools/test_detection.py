"""Scores a detector: python tools/test_detection.py --help."""

import sys
from functools import partial

from tresnet_downstream.cli.score import main as score
from tresnet_downstream.cli.tasks import DETECTION
from tresnet_downstream.command_line import run

main = partial(score, task=DETECTION)

if __name__ == "__main__":
    sys.exit(run(main))
