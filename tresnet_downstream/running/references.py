"""``$name`` references of configs.

A string in a config may refer to a top-level key: ``'$image_size'`` is replaced by the key's value, and
``'train${coco_year}'`` by a string that contains it. ``$$`` stands for a dollar sign.
"""

import ast
import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from tresnet_downstream.errors import UserError

_WHOLE = re.compile(r"\$(\w+)")
_WITHIN = re.compile(r"\$\$|\$\{(\w+)\}")


def resolved(config: Config) -> Config:
    """A copy of a config with all references replaced by values. Its ``text`` is the config with the references.

    Raises:
        UserError: if a reference names an undefined key or refers to itself.

    Examples:
        >>> resolved(Config({"size": 224, "scale": "$size", "folder": "images_${size}"})).folder
        'images_224'
    """
    names = dict(config._cfg_dict)

    def resolve(node: Any, within: tuple[str, ...] = ()) -> Any:
        if isinstance(node, Mapping):
            return {key: resolve(value, within) for key, value in node.items()}
        if isinstance(node, list | tuple):
            return type(node)(resolve(value, within) for value in node)
        if not isinstance(node, str) or "$" not in node:
            return node
        if match := _WHOLE.fullmatch(node):
            return look_up(match[1], node, within)
        return _WITHIN.sub(lambda match: fill(match, node, within), node)

    def fill(match: re.Match[str], text: str, within: tuple[str, ...]) -> str:
        return "$" if match[0] == "$$" else str(look_up(match[1], text, within))

    def look_up(name: str, text: str, within: tuple[str, ...]) -> Any:
        if name in within:
            raise UserError(f"{config.filename}: {text!r} refers to {name!r}, which refers back to itself")
        if name not in names:
            raise UserError(f"{config.filename}: {text!r} refers to {name!r}, which the config does not define")
        return resolve(names[name], (*within, name))

    # A training saves this text, so its config file keeps the references.
    text = repr(config._cfg_dict.to_dict())
    return Config(resolve(names), filename=config.filename, cfg_text=text)


def with_references(config: Config) -> Config | None:
    """The config with its references; None if it is not from :func:`resolved`."""
    with contextlib.suppress(ValueError, SyntaxError):
        return Config(ast.literal_eval(config.text), filename=config.filename, cfg_text=config.text)
    return None


def refers_to(config: Config, key: str) -> bool:
    """Whether a value of a resolved config refers to a top-level key; True if that is unknown."""
    referring = with_references(config)
    return referring is None or any(key in names_in(text) for text in texts(referring._cfg_dict))


def texts(node: object) -> Iterator[str]:
    """All strings among the values of a nested config."""
    if isinstance(node, Mapping | list | tuple):
        for item in node.values() if isinstance(node, Mapping) else node:
            yield from texts(item)
    elif isinstance(node, str):
        yield node


def names_in(text: str) -> list[str]:
    """The keys that a string refers to.

    Examples:
        >>> names_in("$image_size"), names_in("train${year}_${part}"), names_in("plain")
        (['image_size'], ['year', 'part'], [])
    """
    whole = _WHOLE.fullmatch(text)
    return [whole[1]] if whole else [match[1] for match in _WITHIN.finditer(text)]
