"""The arguments of TResNet: the sizes of a variant, and checks that raise UserError."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tresnet_downstream.errors import UserError

KINDS = ("basic", "bottleneck")


@dataclass(frozen=True)
class Variant:
    """The sizes of a TResNet.

    Attributes:
        layers: number of blocks in each of the four stages.
        width: factor on the base width of 64 channels.
        blocks: kind of the blocks, ``basic`` or ``bottleneck``, for each stage.
        slopes: negative slopes of the leaky ReLU in the stem and in the blocks. The published code uses the default
            of inplace-abn, 0.01, in the stem.

    Examples:
        >>> Variant((3, 4, 11, 3)).changed(width=1.2, blocks=("basic",) * 4)
        Variant(layers=(3, 4, 11, 3), width=1.2, blocks=('basic', 'basic', 'basic', 'basic'), slopes=(0.01, 0.001))
    """

    layers: tuple[int, ...]
    width: float = 1.0
    blocks: tuple[str, ...] = ("basic", "basic", "bottleneck", "bottleneck")
    slopes: tuple[float, float] = (1e-2, 1e-3)

    def changed(
        self,
        layers: Sequence[int] | None = None,
        width: float | None = None,
        blocks: Sequence[str] | None = None,
        slopes: Sequence[float] | None = None,
    ) -> "Variant":
        """A copy with other values for the arguments that are not None.

        Raises:
            UserError: for a wrong number of values, an unknown block, or a stage without blocks or channels.
        """
        variant = Variant(
            self.layers if layers is None else tuple(layers),
            self.width if width is None else width,
            self.blocks if blocks is None else tuple(blocks),
            self.slopes if slopes is None else tuple(slopes),  # type: ignore[arg-type]  # its length is checked below
        )
        if len(variant.layers) != 4 or len(variant.blocks) != 4 or len(variant.slopes) != 2:
            raise UserError("TResNet has four stages and two slopes: give layers and blocks 4 values each, slopes 2")
        if not all(math.isfinite(slope) for slope in variant.slopes):
            raise UserError(f"slopes={variant.slopes}: give two finite numbers")
        if unknown := set(variant.blocks) - set(KINDS):
            raise UserError(f"blocks={sorted(unknown)} is unknown: choose among {', '.join(KINDS)}")
        if min(variant.layers) < 1 or int(64 * variant.width) < 1:
            raise UserError(f"layers={variant.layers}, width={variant.width}: each stage needs a block and a channel")
        return variant


def checked_stages(out_indices: Sequence[int]) -> tuple[int, ...]:
    """The stages to return, counted from 0. Negative numbers in ``out_indices`` count from the end.

    Raises:
        UserError: for a stage that TResNet does not have, or for none.
    """
    stages = tuple(index + 4 if isinstance(index, int) and index < 0 else index for index in out_indices)
    if not stages or not set(stages) <= {0, 1, 2, 3}:
        raise UserError(f"out_indices={tuple(out_indices)}: give one or more of 0, 1, 2 and 3")
    return stages


def checked_frozen_stages(frozen_stages: int) -> int:
    """``frozen_stages`` as it is: -1 for none, 0 for the stem, ``k`` for the stem and ``k`` stages.

    Raises:
        UserError: for another number.
    """
    if not -1 <= frozen_stages <= 4:
        raise UserError(f"frozen_stages={frozen_stages}: give -1 for none, 0 for the stem, up to 4 for all")
    return frozen_stages


def checkpointed_blocks(with_cp: Any, layers: tuple[int, ...]) -> tuple[int, ...]:
    """For each stage, the number of blocks that are recomputed together in the backward pass; 0 for none.

    Raises:
        UserError: for another value than TResNet's ``with_cp`` may have.
    """
    if with_cp is True:
        # Early stages have the largest feature maps. Recomputing them saves the most memory per unit of time.
        return (layers[0], layers[1], 1, 0)
    lengths = tuple(with_cp) if isinstance(with_cp, Sequence) and not isinstance(with_cp, str) else (with_cp,) * 4
    if len(lengths) != 4 or not all(isinstance(length, int) and length >= 0 for length in lengths):
        raise UserError(f"with_cp={with_cp}: give True, False, a number of blocks, or one for each of the four stages")
    return tuple(int(length) for length in lengths)


# A leaf for torch.fx, which cannot trace a condition on a size.
@torch.fx.wrap
def check_sides(x: Tensor) -> None:
    """Raises UserError unless H and W of N x 3 x H x W images are divisible by 4 and at least 20."""
    height, width = x.shape[-2:]
    if height % 4 or width % 4 or height < 20 or width < 20:
        raise UserError(f"TResNet takes images whose sides are divisible by 4 and at least 20, got {height} x {width}")
