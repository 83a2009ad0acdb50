"""Parts of a model by name: which parameters ``backbone.layer1`` means in ``lr_factors`` or ``freeze``."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from torch import nn

from tresnet_downstream.errors import UserError


def by_part(key: str, value: Any) -> dict[str, Any]:
    """The values of a config's key by the name of the part; a dict within a dict is of parts of that part.

    Args:
        key: for the message.
        value: a dict of parts, or None for none.

    Raises:
        UserError: if it is no such dict.

    Example:
        >>> by_part("freeze", {"backbone": {"stem": "always", "layer1": 3}, "head": 1})
        {'backbone.stem': 'always', 'backbone.layer1': 3, 'head': 1}
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise UserError(
            f"{key}={value!r}: give a dict of parts of the model, such as {key}=dict(backbone=...), or None"
        )
    return dict(_flat(value))


def _flat(node: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        part = f"{place}.{name}" if place else str(name)
        if isinstance(value, Mapping):
            yield from _flat(value, part)
        else:
            yield part, value


def parameters_of(key: str, parts: Iterable[str], model: nn.Module, roots: Sequence[str] = ("",)) -> dict[str, str]:
    """Which part each parameter belongs to: of several that contain it, the one that is named most closely.

    Args:
        key: of the config, for messages.
        parts: names of modules or parameters; each must contain a parameter.
        model: without the wrapper of several processes.
        roots: what may stand before the names, the first that fits.

    Returns:
        names of parts by the names of parameters; parameters of no part are left out.

    Raises:
        UserError: for a part without parameters; it lists the nearest names.
    """
    names = [name for name, _ in model.named_parameters()]
    members: dict[str, set[str]] = {}
    for part in parts:
        inside = ({name for name in names if f"{name}.".startswith(f"{root}{part}.")} for root in roots)
        members[part] = next(filter(None, inside), set())
        if not members[part]:
            raise UserError(f"{key}: no parameter of the model is in {part!r}; {_nearest(part, names, roots)}")
    owners: dict[str, str] = {}
    for part in sorted(members, key=lambda part: part.count(".")):
        owners.update(dict.fromkeys(members[part], part))
    return {name: owners[name] for name in names if name in owners}


def _nearest(part: str, names: Sequence[str], roots: Sequence[str]) -> str:
    """What a message says of the parts that there are: the nearest ones, or those of the top level."""
    own: dict[str, None] = {}
    for name in names:
        root = next((root for root in sorted(roots, key=len, reverse=True) if name.startswith(root)), "")
        pieces = name.removeprefix(root).split(".")
        own.update(dict.fromkeys(".".join(pieces[:depth]) for depth in range(1, len(pieces) + 1)))
    close = get_close_matches(part, own, n=3, cutoff=0.6)
    if close:
        return f"nearest: {', '.join(close)}"
    return f"there are {', '.join(name for name in own if '.' not in name)}"


def module_parts(parts: Iterable[str], model: nn.Module, roots: Sequence[str] = ("",)) -> dict[str, str]:
    """Which part each module belongs to, as :func:`parameters_of` says it of parameters."""
    names = [name for name, _ in model.named_modules()]
    owners: dict[str, str] = {}
    for part in sorted(parts, key=lambda part: part.count(".")):
        inside = ([name for name in names if f"{name}.".startswith(f"{root}{part}.")] for root in roots)
        owners.update(dict.fromkeys(next(filter(None, inside), ()), part))
    return owners
