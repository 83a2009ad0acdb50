"""Networks that start from a file: ``init_cfg=dict(type='Pretrained', checkpoint=...)`` and state dicts of any style.

MMEngine's own initialisation loads what happens to match and is silent if nothing does; its loader knows neither
safetensors nor the releases' wrappings. A :class:`PretrainedModule` takes every source that :func:`locate` knows.
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


class PretrainedModule(BaseModule):
    """A module that translates the names in state dicts given to it, and starts from any weight file.

    Translation happens where the state dict is loaded, so that it serves ``load_state_dict`` and MMEngine's
    loaders alike, also where the module is a part of a larger one.
    """

    has_in_place_norms = True

    init_cfg: Any

    @abstractmethod
    def translated(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights under this module's names; those that are not its own keep theirs."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        _translate_names(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def init_weights(self) -> None:
        """Initialises as MMEngine does, and then loads what ``init_cfg`` names as pretrained.

        Raises:
            UserError: if the file cannot be read or holds another network.
        """
        init_cfg = self.init_cfg
        if self.is_init or not init_cfg:
            super().init_weights()
            return
        every = [init_cfg] if isinstance(init_cfg, Mapping) else list(init_cfg)
        pretrained = [entry for entry in every if entry["type"] in ("Pretrained", PretrainedInit)]
        self.init_cfg = [entry for entry in every if entry not in pretrained]
        super().init_weights()
        self.init_cfg = init_cfg
        for entry in pretrained:
            if entry["checkpoint"] is not None:
                print_log(load_pretrained(self, entry["checkpoint"], entry.get("prefix") or ""), logger="current")


def load_pretrained(module: PretrainedModule, source: str | Path, prefix: str = "") -> str:
    """Loads a file's weights into ``module``: a backbone's, or a classifier's with its head.

    A head of another size, or of another kind, is left as it is.

    Args:
        module: is changed in place.
        source: a path, URL, or name of the catalogue, see :func:`locate`.
        prefix: takes only the names that begin so, without it, such as ``backbone.``.

    Returns:
        one line that says what was loaded, what was left fresh and which names were not used.

    Raises:
        UserError: if the file cannot be read, holds none of the module's names, or not all of the backbone's.
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
        notes.append(f"the head is left fresh ({sizes[0] if sizes else f'the file has no {missing[0]}'})")
    _refuse_other_network(path, weights, own, matched, differing, missing)
    module.load_state_dict(matched, strict=False)
    if unused := [name for name in weights if name not in own]:
        notes.append(f"not used: {', '.join(unused)}")
    if inexact:
        notes.append(f"{inexact} norm weights below {NORM_EPS:.0e} have no exact form and are that now")
    return "; ".join([f"{type(module).__name__} starts from {source}", *notes])


def require_match(model: nn.Module, state_dict: Mapping[str, Tensor], path: str | Path) -> None:
    """Raises UserError, with examples, unless the names and shapes are exactly the model's."""
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
    # Counts, which are whole numbers, may be stored as floats.
    numbers = {name for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    other_kind = [name for name in sorted(numbers & present.keys()) if not state_dict[name].is_floating_point()]
    if other_kind:
        reasons.append(f"{other_kind[0]} is of {state_dict[other_kind[0]].dtype}")
    if reasons:
        raise UserError(f"{path}: is a checkpoint of another model: {'; '.join(reasons)}")


def without_second_names(model: nn.Module, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights without those that the model knows under another name.

    MMDetection's DDQ hands parts of its head to its decoder in its first training step, so that a trained one has names
    that a new one lacks. Left out is a name that differs in its first part alone from one with equal values.
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


def shape(tensor: Any) -> tuple[int, ...]:
    """The shape of a tensor, or a ``torch.Size``, as a plain tuple."""
    return tuple(getattr(tensor, "shape", tensor))


def _refuse_other_network(
    path: Path,
    weights: Mapping[str, Tensor],
    own: Mapping[str, Any],
    matched: Mapping[str, Tensor],
    differing: list[str],
    missing: list[str],
) -> None:
    if not matched:
        raise UserError(
            f"{path}: holds another network: none of its names fits; it has {', '.join(list(weights)[:3])}, "
            f"wanted are {', '.join(list(own)[:3])}"
        )
    wrong = [name for name in differing if not name.startswith("head.")]
    if wrong:
        name = wrong[0]
        raise UserError(
            f"{path}: holds another variant: {name} is {shape(weights[name])} there and {shape(own[name])} here, "
            f"and so are {len(wrong) - 1} more"
        )
    if absent := [name for name in missing if not name.startswith("head.")]:
        raise UserError(
            f"{path}: holds another variant, or not all of it: {len(absent)} names are missing, such as {absent[0]}"
        )
    stages = [name for name in weights if name not in own and name.removeprefix("backbone.").startswith("layer")]
    if stages:
        raise UserError(f"{path}: holds another variant: it also has {stages[0]} and {len(stages) - 1} names more")


def _translate_names(module: PretrainedModule, state_dict: dict[str, Any], prefix: str) -> None:
    """Puts the weights for ``module``, below ``prefix``, under its own names."""
    below = {name[len(prefix) :]: value for name, value in state_dict.items() if name.startswith(prefix)}
    if below and not any(isinstance(value, Tensor) for value in below.values()):
        below = unwrap(below)[1]  # The dict of a checkpoint, which MMEngine passes on as it is.
    translated = module.translated(below)
    own = module.state_dict()
    if translated and not own.keys() & translated.keys():
        # A part of a state dict may be meant, as with adapters; torch's strict loading raises by itself.
        warnings.warn(
            f"none of the weights given is {type(module).__name__}'s, such as {next(iter(own), '')!r}: they may be "
            f"those of another network; they have {', '.join(list(translated)[:3])}",
            stacklevel=2,
        )
    if translated.keys() != below.keys():
        for name in [name for name in state_dict if name.startswith(prefix)]:
            del state_dict[name]
    state_dict.update({prefix + name: value for name, value in translated.items()})
