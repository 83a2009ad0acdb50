"""Converts a classifier to what timm can load: timm's name of the network, its config, and renamed weights.

The weights of a TResNet are written with the parameter names of the TResNet release. timm renames them when it loads
them, and computes the weights of its norms from them by the formula that this toolkit uses, so the values are exact.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from tresnet_downstream.backbones import VARIANTS, Variant
from tresnet_downstream.classification.timm_files import pretrained_config
from tresnet_downstream.classification.weight_file import WeightFile
from tresnet_downstream.errors import UserError
from tresnet_downstream.weights.formats import RELEASE, TIMM, to_release
from tresnet_downstream.weights.shared import to_timm_network

# timm's names of the variants of TResNet that it has.
_NAMES = {"m": "tresnet_m", "l": "tresnet_l", "xl": "tresnet_xl", "v2_l": "tresnet_v2_l"}
_BASIC, _V2 = ("basic", "basic", "bottleneck", "bottleneck"), ("bottleneck",) * 4
_SLOPES = (1e-2, 1e-3)
# Largest difference of timm's logits, relative to the largest logit. timm adds in another order, so rounding differs.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class TimmForm:
    """A classifier in the form that timm loads.

    Attributes:
        architecture: timm's name of the network.
        arguments: further arguments of the network; empty if timm has the network under its own name.
        tensors: the weights.
        names: the naming scheme of the weights, ``release`` or ``timm``.
        config: timm's ``pretrained_cfg``.
        layer: timm's name of the classification layer.
        is_exact: whether ``config`` describes all steps of the classifier's pipeline.
    """

    architecture: str
    arguments: Mapping[str, object]
    tensors: Mapping[str, Tensor]
    names: str
    config: Mapping[str, object]
    layer: str
    is_exact: bool


def timm_form(file: WeightFile) -> TimmForm | str:
    """Converts a classifier for timm.

    Returns:
        The converted classifier; or, if timm does not have the network, the reason as text.

    Examples:
        >>> from tresnet_downstream.classification import ImageClassifier
        >>> backbone = {"type": "TResNet", "layers": (1, 1, 1, 1), "width": 0.25}
        >>> classifier = ImageClassifier(backbone, {"type": "MLDecoderHead", "num_classes": 3})
        >>> torch.save(classifier.state_dict(), "classifier.pth")
        >>> from tresnet_downstream.classification.weight_file_reading import read_weight_file
        >>> timm_form(read_weight_file("classifier.pth"))
        'timm has no network with a MLDecoderHead'
    """
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
        return f"timm has no TResNet with the negative slopes {variant.slopes} of the leaky ReLU"
    if variant.blocks not in (_BASIC, _V2):
        return f"timm has no TResNet with the blocks {', '.join(variant.blocks)}"
    name = next((name for name, known in VARIANTS.items() if known == variant and name in _NAMES), None)
    arguments: dict[str, object] = {}
    if name is None:
        if find_spec("timm") is None:
            return (
                "timm has no TResNet of this size under a name, and is not installed, so its arguments cannot be tested"
            )
        arguments = {"layers": list(variant.layers), "width_factor": variant.width}
        name = "v2_l" if variant.blocks == _V2 else "m"
    stride = 32
    config: dict[str, object] = {
        **_preparation(file),
        "mean": [0.0, 0.0, 0.0],
        "std": [1.0, 1.0, 1.0],
        "first_conv": "body.conv1.conv",
        "classifier": "head.fc",
        "pool_size": [max(file.input_size // stride, 1)] * 2,
    }
    tensors = to_release(file.state_dict)
    return TimmForm(_NAMES[name], arguments, tensors, RELEASE, config, "head.fc", _is_resize_only(file))


def _timm_network(file: WeightFile) -> TimmForm | str:
    try:
        known = pretrained_config(file.variant)
    except UserError as error:
        return str(error)
    layer = known.get("classifier")
    if not isinstance(layer, str):
        return f"the classifier of {file.variant} has several layers in timm"
    config: dict[str, object] = {
        **_preparation(file),
        **{key: known[key] for key in ("mean", "std", "first_conv", "classifier") if key in known},
    }
    tensors = to_timm_network(file.state_dict, layer)
    return TimmForm(file.variant, {}, tensors, TIMM, config, layer, _is_resize_only(file))


def _is_resize_only(file: WeightFile) -> bool:
    """Whether the pipeline is one resizing step that a config of timm can describe."""
    return len(file.pipeline) == 1 and file.pipeline[0]["type"] in ("SquashResize", "ResizeAndCrop")


def _preparation(file: WeightFile) -> dict[str, object]:
    """The keys of timm's config for resizing and cropping of images."""
    step = file.pipeline[-1] if _is_resize_only(file) else {}
    if step.get("type") == "ResizeAndCrop":
        crop = {"crop_pct": step.get("fraction", 0.875), "crop_mode": "center"}
        interpolation = step.get("interpolation", "bilinear")
    else:
        crop, interpolation = {"crop_pct": 1.0, "crop_mode": "squash"}, "bilinear"
    side = file.input_size
    return {"input_size": [3, side, side], "interpolation": interpolation, **crop}


def difference_from_timm(folder: Path, logits: Tensor, images: Tensor, form: TimmForm) -> float | str:
    """Loads a shared folder with timm and compares the logits.

    Args:
        folder: the folder with ``config.json`` and ``model.safetensors``.
        logits: the classifier's logits of the images, N x C.
        images: N x 3 x H x W in [0, 1].
        form: the converted classifier. Its config has the mean and standard deviation, because timm normalises images
            outside of the network.

    Returns:
        The largest absolute difference of the logits, relative to the largest absolute logit; or, if timm cannot load
        the folder, the reason as text.
    """
    import timm

    try:
        network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        mean, std = (torch.tensor(form.config[key])[:, None, None] for key in ("mean", "std"))
        with torch.inference_mode():
            timm_logits = network((images - mean) / std)
    except Exception as error:  # timm may raise any exception.
        return f"timm cannot load it ({' '.join(str(error).split())[:120]})"
    return float((timm_logits - logits).abs().max() / logits.abs().max().clamp(min=1e-12))
