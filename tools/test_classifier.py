"""Scores a classifier with one label per image: python tools/test_classifier.py CHECKPOINT --cfg-options val_images=...

CONFIG CHECKPOINT takes the validation data of a config. Model and pipeline are the checkpoint's in both.
"""

import sys
from functools import partial

from tresnet_downstream.cli.classifier import score
from tresnet_downstream.command_line import run

main = partial(score, multi_label=False)

if __name__ == "__main__":
    sys.exit(run(main))
