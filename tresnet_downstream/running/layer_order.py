"""The layers of a backbone in order, from the stem on, for layer-wise learning rates."""

import re
from collections.abc import Mapping

from torch import nn

from tresnet_downstream.errors import UserError

UNITS = ("block", "stage")
# Names of blocks in MMDetection's backbones: ResNets (layer3.0), CSPDarknet (stage3.0) and Swin (stages.2.blocks.0;
# stages.2.downsample belongs to the end of stage 2).
_NAMES = (
    re.compile(r"(?:layer|stage)(\d+)\.(\d+)\."),
    re.compile(r"stages\.(\d+)\.(?:blocks\.(\d+)|downsample)\."),
)


def layer_numbers(backbone: nn.Module, unit: str = "block") -> dict[str, int]:
    """The layer number of each parameter, in the order of execution; the stem has number 0.

    If the backbone has a method ``layer_numbers(unit)``, that method gives the numbers. For other backbones they are
    derived from the parameter names of MMDetection's backbones; parameters after the last block belong to that block.

    Args:
        backbone: the module.
        unit: ``block`` for one layer per block, or ``stage``.

    Returns:
        layer numbers by parameter name, without gaps.

    Raises:
        UserError: if the unit is unknown, or the order of the backbone's layers is unknown.
    """
    if unit not in UNITS:
        raise UserError(f"layer_decay_unit={unit!r}: choose {' or '.join(UNITS)}")
    numbered = getattr(backbone, "layer_numbers", None)
    return without_gaps(dict(numbered(unit)) if numbered is not None else _by_names(backbone, unit))


def without_gaps(keys: Mapping[str, tuple[float, ...]]) -> dict[str, int]:
    """Replaces sortable keys of layers by consecutive numbers from 0.

    Examples:
        >>> without_gaps({"stem": (0, 0), "block": (2, 1), "last": (2, 3)})
        {'stem': 0, 'block': 1, 'last': 2}
    """
    numbers = {key: number for number, key in enumerate(sorted(set(keys.values())))}
    return {name: numbers[key] for name, key in keys.items()}


def _by_names(backbone: nn.Module, unit: str) -> dict[str, tuple[float, ...]]:
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
            f"layer_decay: the order of the layers of {type(backbone).__name__} is not known; set learning rates of "
            "parts by name with lr_factors or, for your own backbone, add a method layer_numbers(unit)"
        )
    ends = {stage: max(block for s, block in keys.values() if s == stage and block < float("inf")) for stage in stages}
    return {name: (stage, min(block, ends.get(stage, block))) for name, (stage, block) in keys.items()}
