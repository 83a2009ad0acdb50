"""The check of a config that a checkpoint holds, before a network or a pipeline is built from it."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.registry import Registry

from tresnet_downstream.errors import UserError

# Where the parts are defined that a checkpoint may name: being registered is not enough, since some of
# MMDetection's components (of tracking) evaluate their arguments as Python.
ROOMS = (
    "mmcv.cnn",
    "mmcv.ops",
    "mmcv.transforms",
    "mmdet.datasets.transforms",
    "mmdet.models.backbones",
    "mmdet.models.data_preprocessors",
    "mmdet.models.dense_heads",
    "mmdet.models.detectors",
    "mmdet.models.layers",
    "mmdet.models.losses",
    "mmdet.models.necks",
    "mmdet.models.roi_heads",
    "mmdet.models.task_modules.assigners",
    "mmdet.models.task_modules.coders",
    "mmdet.models.task_modules.prior_generators",
    "mmdet.models.task_modules.samplers",
    "mmengine.model",
    "torch.nn",
    "tresnet_downstream.backbones",
    "tresnet_downstream.classification",
)
# Packages of which the parts above alone are taken. What others have registered, the caller's own code imported.
PACKAGES = re.compile(
    r"mm(cls|cv|det|det3d|engine|ocr|pose|pretrain|razor|rotate|seg|track|yolo)|torch|torchvision|tresnet_downstream"
)
# Types that are looked up elsewhere than in a registry. mmcv evaluates the first two as Python.
UNREGISTERED = ("nms", "soft_nms", "RoIAlign", "RoIPool")
# Names a config file, which is a program.
FILES = ("teacher_config",)


def check_stored(
    path: Path, node: Any, registries: Sequence[Registry], unregistered: Collection[str] = UNREGISTERED
) -> None:
    """Raises UserError for a config that is not made of known parts alone, before anything is built from it.

    MMEngine would import and call whatever a ``type`` means. Known are the parts in :data:`ROOMS` and those that the
    caller's own modules have registered.

    Args:
        path: the checkpoint, for messages.
        node: the config, or a part of it.
        registries: where its types are looked up.
        unregistered: types that the caller looks up elsewhere.
    """
    if isinstance(node, Mapping):
        if "type" in node and not _is_part(node["type"], registries, unregistered):
            raise UserError(
                f"{path}: names the component {node['type']!r}, which is no part of a detector or classifier that is "
                "known here; if it is yours, import the module that registers it first: by import in Python, by "
                "custom_imports in a config"
            )
        if "_scope_" in node and node["_scope_"] not in _scopes(registries):
            raise UserError(f"{path}: names the scope {node['_scope_']!r}, which would be imported")
        for key, value in node.items():
            if key in FILES and value is not None:
                raise UserError(f"{path}: names the config {value!r}, which would be run; build it with --config")
            check_stored(path, value, registries, unregistered)
    elif isinstance(node, list | tuple):
        for item in node:
            check_stored(path, item, registries, unregistered)


def _is_part(name: Any, registries: Sequence[Registry], unregistered: Collection[str]) -> bool:
    if not isinstance(name, str):
        return False
    if name in unregistered:
        return True
    scope, dot, plain_name = name.rpartition(".")
    for registry in registries:
        family = [registry, *_ancestors(registry)]
        if dot:
            family = [m for member in family for m in (member, *member.children.values()) if m.scope == scope]
        for member in family:
            if (component := member.module_dict.get(plain_name)) is not None:
                module = str(component.__module__)
                return module.startswith(ROOMS) or not PACKAGES.fullmatch(module.partition(".")[0])
    return False


def _scopes(registries: Sequence[Registry]) -> list[str]:
    """Scopes that are imported already."""
    family = [member for registry in registries for member in (registry, *_ancestors(registry))]
    return [each.scope for member in family for each in (member, *member.children.values())]


def _ancestors(registry: Registry) -> Iterator[Registry]:
    while (parent := registry.parent) is not None:
        yield parent
        registry = parent
