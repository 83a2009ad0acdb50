"""Trains a joint model: python tools/train_joint.py --help."""

import sys
from functools import partial

from tresnet_downstream.cli.tasks import JOINT
from tresnet_downstream.cli.train import main as train
from tresnet_downstream.command_line import run

main = partial(train, task=JOINT)

if __name__ == "__main__":
    sys.exit(run(main, resumable=True))
