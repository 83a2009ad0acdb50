"""Scores a joint model: python tools/test_joint.py --help."""

import sys
from functools import partial

from tresnet_downstream.cli.score import main as score
from tresnet_downstream.cli.tasks import JOINT
from tresnet_downstream.command_line import run

main = partial(score, task=JOINT)

if __name__ == "__main__":
    sys.exit(run(main))
