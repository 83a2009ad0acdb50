"""Recognises the network of a state dict from names and shapes, or finds the most similar known network."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
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


_NOTHING: Mapping[str, object] = MappingProxyType({})


class NoNumbers(TorchFunctionMode):
    """Skips random initialisation, which has no effect on the meta device but takes a second."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        if func is Tensor.normal_ or getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def backbone_config(state_dict: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """The config of the backbone of weights with the names of this package, without slopes; None if it is no TResNet.

    The number and type of the blocks are inferred from the names, the width from the shape of the stem.
    """
    blocks: dict[str, set[str]] = {}
    for name in state_dict:
        module, stage, block, *_ = [*name.split("."), "", ""]
        if module == "backbone" and stage.startswith("layer") and block.isdigit():
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
    state_dict: Mapping[str, Tensor], path: str | Path, stored: Mapping[str, object] = _NOTHING
) -> dict[str, Any] | None:
    """The config of the head of weights with the names of this package; None if there is none.

    Args:
        state_dict: the weights.
        path: their file, for messages.
        stored: arguments of the head in the file. They are used for arguments that cannot be inferred from tensor
            shapes, such as ML-Decoder's ``num_heads``. Arguments that are not stored have the defaults of the head.

    Raises:
        UserError: if tensors of the head are missing, or have another number of dimensions.
    """
    kind = head_type(state_dict)
    if kind is None:
        return None
    head = MODELS.get(kind)
    below = {name.removeprefix("head."): tensor for name, tensor in state_dict.items() if name.startswith("head.")}
    try:
        config = {"type": kind, **head.arguments_from(below)}
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(f"{path}: its head is not a complete {kind} ({type(error).__name__}: {error})") from error
    others = inspect.signature(head).parameters.keys() - {"in_channels", *config}
    return config | {name: value for name, value in stored.items() if name in others and type(value) in (int, float)}


def nearest_network(tensors: Iterable[str]) -> str:
    """The known network whose names are most similar to ``tensors``, and three differing names."""
    present = set(tensors)
    best: tuple[float, str, set[str]] = (-1.0, "", set())
    for name in VARIANTS:
        with torch.device("meta"), NoNumbers():
            backbone = TResNet(name)
        ours = {f"backbone.{key}": value for key, value in backbone.state_dict().items()}
        ours["head.fc.weight"] = ours["head.fc.bias"] = torch.empty(0)
        # Names without "backbone.", so that a backbone alone is as similar as a classifier.
        bare = {key.removeprefix("backbone.") for key in ours}
        for style, names in ((RELEASE, set(to_release(ours))), (TIMM, set(to_timm(ours))), (OURS, bare)):
            similarity = len(present & names) / len(present | names)
            if similarity > best[0]:
                best = (similarity, f"TResNet {name} with the names of {STYLES[style]}", names)
    _, name, names = best
    missing, unknown = sorted(names - present), sorted(present - names)
    differing = [f"{key} is missing" for key in missing[:2]] + [f"{key} is unknown" for key in unknown[:1]]
    return f"the most similar one is {name}: {'; '.join(differing)}"
