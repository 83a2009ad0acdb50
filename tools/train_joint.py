"""Trains one network for labels and boxes: python tools/train_joint.py CONFIG."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from tresnet_downstream.cli.detector import train
from tresnet_downstream.command_line import run


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains."""
    train(arguments, "Trains one network for labels and boxes.", _train_joint)


def _train_joint() -> Callable[..., dict[str, Any]]:
    from tresnet_downstream.joint.training import train_joint

    return train_joint


if __name__ == "__main__":
    sys.exit(run(main, resumable=True))
