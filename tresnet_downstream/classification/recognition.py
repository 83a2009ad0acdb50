"""Which network a state dict is of: sizes and heads from names and shapes, and the nearest one if it is of none."""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tresnet_downstream.backbones import VARIANTS, TResNet, Variant, variant_name
from tresnet_downstream.errors import UserError
from tresnet_downstream.registry import MODELS
from tresnet_downstream.weights.formats import OURS, RELEASE, TIMM, to_release, to_timm
from tresnet_downstream.weights.head_names import head_type

STYLES = {
    RELEASE: "TResNet, ASL or ML-Decoder release",
    TIMM: "timm",
    OURS: "tresnet-downstream",
}


_NOTHING: Mapping[str, Any] = MappingProxyType({})


class NoNumbers(TorchFunctionMode):
    """Leaves out random initialisation, which on the meta device does nothing and takes a second to find that out."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.normal_ or getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def backbone_config(state_dict: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """The backbone that weights under our names are of, without its slopes; None if it is no TResNet.

    Blocks per stage and their kind follow from the names, the width from the stem's shape.
    """
    blocks: dict[str, set[str]] = {}
    for name in state_dict:
        _, stage, block, *_ = [*name.split("."), "", ""]
        if stage.startswith("layer") and block.isdigit():
            blocks.setdefault(stage, set()).add(block)
    stem = state_dict["backbone.stem.conv.weight"]
    if sorted(blocks) != ["layer1", "layer2", "layer3", "layer4"] or stem.dim() != 4 or stem.shape[1] != 48:
        return None
    kinds = ("basic", "bottleneck")
    sizes = Variant(
        tuple(len(blocks[stage]) for stage in sorted(blocks)),
        stem.shape[0] / 64,
        tuple(kinds[f"backbone.{stage}.0.conv3.weight" in state_dict] for stage in sorted(blocks)),
    )
    for known in VARIANTS.values():
        # The published widths are rounded down to whole channels.
        if int(64 * known.width) == stem.shape[0]:
            sizes = replace(sizes, width=known.width)
            break
    name = variant_name(sizes)
    if name != "custom":
        return {"type": "TResNet", "variant": name}
    return {
        "type": "TResNet",
        "variant": name,
        "layers": sizes.layers,
        "width": sizes.width,
        "blocks": sizes.blocks,
    }


def head_config(
    state_dict: Mapping[str, Tensor], path: str | Path, stored: Mapping[str, Any] = _NOTHING
) -> dict[str, Any] | None:
    """The head that weights under our names are of; None if there is none.

    Args:
        state_dict: the weights.
        path: of their file, for messages.
        stored: arguments that a file states beside its weights. Used for those that shapes do not tell, such as
            ML-Decoder's ``num_heads``; a file without them has the head's defaults.

    Raises:
        UserError: tensors of the head are missing, or have another number of dimensions.
    """
    kind = head_type(state_dict)
    if kind is None:
        return None
    head: Any = MODELS.get(kind)
    below = {name.removeprefix("head."): tensor for name, tensor in state_dict.items() if name.startswith("head.")}
    try:
        config = {"type": kind, **head.arguments_from(below)}
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(f"{path}: its head is no whole {kind} ({type(error).__name__}: {error})") from error
    others = inspect.signature(head).parameters.keys() - {"in_channels", *config}
    return config | {name: value for name, value in stored.items() if name in others and type(value) in (int, float)}


def nearest_network(tensors: Iterable[str]) -> str:
    """Which known network's names are most like those given, and three that differ."""
    present = set(tensors)
    best: tuple[float, str, set[str]] = (-1.0, "", set())
    for name in VARIANTS:
        with torch.device("meta"), NoNumbers():
            backbone = TResNet(name)
        ours = {f"backbone.{key}": value for key, value in backbone.state_dict().items()}
        ours["head.fc.weight"] = ours["head.fc.bias"] = torch.empty(0)
        # Our names without what tells a backbone from its head: a bare backbone is as near as a classifier.
        bare = {key.removeprefix("backbone.") for key in ours}
        for style, names in ((RELEASE, set(to_release(ours))), (TIMM, set(to_timm(ours))), (OURS, bare)):
            likeness = len(present & names) / len(present | names)
            if likeness > best[0]:
                best = (likeness, f"TResNet {name} with the names of {STYLES[style]}", names)
    _, name, names = best
    lacking, unknown = sorted(names - present), sorted(present - names)
    differing = [f"{key} is missing" for key in lacking[:2]] + [f"{key} is unknown" for key in unknown[:1]]
    return f"the nearest known is {name}: {'; '.join(differing)}"
