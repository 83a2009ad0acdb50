"""``key=value`` options: parsed, checked against the config, and merged into it."""

import ast
import copy
import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module

from mmengine.config import Config, DictAction
from mmengine.registry import Registry

from tresnet_downstream.errors import UserError
from tresnet_downstream.registry import SCOPE
from tresnet_downstream.running.references import resolved
from tresnet_downstream.running.top_level import OF_PARTS, has_effect, keys_read, nearest_keys, without_effect

# A placeholder value, by which `places_set_by` recognises an option in the resolved config.
_MARK = "<set>"
# Paths of the user's own data; they have no default.
DATA_KEYS = tuple(f"{split}_{what}" for split in ("train", "val", "test") for what in ("annotations", "images"))


def with_options(config: Config, options: Sequence[str]) -> Config:
    """Merges ``key=value`` options into a config and resolves its references; raises as :func:`load_config` does."""
    for option in options:
        key, separator, value = option.partition("=")
        if not separator or not key:
            raise UserError(f"`options` {option}: write it as key=value")
        root, _, part = key.partition(".")
        if root in OF_PARTS and part and isinstance(config.get(root), Mapping):
            # Names of parts contain dots, and a part may contain another one.
            config.merge_from_dict({root: {part: _parse(value, None)}})
            continue
        _require_key(config, key, str(config.filename))
        current = _current(config, key)
        new = _with_text_keys(_parse(value, current))
        if (
            isinstance(new, dict)
            and isinstance(current, Mapping)
            and new.get("type", current.get("type")) != current.get("type")
        ):
            # The component changes, so no argument of the old one applies.
            new = {"_delete_": True, **new}
        config.merge_from_dict({key: new})
        if key.endswith(".type") and new != current:
            _leave_out_arguments(config, key.removesuffix(".type"), str(current))
        _require_effect(config, key)
    return resolved(config)


def places_set_by(options: Sequence[str], unresolved: Config) -> set[str]:
    """The dotted keys of a resolved config whose values come from options, such as ``model.head.num_classes``.

    Args:
        options: ``key=value`` options, see :func:`load_config`.
        unresolved: the config before options and references, from :func:`read_config_file`.
    """
    places = set()
    for key in (option.partition("=")[0] for option in options):
        config = copy.deepcopy(unresolved)
        try:
            config.merge_from_dict({key: _MARK})
        except (TypeError, KeyError, AttributeError, IndexError):
            places.add(key)  # below a value that another option sets
            continue
        places |= {key, *_marked(resolved(config)._cfg_dict)}
    return places


def _marked(node: object, place: str = "") -> Iterator[str]:
    if isinstance(node, str) and _MARK in node:
        yield place.removeprefix(".")
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list | tuple) else ()
    for key, value in items:
        yield from _marked(value, f"{place}.{key}")


def _leave_out_arguments(config: Config, place: str, before: str) -> None:
    """Removes the arguments that the new component at ``place`` does not accept, and prints them."""
    node = config._cfg_dict
    for name in place.split("."):
        node = node[int(name)] if isinstance(node, list | tuple) else node[name]
    scope = config.get("default_scope") or SCOPE
    if not _is_registered(node["type"], scope):
        return
    others = [key for key in node if key != "type" and not _takes_argument(node["type"], key, scope)]
    for key in others:
        left_out = node.pop(key)
        # At this time there is no log, and the processes have not joined.
        if os.environ.get("RANK", "0") == "0":
            print(f"{place}.type={node['type']}: leaves out {key}={left_out!r}, an argument of {before}")


def _with_text_keys(value: object) -> object:
    """Converts the keys of dicts to strings, as MMEngine requires: ``{9: 3.0}`` means the class named ``9``."""
    if isinstance(value, dict):
        return {str(key): _with_text_keys(item) for key, item in value.items()}
    return [_with_text_keys(item) for item in value] if isinstance(value, list) else value


def _parse(value: str, current: object) -> object:
    """Parses a Python literal. Other values, and values that replace a string, such as a folder 2014, stay strings."""
    if isinstance(current, str) and not current.startswith("$") and value != "None":
        return value
    try:
        return _literal(ast.parse(value.strip(), mode="eval").body)
    except (ValueError, TypeError, SyntaxError):
        # MMEngine's parser makes a list of words: blocks=basic,basic,bottleneck,bottleneck.
        return value if current is None or "," not in value else DictAction._parse_iterable(value)


def _literal(node: ast.expr) -> object:
    """Like ``ast.literal_eval``, but also accepts ``dict(type='LinearHead')``, as in a config."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        if any(keyword.arg is None for keyword in node.keywords):
            raise ValueError("dict(**...) is not a literal")
        return {str(keyword.arg): _literal(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.List | ast.Tuple):
        items = [_literal(item) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    return ast.literal_eval(node)


def _current(config: Config, key: str) -> object:
    """The config's value of ``key``; ``"$"`` if the argument is new."""
    node = config._cfg_dict
    for name in key.split("."):
        if isinstance(node, Mapping):
            node = node.get(name, "$")
        elif not isinstance(node, str):
            node = node[int(name)]
    return "" if key in DATA_KEYS and node is None else node


def _require_key(config: Config, key: str, path: str) -> None:
    """Raises UserError unless the config has the key, or the component at that place accepts it as an argument."""
    node = config._cfg_dict
    scope = config.get("default_scope") or SCOPE
    if scope != SCOPE and (root := key.partition(".")[0]) not in node and root in keys_read(config):
        return
    for depth, name in enumerate(parts := key.split(".")):
        place = ".".join(parts[:depth])
        if isinstance(node, Sequence) and not isinstance(node, str):
            if not name.isdigit() or int(name) >= len(node):
                raise UserError(f"`options` {key}: {place} has {len(node)} items, no {name!r}")
            node = node[int(name)]
        elif isinstance(node, Mapping) and name in node:
            node = node[name]
        elif isinstance(node, Mapping) and depth == len(parts) - 1 and _takes_argument(node.get("type"), name, scope):
            return
        else:
            known = _known_keys(config, node, name, at_top=depth == 0)
            raise UserError(f"`options` {key}: {place or path} has no key {name!r}; {known}")


def _known_keys(config: Config, node: object, name: str, at_top: bool) -> str:
    """The part of a message that lists the keys at a place: the nearest ones, or all."""
    if not isinstance(node, Mapping):
        return "it has no keys"
    siblings = {key for key in node if has_effect(config, key)} if at_top else set(node)
    close = nearest_keys(config, name, siblings)
    return f"nearest: {', '.join(close)}" if close else f"it has {', '.join(sorted(siblings)) or 'none'}"


def _require_effect(config: Config, key: str) -> None:
    """Raises UserError for an option whose top-level key is read by no code and no reference."""
    if config.get("default_scope") and not has_effect(config, key.partition(".")[0]):
        raise UserError(without_effect(config, key))


def _is_registered(component: object, scope: str) -> bool:
    return isinstance(component, str) and _registered(component, scope) is not None


def _registered(component: str, scope: str) -> type | None:
    """The class registered under a name in a scope; None if there is none."""
    for room in vars(import_module(f"{scope}.registry")).values():
        if isinstance(room, Registry) and room.scope == scope and inspect.isclass(registered := room.get(component)):
            return registered
    return None


def _takes_argument(component: object, name: str, scope: str) -> bool:
    """Whether the component registered as ``component`` in a scope has a constructor argument ``name``."""
    if not isinstance(component, str):
        return False
    if (registered := _registered(component, scope)) is not None:
        return any(name in inspect.signature(base).parameters for base in inspect.getmro(registered)[:-1])
    # Albumentations' transforms are found by name too; their pipeline reports unknown arguments.
    return scope == SCOPE and hasattr(import_module("albumentations"), component)
