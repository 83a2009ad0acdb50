"""Translates parameter names and norm weights of published checkpoints to those of this package and back.

The same network has names in three styles: the style of the releases (TResNet, ASL, ML-Decoder, ImageNet-21K; also timm
before 2023), the style of timm, and the style of this package. The norm of the releases and of this package is
inplace-abn, which scales by ``|weight| + eps``. The norm of timm is an ordinary batch norm, which scales by ``weight``.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor

from tresnet_downstream.weights.head_names import head_type, our_head_name, published_head_name

# Added to |weight| by the in-place norms: the nearest float32, as in inplace-abn.
NORM_EPS = float(np.float32(1e-5))

RELEASE, TIMM, OURS = "release", "timm", "tresnet"
# The name of the stem's convolution in each style.
_MARKERS = {"body.conv1.0.weight": RELEASE, "body.conv1.conv.weight": TIMM, "stem.conv.weight": OURS}

# In a block of the releases, a convolution and its norm are in an nn.Sequential. If a blur pool follows, this
# nn.Sequential is in another one ("conv2.0.0", "conv2.0.1").
_PAIR = re.compile(r"^(.*?)conv(\d)\.(?:0\.)?([01]|conv|bn)\.(\w+)$")
_SHORTCUT = re.compile(r"^(.*)downsample\.[01]\.([01]|conv|bn)\.(\w+)$")
_OURS = re.compile(r"^(?:(stem)|(layer\d)\.(\d+))\.(?:(downsample)\.)?(conv|norm)(\d?)\.(\w+)$")
_MEMBERS = {"0": "conv", "conv": "conv", "1": "norm", "bn": "norm"}


@dataclass(frozen=True)
class Translated:
    """Weights with the names of this package, ``backbone.*`` and ``head.*``.

    Attributes:
        state_dict: the weights.
        style: style of the names in the file: ``release``, ``timm`` or ``tresnet``.
        unused: names of the file that belong neither to the backbone nor to the head.
        inexact: number of norm weights without an exact equivalent: below eps in a batch norm, and eps now.
    """

    state_dict: dict[str, Tensor]
    style: str
    unused: tuple[str, ...] = ()
    inexact: int = 0


def find_network(names: Iterable[str]) -> tuple[str, str] | None:
    """Finds the names of a TResNet.

    Args:
        names: the names in a state dict.

    Returns:
        The style of the names and their common prefix, such as ``module.``; None if no name is a TResNet's.
    """
    for name in names:
        for marker, style in _MARKERS.items():
            if name == marker or name.endswith(f".{marker}"):
                return style, name.removesuffix(marker)
    return None


def translate(state_dict: Mapping[str, Tensor]) -> Translated | None:
    """Translates weights of any style to the names and the norm of this package.

    The tensors of ``state_dict`` are not changed. Tensors that stay the same are not copied.

    Args:
        state_dict: the weights of a backbone or classifier.

    Returns:
        The translated weights; None if they contain no TResNet.

    Examples:
        >>> weights = translate({"body.conv1.0.weight": torch.ones(64, 48, 3, 3)})
        >>> weights.style, list(weights.state_dict)
        ('release', ['backbone.stem.conv.weight'])
    """
    network = find_network(state_dict)
    if network is None:
        return None
    style, prefix = network
    # In the style of this package, the prefix may end with "backbone.", and the head is beside the backbone.
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
        elif not ours.endswith(".filt"):  # the constant of blur pools, which some versions of the releases store
            translated[ours] = tensor
    inexact = from_batch_norm(translated) if style == TIMM else 0
    return Translated(translated, style, tuple(unused), inexact)


def backbone_name(key: str) -> str:
    """The name in this package for a name of a release or of timm without its leading ``body.``."""
    if match := _SHORTCUT.match(key):
        block, member, name = match.groups()
        return f"{block}downsample.{_MEMBERS[member]}.{name}"
    if match := _PAIR.match(key):
        block, number, member, name = match.groups()
        kind = _MEMBERS[member]
        return f"{block}{kind}{number}.{name}" if block else f"stem.{kind}.{name}"
    return key


def to_release(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames weights of this package to the style of the releases. No value changes.

    Args:
        state_dict: the weights, with the names ``backbone.*`` and ``head.*``.

    Examples:
        >>> list(to_release({"backbone.stem.conv.weight": torch.ones(64, 48, 3, 3)}))
        ['body.conv1.0.weight']
    """
    return _renamed(state_dict, ("0", "1"), wrap_blurred=True)


def to_timm(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translates weights of this package to the style of timm: its names, and ``|weight| + eps`` as norm weights.

    Args:
        state_dict: the weights, with the names ``backbone.*`` and ``head.*``.

    Examples:
        >>> list(to_timm({"backbone.stem.conv.weight": torch.ones(64, 48, 3, 3)}))
        ['body.conv1.conv.weight']
    """
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
                # If the block halves the sides, average pooling is before the convolution.
                key = f"{stage}.{block}.downsample.{int(halves)}.{member}.{rest}"
            else:
                blurred = wrap_blurred and halves and number == ("2" if stage in bottlenecks else "1")
                key = f"{stage}.{block}.conv{number}.{'0.' if blurred else ''}{member}.{rest}"
        renamed[f"body.{key}"] = tensor
    return renamed


def _norms(state_dict: Mapping[str, Tensor]) -> list[str]:
    """The names of the norms, without the name of a parameter."""
    suffix = ".running_var"
    return [name.removesuffix(suffix) for name in state_dict if name.endswith(suffix)]


def to_batch_norm(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy in which the weight of each norm is that of an ordinary batch norm, ``|weight| + eps``."""
    changed = dict(state_dict)
    for norm in _norms(state_dict):
        weight = state_dict[f"{norm}.weight"]
        changed[f"{norm}.weight"] = weight.abs() + NORM_EPS
    return changed


def from_batch_norm(state_dict: dict[str, Tensor]) -> int:
    """Converts ordinary batch norms to in-place norms, whose scale cannot be negative, in place.

    The sign of a negative weight is moved into the preceding convolution and the running mean. The function of the
    network stays the same, also in training. A weight below eps has no exact equivalent and becomes eps. A norm is not
    converted if one of its tensors is missing or has another shape; a later comparison of names and shapes reports it.

    Returns:
        The number of weights below eps.
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
        # In double precision, so that adding eps again gives the magnitude up to one rounding.
        state_dict[f"{norm}.weight"] = (magnitude.double() - NORM_EPS).clamp(min=0).to(weight.dtype)
    return inexact


def _fit(parts: Sequence[Tensor | None]) -> TypeGuard[Sequence[Tensor]]:
    """Whether a norm's weight, its mean and the preceding filters are floats with the same number of channels."""
    if not all(part is not None and part.is_floating_point() for part in parts):
        return False
    weight, mean, filters = (part.shape for part in parts if part is not None)
    return len(weight) == len(mean) == 1 and len(filters) == 4 and weight[0] == mean[0] == filters[0]
