"""Runs a command in a new process in which torch and the packages that need it cannot be imported."""

import os
import subprocess
import sys

from running.small_data import ROOT

# None in sys.modules makes an import fail.
HEAVY = ("torch", "torchvision", "mmengine", "albumentations", "mmdet", "mmcv", "timm")
SCRIPT = """
import sys
for name in sys.argv.pop(1).split(","):
    sys.modules[name] = None
from tresnet_downstream.cli.main import main
sys.exit(main())
"""


def run_without(*arguments, more=()):
    """The finished process of ``tresnet ARGUMENTS``; ``more`` names further packages that cannot be imported."""
    words = [str(argument) for argument in arguments]
    names = ",".join((*HEAVY, *more))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, names, *words], capture_output=True, text=True, env=environment, check=False
    )
