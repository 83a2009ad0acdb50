"""Checks the config in a checkpoint before a network or a pipeline is built from it.

A checkpoint may come from an untrusted source. MMEngine imports and calls whatever a ``type`` names, and some
components evaluate arguments as Python, open files or download data. A stored config may therefore name only registered
components of these kinds:

* of MMDetection, mmcv, MMEngine and torch, those in :data:`ROOMS` without :data:`REFUSED`;
* of this package;
* of any other package or script, because the caller must have imported it.

A ``type`` is never looked up by import path.
"""

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from mmengine.registry import Registry
from torch.nn.modules.module import register_module_module_registration_hook

from tresnet_downstream.errors import UserError

# Packages that register components on import, so a registered component of theirs is not a choice of the caller.
LIBRARIES = (
    *("albumentations", "mmcls", "mmcv", "mmdet", "mmengine", "mmpretrain", "mmseg", "timm", "torch", "torchvision"),
    *("transformers", *(sys.stdlib_module_names - {"__main__"})),
)
# Modules of these packages that define harmless components.
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
    "mmdet.models.mot",
    "mmdet.models.necks",
    "mmdet.models.reid",
    "mmdet.models.roi_heads",
    "mmdet.models.seg_heads",
    "mmdet.models.task_modules",
    "mmdet.models.trackers",
    "mmdet.models.tracking_heads",
    "mmdet.models.vis",
    "mmengine.model",
    "mmengine.utils.dl_utils.parrots_wrapper",
    "torch.nn",
)
# Classes in these modules that do more than compute.
REFUSED = {
    "mmdet.datasets.transforms.instaboost.InstaBoost": "imports another package",
    "mmdet.datasets.transforms.loading.InferencerLoader": "opens files",
    "mmdet.datasets.transforms.loading.LoadMultiChannelImageFromFiles": "opens files",
    "mmdet.datasets.transforms.text_transformers.RandomSamplingNegPos": "fetches a language model",
    "mmdet.datasets.transforms.transforms.Albu": "looks its transforms up by name",
    "mmdet.models.dense_heads.atss_vlfusion_head.ATSSVLFusionHead": "fetches a language model",
    "mmdet.models.detectors.d2_wrapper.Detectron2Wrapper": "imports another package",
    "mmdet.models.detectors.kd_one_stage.KnowledgeDistillationSingleStageDetector": "runs a config file",
    "mmdet.models.language_models.bert.BertModel": "fetches a language model",
    "mmdet.models.task_modules.tracking.aflink.AppearanceFreeLink": "opens a file",
    "mmdet.models.task_modules.tracking.camera_motion_compensation.CameraMotionCompensation": "evaluates its arguments",
}
# Values of `type` that do not name a component, by the key of their dict. mmcv evaluates the types of suppression as
# Python code, and looks the types of regions up in its module of operators.
_SUPPRESSION = ("nms", "soft_nms")
_REGIONS = ("DeformRoIPoolPack", "ModulatedDeformRoIPoolPack", "RoIAlign", "RoIPool", "SimpleRoIAlign")
_PATHS = ("same_up", "same_down", "across_lateral", "across_down", "across_up", "across_skip", "output")  # of FPG
UNREGISTERED = {
    "nms": _SUPPRESSION,
    "nms_cfg": _SUPPRESSION,
    "dqs_cfg": _SUPPRESSION,
    "roi_layer": _REGIONS,
    "adapt_cfg": ("dilation", "offset"),
    **dict.fromkeys((f"{way}_trans" for way in _PATHS), ("conv", "identity", "interpolation_conv", "last_conv")),
}
# Arguments that name files, URLs or programs.
FOLLOWED = (
    *("_base_", "backend_args", "checkpoint", "custom_imports", "file_client_args", "init_cfg", "label_map_file"),
    *("lang_model_name", "load_from", "pretrained", "proposal_file", "rfstructure_file", "teacher_ckpt"),
    *("teacher_config", "tokenizer_name"),
)

# Most modules of a described network; the largest networks of MMDetection have some thousands.
MOST_MODULES = 20_000
# Largest whole number in a description. Some components loop up to a number; MMDetection's numbers are far below.
LARGEST_NUMBER = 2**20

_ADVICE = "import the Python file that registers it first (`import`)"


def check_stored(
    path: str | Path, node: object, registries: Sequence[Registry], elsewhere: Collection[str] = ()
) -> None:
    """Checks a stored config, so building from it imports, opens and downloads nothing.

    Args:
        path: path of the checkpoint, for messages.
        node: the config, or a part of it.
        registries: the registries in which its types are looked up.
        elsewhere: types that the caller does not look up in a registry.

    Raises:
        UserError: if a type is not registered or is refused (see the module), if an argument names a file, a URL or a
            program, or if a whole number is beyond `LARGEST_NUMBER`.
    """
    for registry in registries:
        registry.import_from_location()  # registers the package's own modules, as building does
    try:
        _check(path, node, registries, "", elsewhere)
    except RecursionError as error:
        raise UserError(f"{path}: its description is nested too deeply") from error


@contextmanager
def few_modules(path: str | Path) -> Iterator[None]:
    """A context that raises UserError if more than `MOST_MODULES` modules are built, as a stored number may demand."""
    built = 0

    def count(*_: object) -> None:
        nonlocal built
        built += 1
        if built > MOST_MODULES:
            raise UserError(f"{path}: describes a model of more than {MOST_MODULES:,} modules; build it with `config`")

    handle = register_module_module_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def _check(
    path: str | Path, node: object, registries: Sequence[Registry], key: str, elsewhere: Collection[str]
) -> None:
    if isinstance(node, Mapping):
        if "type" in node and not (isinstance(node["type"], str) and node["type"] in elsewhere):
            _check_type(path, node["type"], registries, key)
        if node.get("_scope_") is not None and not _is_scope(node["_scope_"], registries):
            raise UserError(f"{path}: names the scope {node['_scope_']!r}, which is not imported; {_ADVICE}")
        for name, value in node.items():
            if name in FOLLOWED and not _is_unset(value):
                raise UserError(
                    f"{path}: sets {name}={value!r}, but a stored config may not name files; load it with its config "
                    "by `config`"
                )
            if name != "type":
                _check(path, value, registries, str(name), elsewhere)
    elif isinstance(node, list | tuple):
        for item in node:
            _check(path, item, registries, key, elsewhere)
    elif type(node) is int and abs(node) > LARGEST_NUMBER:
        raise UserError(
            f"{path}: sets {key}={node}, above the limit of {LARGEST_NUMBER:,}; load it with its config by `config`"
        )
    elif isinstance(node, str) and ("://" in node or (key == "model" and ":" in node)):  # timm's addresses of models
        raise UserError(
            f"{path}: sets {key}={node!r}, but a stored config may not name URLs; load it with its config by `config`"
        )


def _check_type(path: str | Path, name: Any, registries: Sequence[Registry], key: str) -> None:
    if isinstance(name, str) and key in UNREGISTERED and name in UNREGISTERED[key]:
        return
    if key in ("nms", "nms_cfg", "dqs_cfg", "roi_layer"):
        raise UserError(f"{path}: sets {key}.type={name!r}; a stored config may name {', '.join(UNREGISTERED[key])}")
    holders = [registry for registry in registries if _component(name, registry) is not None]
    # If a registry does not have the component, MMEngine imports a module of that name.
    ambiguous = holders and len(holders) < len(registries) and "." not in name and name not in sys.modules
    if not holders or (ambiguous and PathFinder.find_spec(name) is not None):
        raise UserError(f"{path}: names the component {name!r}, which is not registered; {_ADVICE}")
    for component in (_component(name, registry) for registry in holders):
        module, title = str(getattr(component, "__module__", "")), str(getattr(component, "__qualname__", ""))
        if module.split(".")[0] in LIBRARIES:
            reason = REFUSED.get(f"{module}.{title}")
            if reason is None and not any(f"{module}.".startswith(f"{room}.") for room in ROOMS):
                reason = "is not known to be harmless"
            if reason is not None:
                raise UserError(f"{path}: names the component {name!r}, which {reason}; build it with `config`")


def _is_unset(value: object) -> bool:
    return value is None or (isinstance(value, bool | str | Mapping | list | tuple) and not value)


def _component(name: object, registry: Registry) -> object:
    """The component registered under a name in the registry, or in the scope before the dot; None if there is none."""
    if not isinstance(name, str):
        return None
    scope, dot, plain_name = name.rpartition(".")
    if dot and not _is_scope(scope, (registry,)):
        return None
    family = [registry, *_ancestors(registry)]
    if dot:
        family = [m for member in family for m in (member, *member.children.values()) if m.scope == scope]
    return next((m.module_dict[plain_name] for m in family if plain_name in m.module_dict), None)


def _is_scope(scope: object, registries: Sequence[Registry]) -> bool:
    """Whether ``scope`` is the scope of a registry whose module is already imported; MMEngine would import it."""
    if not isinstance(scope, str) or f"{scope}.registry" not in sys.modules:
        return False
    families = (member for registry in registries for member in (registry, *_ancestors(registry)))
    return any(scope == m.scope for member in families for m in (member, *member.children.values()))


def _ancestors(registry: Registry) -> Iterator[Registry]:
    while (parent := registry.parent) is not None:
        yield parent
        registry = parent
