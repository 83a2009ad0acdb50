"""How a training step of TResNet keeps little memory, with the results of the plain modules."""

from tresnet_downstream.backbones.lean.execution import foreign_part, plain_blocks, run_blocks

__all__ = ["foreign_part", "plain_blocks", "run_blocks"]
