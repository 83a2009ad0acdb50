"""Reads weight files of networks of timm as classifiers with the preprocessing of timm.

The network cannot be inferred from names and shapes. The user or the catalogue names it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tresnet_downstream.classification.weight_file import WeightFile
from tresnet_downstream.errors import UserError
from tresnet_downstream.weights.formats import TIMM

_PREFIXES = ("module.", "network.")


def timm_weight_file(path: Path, tensors: Mapping[str, Tensor], network: str) -> WeightFile:
    """The content of a file of a network of timm, with the names of this package.

    Args:
        path: the file, for messages.
        tensors: its weights, with timm's names.
        network: name of the network in timm, such as ``tf_efficientnet_lite0``.

    Raises:
        UserError: if timm is not installed or has no such network, or the file has no classifier.
    """
    config = pretrained_config(network)
    state_dict = {}
    classifier = str(config.get("classifier") or "")
    for name, tensor in tensors.items():
        bare = name
        for prefix in _PREFIXES:
            bare = bare.removeprefix(prefix)
        layer, _, kind = bare.rpartition(".")
        state_dict[f"head.fc.{kind}" if layer == classifier else f"backbone.network.{bare}"] = tensor
    if "head.fc.weight" not in state_dict or "head.fc.bias" not in state_dict:
        raise UserError(f"{path}: has no weights of the classifier {classifier!r} that {network} has")
    return WeightFile(
        path=path,
        style=TIMM,
        state_dict=state_dict,
        backbone={"type": "TimmNetwork", "model": network},
        head={"type": "LinearHead", "num_classes": len(state_dict["head.fc.weight"])},
        multi_label=False,
        pipeline=timm_pipeline(config),
    )


def timm_pipeline(config: Mapping[str, Any], size: int | None = None) -> tuple[dict[str, Any], ...]:
    """The transform by which timm prepares images in the evaluation of a network.

    Args:
        config: the result of `pretrained_config`.
        size: height and width in pixels; None for those of the network.

    Raises:
        UserError: if there is no equivalent transform in this package.
    """
    side = size or int(config["input_size"][-1])
    mode, interpolation = config.get("crop_mode", "center"), config.get("interpolation", "bicubic")
    if mode not in ("center", "squash") or interpolation not in ("bilinear", "bicubic"):
        raise UserError(
            f"network: timm prepares its images by {mode!r} and {interpolation!r}, which is not supported here"
        )
    if mode == "squash":
        return ({"type": "SquashResize", "size": side},)
    fraction = float(config.get("crop_pct") or 0.875)
    return ({"type": "ResizeAndCrop", "size": side, "fraction": fraction, "interpolation": interpolation},)


def pretrained_config(network: str) -> dict[str, Any]:
    """The config of a network's weights in timm: input size, crop, interpolation, name of the classifier.

    Raises:
        UserError: if timm is not installed or has no such network.
    """
    try:
        import timm
    except ImportError as error:
        raise UserError("a network of timm needs timm: pip install 'tresnet-downstream[timm]'") from error
    config = timm.get_pretrained_cfg(network, allow_unregistered=False) if timm.is_model(network) else None
    if config is None:
        raise UserError(f"network={network!r}: timm has no such network, or no weights of it")
    return dict(config.to_dict())
