"""Parts of a model by name, such as ``backbone.layer1`` in ``lr_factors`` or ``freeze``, and their parameters."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from torch import nn

from tresnet_downstream.errors import UserError


def by_part(key: str, value: object) -> dict[str, Any]:
    """The values of a config's key by the dotted name of the part. Nested dicts describe parts of parts.

    Args:
        key: the key, for the message.
        value: a dict from names of parts to values or dicts, or None.

    Raises:
        UserError: if ``value`` is neither a dict nor None.

    Examples:
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


def _flat(node: Mapping[str, object], place: str = "") -> Iterator[tuple[str, object]]:
    for name, value in node.items():
        part = f"{place}.{name}" if place else str(name)
        if isinstance(value, Mapping):
            yield from _flat(value, part)
        else:
            yield part, value


def parameters_of(key: str, parts: Iterable[str], model: nn.Module, roots: Sequence[str] = ("",)) -> dict[str, str]:
    """The part that each parameter belongs to. If several parts contain it, the one with the longest path.

    Args:
        key: the key of the config, for messages.
        parts: names of modules or parameters; each must contain a parameter.
        model: the model without its distributed wrapper.
        roots: prefixes that the names may leave out; the first prefix that matches is used.

    Returns:
        names of parts by parameter name. Parameters that belong to no part are left out.

    Raises:
        UserError: if a part has no parameters; the message lists the nearest names.

    Examples:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        >>> parameters_of("freeze", ["0", "1.bias"], model)
        {'0.weight': '0', '0.bias': '0', '1.bias': '1.bias'}
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
    """The part of a message that lists parts of the model: the nearest names, or those of the top level."""
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
    """The part that each module belongs to, by the same rule as :func:`parameters_of`."""
    names = [name for name, _ in model.named_modules()]
    owners: dict[str, str] = {}
    for part in sorted(parts, key=lambda part: part.count(".")):
        inside = ([name for name in names if f"{name}.".startswith(f"{root}{part}.")] for root in roots)
        owners.update(dict.fromkeys(next(filter(None, inside), ()), part))
    return owners
