"""Scores a multi-label classifier: python tools/test_multilabel.py --help."""

import sys
from functools import partial

from tresnet_downstream.cli.score import main as score
from tresnet_downstream.cli.tasks import MULTILABEL
from tresnet_downstream.command_line import run

main = partial(score, task=MULTILABEL)

if __name__ == "__main__":
    sys.exit(run(main))
