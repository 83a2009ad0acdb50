"""Training steps of TResNet that need less memory and have the results of the plain modules."""

from tresnet_downstream.backbones.lean.execution import foreign_part, plain_blocks, run_blocks
from tresnet_downstream.backbones.lean.rules import has_hooks

__all__ = ["foreign_part", "has_hooks", "plain_blocks", "run_blocks"]
