"""The layers of a backbone in order, from the stem on, for layer-wise learning rates."""

import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from tresnet_downstream.errors import UserError

UNITS = ("block", "stage")
# Names of blocks in MMDetection's backbones: ResNet and its kin (layer3.0), CSPDarknet (stage3.0), Swin
# (stages.2.blocks.0; what joins two of its stages, stages.2.downsample, is the end of the earlier one).
_NAMES = (
    re.compile(r"(?:layer|stage)(\d+)\.(\d+)\."),
    re.compile(r"stages\.(\d+)\.(?:blocks\.(\d+)|downsample)\."),
)


def layer_numbers(backbone: nn.Module, unit: str = "block") -> dict[str, int]:
    """The number of the layer of each parameter, 0 for the stem, in the order of execution.

    A backbone may say it by a method ``layer_numbers(unit)`` of its own. For others it is read from the names that
    MMDetection's backbones have; there, what comes after the last block belongs to it.

    Args:
        backbone: the module.
        unit: ``block``, for a layer for each block, or ``stage``.

    Returns:
        numbers by the names of parameters, without gaps.

    Raises:
        UserError: for another unit, and for a backbone whose order is not known.
    """
    if unit not in UNITS:
        raise UserError(f"layer_decay_unit={unit!r}: choose {' or '.join(UNITS)}")
    numbered: Any = getattr(backbone, "layer_numbers", None)
    return without_gaps(dict(numbered(unit)) if numbered is not None else _by_names(backbone, unit))


def without_gaps(keys: Mapping[str, Any]) -> dict[str, int]:
    """Sorted keys of layers as numbers from 0."""
    numbers = {key: number for number, key in enumerate(sorted(set(keys.values())))}
    return {name: numbers[key] for name, key in keys.items()}


def _by_names(backbone: nn.Module, unit: str) -> dict[str, Any]:
    keys: dict[str, tuple[int, float]] = {}
    last: tuple[int, float] | None = None
    for name, _ in backbone.named_parameters():
        match = next(filter(None, (pattern.match(name) for pattern in _NAMES)), None)
        if match is not None:
            block = float("inf") if match[2] is None else float(match[2])
            last = (int(match[1]), block if unit == "block" else 0.0)
        keys[name] = (-1, 0.0) if last is None else last
    stages = sorted({stage for stage, _ in keys.values() if stage >= 0})
    if len(stages) < 2:
        raise UserError(
            f"layer_decay: the order of the layers of {type(backbone).__name__} is not known; lr_factors gives rates "
            "to parts by name, and a backbone of your own may have a method layer_numbers(unit)"
        )
    ends = {stage: max(block for s, block in keys.values() if s == stage and block < float("inf")) for stage in stages}
    return {name: (stage, min(block, ends.get(stage, block))) for name, (stage, block) in keys.items()}
