"""Trains a multi-label classifier: python tools/train_multilabel.py configs/coco_tresnet_l_448.py."""

import sys
from functools import partial

from tresnet_downstream.cli.tasks import MULTILABEL
from tresnet_downstream.cli.train import main as train
from tresnet_downstream.command_line import run

main = partial(train, task=MULTILABEL)

if __name__ == "__main__":
    sys.exit(run(main, resumable=True))
