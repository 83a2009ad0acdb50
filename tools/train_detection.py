"""Trains a detector: python tools/train_detection.py configs/retinanet_tresnet_m.py."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from tresnet_downstream.cli.detector import train
from tresnet_downstream.command_line import run


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains."""
    train(arguments, "Trains a detector.", _train_detection)


def _train_detection() -> Callable[..., dict[str, Any]]:
    from tresnet_downstream.detection.training import train_detection

    return train_detection


if __name__ == "__main__":
    sys.exit(run(main, resumable=True))
