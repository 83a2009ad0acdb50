"""Modules with pretrained weights, by ``init_cfg=dict(type='Pretrained', checkpoint=...)`` or a state dict.

MMEngine's own initialisation loads the weights whose names match, and raises no error if none does. It can read neither
safetensors files nor the checkpoints of the releases. A :class:`PretrainedModule` accepts every source of
:func:`locate` and weights in every published style.
"""

import warnings
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule, PretrainedInit
from torch import Tensor, nn

from tresnet_downstream.errors import UserError
from tresnet_downstream.weights.formats import NORM_EPS, translate
from tresnet_downstream.weights.public_files import locate
from tresnet_downstream.weights.reading import read_checkpoint, unwrap
from tresnet_downstream.wording import first_of


class PretrainedModule(BaseModule):
    """A module that translates the names of state dicts, and can be initialised from any weight file.

    The names are translated whenever a state dict is loaded: by ``load_state_dict`` and MMEngine's loaders, also if the
    module is a submodule.

    Attributes:
        has_in_place_norms: whether its norms scale by ``|weight| + eps``, see :mod:`.formats`.
    """

    has_in_place_norms = True

    init_cfg: Any

    @abstractmethod
    def translated(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights with the names of this module. Names that are not translated stay the same."""

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *arguments: object) -> None:
        _translate_names(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def init_weights(self) -> None:
        """Initialises the module as MMEngine does, then loads the pretrained weights of ``init_cfg``.

        Raises:
            UserError: if the file cannot be read or has the weights of another network.
        """
        init_cfg = self.init_cfg
        if self.is_init or not init_cfg:
            super().init_weights()
            return
        entries = [init_cfg] if isinstance(init_cfg, Mapping) else list(init_cfg)
        pretrained = [entry for entry in entries if entry["type"] in ("Pretrained", PretrainedInit)]
        self.init_cfg = [entry for entry in entries if entry not in pretrained]
        super().init_weights()
        self.init_cfg = init_cfg
        for entry in pretrained:
            if entry["checkpoint"] is not None:
                print_log(load_pretrained(self, entry["checkpoint"], entry.get("prefix") or ""), logger="current")


def load_pretrained(module: PretrainedModule, source: str | Path, prefix: str = "") -> str:
    """Loads the weights of a file into a backbone, or into a classifier with its head.

    If the head in the file has another size or type, the module's head keeps its values.

    Args:
        module: the module, which is changed in place.
        source: a path, URL, or name of the catalogue, see :func:`locate`.
        prefix: if not empty, only names with this prefix, such as ``backbone.``, are used; the prefix is removed.

    Returns:
        A line that says what was loaded, whether the head was loaded, and which names were not used.

    Raises:
        UserError: if the file cannot be read, has none of the module's names, or not all of the backbone's.

    Examples:
        >>> from tresnet_downstream.backbones import TResNet
        >>> network, copy = TResNet(layers=(1, 1, 1, 1), width=0.25), TResNet(layers=(1, 1, 1, 1), width=0.25)
        >>> torch.save(network.state_dict(), "backbone.pth")
        >>> load_pretrained(copy, "backbone.pth")
        'TResNet starts from backbone.pth'
    """
    path = locate(source)
    weights = unwrap(read_checkpoint(path), path=path)[1]
    if prefix:
        weights = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    inexact = getattr(translate(weights), "inexact", 0) if module.has_in_place_norms else 0
    weights = module.translated(weights)
    own = {name: tensor.shape for name, tensor in module.state_dict().items()}
    matched = {name: value for name, value in weights.items() if name in own and value.shape == own[name]}
    differing = [name for name in weights if name in own and name not in matched]
    missing = [name for name in own if name not in weights and not name.endswith("num_batches_tracked")]
    notes = []
    if any(name.startswith("head.") for name in [*differing, *missing]):
        matched = {name: value for name, value in matched.items() if not name.startswith("head.")}
        sizes = [f"{name} is {shape(weights[name])} in the file, {shape(own[name])} here" for name in differing[:1]]
        notes.append(f"the head is not loaded ({sizes[0] if sizes else f'the file has no {missing[0]}'})")
    _refuse_other_network(path, weights, own, matched, differing, missing)
    module.load_state_dict(matched, strict=False)
    if unused := [name for name in weights if name not in own]:
        notes.append(f"not used: {', '.join(unused)}")
    if inexact:
        notes.append(f"{inexact} norm weights below {NORM_EPS:.0e} were set to it, since they have no exact equivalent")
    return "; ".join([f"{type(module).__name__} starts from {source}", *notes])


def require_match(model: nn.Module, state_dict: Mapping[str, Tensor], path: str | Path) -> None:
    """Raises UserError, with examples, unless the names and shapes are exactly those of the model."""
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    present = {name: tuple(tensor.shape) for name, tensor in state_dict.items()}
    missing, unknown = sorted(own.keys() - present.keys()), sorted(present.keys() - own.keys())
    differing = [name for name in own.keys() & present.keys() if own[name] != present[name]]
    reasons = []
    if missing:
        reasons.append(f"{len(missing)} names are missing, such as {missing[0]}")
    if unknown:
        reasons.append(f"{len(unknown)} names are unknown, such as {unknown[0]}")
    if differing:
        name = sorted(differing)[0]
        reasons.append(f"{name} has shape {present[name]}, the config's model {own[name]}")
    # Integer counters may be stored as floats, but not the reverse.
    numbers = {name for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    other_kind = [name for name in sorted(numbers & present.keys()) if not state_dict[name].is_floating_point()]
    if other_kind:
        reasons.append(f"{other_kind[0]} is of {state_dict[other_kind[0]].dtype}")
    if reasons:
        raise UserError(f"{path}: is a checkpoint of another model: {'; '.join(reasons)}")


def without_second_names(model: nn.Module, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights without duplicates under names that the model does not have.

    MMDetection's DDQ assigns parts of its head to its decoder in the first training step, so that its checkpoints have
    names that a new model does not have. A name is a duplicate if it differs from a name of the model only in its first
    part, and both tensors are equal.
    """
    own = set(model.state_dict())
    values: dict[str, list[Tensor]] = {}
    for name in own & state_dict.keys():
        values.setdefault(name.partition(".")[2], []).append(state_dict[name])
    return {
        name: tensor
        for name, tensor in state_dict.items()
        if name in own or not any(torch.equal(tensor, other) for other in values.get(name.partition(".")[2], ()))
    }


def shape(tensor: Tensor | torch.Size) -> tuple[int, ...]:
    """The shape of a tensor, or a ``torch.Size``, as a plain tuple."""
    return tuple(getattr(tensor, "shape", tensor))


def _refuse_other_network(
    path: Path,
    weights: Mapping[str, Tensor],
    own: Mapping[str, torch.Size],
    matched: Mapping[str, Tensor],
    differing: list[str],
    missing: list[str],
) -> None:
    if not matched:
        raise UserError(
            f"{path}: has the weights of another network: none of its names matches; it has "
            f"{', '.join(list(weights)[:3])}, expected are {', '.join(list(own)[:3])}"
        )
    wrong = [name for name in differing if not name.startswith("head.")]
    if wrong:
        name = wrong[0]
        others = f", and {len(wrong) - 1} others differ too" if len(wrong) > 1 else ""
        raise UserError(
            f"{path}: has the weights of another variant: {name} is {shape(weights[name])} in the file and "
            f"{shape(own[name])} in the network{others}"
        )
    if absent := [name for name in missing if not name.startswith("head.")]:
        raise UserError(
            f"{path}: has the weights of another variant, or not all weights: {len(absent)} names are missing, "
            f"such as {absent[0]}"
        )
    stages = [name for name in weights if name not in own and name.removeprefix("backbone.").startswith("layer")]
    if stages:
        raise UserError(f"{path}: has the weights of another variant: it also has {first_of(stages)}")


def _translate_names(module: PretrainedModule, state_dict: dict[str, Tensor], prefix: str) -> None:
    """Replaces the names below ``prefix`` in a state dict by the names of ``module``, in place."""
    below = {name[len(prefix) :]: value for name, value in state_dict.items() if name.startswith(prefix)}
    if below and not any(isinstance(value, Tensor) for value in below.values()):
        below = unwrap(below)[1]  # a whole checkpoint, which MMEngine passes without taking the weights out
    translated = module.translated(below)
    own = module.state_dict()
    if translated and not own.keys() & translated.keys():
        # Only a warning, since partial state dicts are allowed, such as those of adapters. Strict loading raises.
        warnings.warn(
            f"none of the weights has a name of {type(module).__name__}, such as {next(iter(own), '')!r}: they may be "
            f"those of another network; their names are {', '.join(list(translated)[:3])}",
            stacklevel=2,
        )
    if translated.keys() != below.keys():
        for name in [name for name in state_dict if name.startswith(prefix)]:
            del state_dict[name]
    state_dict.update({prefix + name: value for name, value in translated.items()})
