"""Parameter names and norm weights of the published checkpoints, translated to ours and back.

Three styles of the same network exist: that of the releases (TResNet, ASL, ML-Decoder, ImageNet-21K; also timm
before 2023), timm's, and ours. The releases' norm is inplace-abn, which scales by ``|weight| + eps``, and ours is
the same. timm's is an ordinary batch norm, which scales by ``weight``.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor

from tresnet_downstream.weights.head_names import head_type, our_head_name, published_head_name

# Added to |weight| by the in-place norms. As in inplace-abn, the nearest float32.
NORM_EPS = float(np.float32(1e-5))

RELEASE, TIMM, OURS = "release", "timm", "tresnet"
# The stem's convolution, the first tensor of each style.
_MARKERS = {"body.conv1.0.weight": RELEASE, "body.conv1.conv.weight": TIMM, "stem.conv.weight": OURS}

# What stands in a release's block is a convolution followed by its norm in an nn.Sequential; where the
# convolution is followed by a blur pool, the pair is wrapped once more ("conv2.0.0", "conv2.0.1").
_PAIR = re.compile(r"^(.*?)conv(\d)\.(?:0\.)?([01]|conv|bn)\.(\w+)$")
_SHORTCUT = re.compile(r"^(.*)downsample\.[01]\.([01]|conv|bn)\.(\w+)$")
_OURS = re.compile(r"^(?:(stem)|(layer\d)\.(\d+))\.(?:(downsample)\.)?(conv|norm)(\d?)\.(\w+)$")
_MEMBERS = {"0": "conv", "conv": "conv", "1": "norm", "bn": "norm"}


@dataclass(frozen=True)
class Translated:
    """Weights under our names, ``backbone.*`` and ``head.*``.

    Attributes:
        state_dict: the weights.
        style: that of the names in the file: ``release``, ``timm`` or ``tresnet``.
        unused: names of the file that belong to neither backbone nor head.
        inexact: how many norm weights had no exact form: an ordinary batch norm's below eps, now eps.
    """

    state_dict: dict[str, Tensor]
    style: str
    unused: tuple[str, ...] = ()
    inexact: int = 0


def find_network(names: Iterable[str]) -> tuple[str, str] | None:
    """The style of a TResNet's names, and what stands before each of them, such as ``module.``; None if none is."""
    for name in names:
        for marker, style in _MARKERS.items():
            if name == marker or name.endswith(f".{marker}"):
                return style, name.removesuffix(marker)
    return None


def translate(state_dict: Mapping[str, Tensor]) -> Translated | None:
    """Brings weights of any style to our names and our norm; None if there is no TResNet among them.

    The tensors given are left as they are; those that need no change are passed on without a copy.
    """
    network = find_network(state_dict)
    if network is None:
        return None
    style, prefix = network
    # In our style the head stands beside the backbone, in the others both stand below the prefix.
    root = prefix.removesuffix("backbone.") if style == OURS else prefix
    below = (name.removeprefix(root) for name in state_dict if name.startswith(f"{root}head."))
    head = None if style == OURS else head_type(below, published=True)
    translated, unused = {}, []
    for name, tensor in state_dict.items():
        ours = None
        if style == OURS and name.startswith(prefix) and (prefix != root or not name.startswith(f"{prefix}head.")):
            ours = f"backbone.{name.removeprefix(prefix)}"
        elif name.startswith(f"{root}body.") and style != OURS:
            ours = f"backbone.{backbone_name(name.removeprefix(f'{root}body.'))}"
        elif name.startswith(f"{root}head."):
            ours = our_head_name(name.removeprefix(root), head) if style != OURS else name.removeprefix(root)
        if ours is None:
            unused.append(name)
        elif not ours.endswith(".filt"):  # the blur pools' constant, which some versions stored
            translated[ours] = tensor
    inexact = from_batch_norm(translated) if style == TIMM else 0
    return Translated(translated, style, tuple(unused), inexact)


def backbone_name(key: str) -> str:
    """Our name for a backbone's key of the releases or of timm, given without its leading ``body.``."""
    if match := _SHORTCUT.match(key):
        block, member, name = match.groups()
        return f"{block}downsample.{_MEMBERS[member]}.{name}"
    if match := _PAIR.match(key):
        block, number, member, name = match.groups()
        kind = _MEMBERS[member]
        return f"{block}{kind}{number}.{name}" if block else f"stem.{kind}.{name}"
    return key


def to_release(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our weights under the releases' names; no number changes."""
    return _renamed(state_dict, ("0", "1"), wrap_blurred=True)


def to_timm(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our weights as timm's: its names, and ``|weight| + eps`` for its ordinary batch norm."""
    return _renamed(to_batch_norm(state_dict), ("conv", "bn"), wrap_blurred=False)


def _renamed(state_dict: Mapping[str, Tensor], members: tuple[str, str], wrap_blurred: bool) -> dict[str, Tensor]:
    bottlenecks = {name.split(".")[1] for name in state_dict if name.endswith(".conv3.weight")}
    head = head_type(state_dict)
    renamed = {}
    for name, tensor in state_dict.items():
        if not name.startswith("backbone."):
            renamed[published_head_name(name, head)] = tensor
            continue
        key = name.removeprefix("backbone.")
        if match := _OURS.match(key):
            stem, stage, block, shortcut, kind, number, rest = match.groups()
            member = members[0] if kind == "conv" else members[1]
            halves = stage not in (None, "layer1") and block == "0"
            if stem:
                key = f"conv1.{member}.{rest}"
            elif shortcut:
                # Where the block halves the sides, average pooling comes before the convolution.
                key = f"{stage}.{block}.downsample.{int(halves)}.{member}.{rest}"
            else:
                blurred = wrap_blurred and halves and number == ("2" if stage in bottlenecks else "1")
                key = f"{stage}.{block}.conv{number}.{'0.' if blurred else ''}{member}.{rest}"
        renamed[f"body.{key}"] = tensor
    return renamed


def _norms(state_dict: Mapping[str, Tensor]) -> list[str]:
    """Names of the norms, without the parameter's."""
    suffix = ".running_var"
    return [name.removesuffix(suffix) for name in state_dict if name.endswith(suffix)]


def to_batch_norm(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy with each in-place norm's weight as an ordinary batch norm's: ``|weight| + eps``."""
    changed = dict(state_dict)
    for norm in _norms(state_dict):
        weight = state_dict[f"{norm}.weight"]
        changed[f"{norm}.weight"] = weight.abs() + NORM_EPS
    return changed


def from_batch_norm(state_dict: dict[str, Tensor]) -> int:
    """Turns ordinary batch norms into in-place ones, which have no negative scale; the dict is changed.

    A negative weight's sign goes into the convolution before it and into the running mean: the same function,
    in training too. A weight smaller than eps has no exact form and becomes eps. A norm is left as it is if one of
    these tensors is missing or has another shape; the comparison with a network's names and shapes then names it.

    Returns:
        how many weights were smaller than eps.
    """
    inexact = 0
    for norm in _norms(state_dict):
        head, _, last = norm.rpartition(".")
        conv = f"{head}.{last.replace('norm', 'conv')}.weight"
        parts = [state_dict.get(name) for name in (f"{norm}.weight", f"{norm}.running_mean", conv)]
        if not _fit(parts):
            continue
        weight, mean, filters = parts
        negative = weight < 0
        if negative.any():
            sign = torch.where(negative, -1.0, 1.0).to(weight.dtype)
            state_dict[conv] = filters * sign[:, None, None, None]
            state_dict[f"{norm}.running_mean"] = mean * sign
        magnitude = weight.abs()
        inexact += int((magnitude < NORM_EPS).sum())
        # In double precision, so that adding eps again ends at most one rounding away.
        state_dict[f"{norm}.weight"] = (magnitude.double() - NORM_EPS).clamp(min=0).to(weight.dtype)
    return inexact


def _fit(parts: Sequence[Tensor | None]) -> TypeGuard[Sequence[Tensor]]:
    """Whether a norm's weight, its mean and the filters before it are floats of the same number of channels."""
    if not all(part is not None and part.is_floating_point() for part in parts):
        return False
    weight, mean, filters = (part.shape for part in parts if part is not None)
    return len(weight) == len(mean) == 1 and len(filters) == 4 and weight[0] == mean[0] == filters[0]
