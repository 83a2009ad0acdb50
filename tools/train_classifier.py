"""Trains a classifier with one label per image: python tools/train_classifier.py configs/imagenet_tresnet_m_224.py."""

import sys
from functools import partial

from tresnet_downstream.cli.classifier import train
from tresnet_downstream.command_line import run

main = partial(train, multi_label=False)

if __name__ == "__main__":
    sys.exit(run(main, resumable=True))
