"""The form in which timm reads a classifier: its name of the network, and the weights under names that timm takes.

TResNets are written under the names of the releases: timm turns those into its own, and computes its norms' weights
from them as this toolkit does, so that no number changes on the way.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tresnet_downstream.backbones import VARIANTS, Variant
from tresnet_downstream.classification.timm_files import pretrained_config
from tresnet_downstream.classification.weight_file import WeightFile
from tresnet_downstream.errors import UserError
from tresnet_downstream.weights.formats import RELEASE, TIMM, to_release
from tresnet_downstream.weights.shared import to_timm_network

# Of the networks that timm has under a name.
_NAMES = {"m": "tresnet_m", "l": "tresnet_l", "xl": "tresnet_xl", "v2_l": "tresnet_v2_l"}
_BASIC, _V2 = ("basic", "basic", "bottleneck", "bottleneck"), ("bottleneck",) * 4
_SLOPES = (1e-2, 1e-3)
# How far timm's logits may be off, as a part of the largest one: rounding, as timm multiplies in another order.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class TimmForm:
    """What timm reads.

    Attributes:
        architecture: timm's name of the network.
        arguments: of the network besides, where it is none of timm's named ones.
        tensors: the weights.
        names: of the weights, ``release`` or ``timm``.
        config: timm's ``pretrained_cfg``.
        layer: the classifier's name in timm.
        is_exact: whether timm prepares pictures as the classifier's pipeline does, as far as its config can say.
    """

    architecture: str
    arguments: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    names: str
    config: Mapping[str, Any]
    layer: str
    is_exact: bool


def timm_form(file: WeightFile) -> TimmForm | str:
    """What timm reads of a classifier, or why timm cannot read it."""
    assert file.head is not None
    if file.classifier["type"] not in ("ImageClassifier", "tresnet_downstream.ImageClassifier"):
        return f"timm has no {file.classifier['type']}"
    if file.head["type"] not in ("LinearHead", "tresnet_downstream.LinearHead"):
        return f"timm has no network with a {file.head['type']}"
    backbone = file.layout().backbone
    if isinstance(variant := getattr(backbone, "variant", None), Variant):
        return _tresnet(file, variant)
    if file.backbone["type"] in ("TimmNetwork", "tresnet_downstream.TimmNetwork"):
        return _timm_network(file)
    return f"timm has no {file.backbone['type']}"


def _tresnet(file: WeightFile, variant: Variant) -> TimmForm | str:
    if tuple(variant.slopes) != _SLOPES:
        return f"timm has no TResNet with the leaky slopes {variant.slopes}"
    if variant.blocks not in (_BASIC, _V2):
        return f"timm has no TResNet with the blocks {', '.join(variant.blocks)}"
    name = next((name for name, known in VARIANTS.items() if known == variant and name in _NAMES), None)
    arguments: dict[str, Any] = {}
    if name is None:
        if find_spec("timm") is None:
            return "timm has no such TResNet under a name, and is not installed here to try its arguments"
        arguments = {"layers": list(variant.layers), "width_factor": variant.width}
        name = "v2_l" if variant.blocks == _V2 else "m"
    stride = 32
    config: dict[str, Any] = {
        **_preparation(file),
        "mean": [0.0, 0.0, 0.0],
        "std": [1.0, 1.0, 1.0],
        "first_conv": "body.conv1.conv",
        "classifier": "head.fc",
        "pool_size": [max(file.input_size // stride, 1)] * 2,
    }
    tensors = to_release(file.state_dict)
    return TimmForm(_NAMES[name], arguments, tensors, RELEASE, config, "head.fc", _can_tell(file))


def _timm_network(file: WeightFile) -> TimmForm | str:
    try:
        known = pretrained_config(file.variant)
    except UserError as error:
        return str(error)
    layer = known.get("classifier")
    if not isinstance(layer, str):
        return f"the classifier of {file.variant} has several layers in timm"
    config: dict[str, Any] = {
        **_preparation(file),
        **{key: known[key] for key in ("mean", "std", "first_conv", "classifier") if key in known},
    }
    tensors = to_timm_network(file.state_dict, layer)
    return TimmForm(file.variant, {}, tensors, TIMM, config, layer, _can_tell(file))


def _can_tell(file: WeightFile) -> bool:
    return len(file.pipeline) == 1 and file.pipeline[0]["type"] in ("SquashResize", "ResizeAndCrop")


def _preparation(file: WeightFile) -> dict[str, Any]:
    """How timm brings a picture to the network's size."""
    step = file.pipeline[-1] if _can_tell(file) else {}
    if step.get("type") == "ResizeAndCrop":
        crop = {"crop_pct": step.get("fraction", 0.875), "crop_mode": "center"}
        interpolation = step.get("interpolation", "bilinear")
    else:
        crop, interpolation = {"crop_pct": 1.0, "crop_mode": "squash"}, "bilinear"
    side = file.input_size
    return {"input_size": [3, side, side], "interpolation": interpolation, **crop}


def difference_from_timm(folder: Path, logits: Tensor, pictures: Tensor, form: TimmForm) -> float | str:
    """How far timm's logits are off, as a part of the largest one; or why timm cannot read the folder.

    Args:
        folder: with ``config.json`` and ``model.safetensors``.
        logits: N x C, of the classifier.
        pictures: N x 3 x H x W in [0, 1].
        form: with the mean and standard deviation that timm applies outside of the network.
    """
    import timm

    try:
        network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        mean, std = (torch.tensor(form.config[key])[:, None, None] for key in ("mean", "std"))
        with torch.inference_mode():
            theirs = network((pictures - mean) / std)
    except Exception as error:  # whatever timm raises
        return f"timm does not read it ({' '.join(str(error).split())[:120]})"
    return float((theirs - logits).abs().max() / logits.abs().max().clamp(min=1e-12))
