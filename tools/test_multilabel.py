"""Scores a checkpoint: python tools/test_multilabel.py CHECKPOINT --cfg-options val_annotations=... val_images=...

CONFIG CHECKPOINT takes the validation data of a config. Model and pipeline are the checkpoint's in both.
"""

import sys
from functools import partial

from tresnet_downstream.cli.classifier import score
from tresnet_downstream.command_line import run

main = partial(score, multi_label=True)

if __name__ == "__main__":
    sys.exit(run(main))
