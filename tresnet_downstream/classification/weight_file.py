"""The content of a weight file: the config of its network, its weights, and a readable description."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tresnet_downstream.backbones import Variant
from tresnet_downstream.classification.classifier import ImageClassifier, build_classifier
from tresnet_downstream.classification.descriptions import input_size
from tresnet_downstream.classification.recognition import STYLES, NoNumbers
from tresnet_downstream.errors import UserError
from tresnet_downstream.registry import MODELS, SCOPE
from tresnet_downstream.running.stored_config import few_modules
from tresnet_downstream.weights.catalogue import PublicWeight
from tresnet_downstream.weights.integrity import is_finite
from tresnet_downstream.weights.reading import has_boxes
from tresnet_downstream.wording import first_of


@dataclass(frozen=True)
class WeightFile:
    """The content of a weight file, as recognised from its description or its names and shapes.

    Attributes:
        path: the file.
        style: style of the names in the file: ``release``, ``timm`` or ``tresnet``.
        state_dict: the weights with the names of this package, ``backbone.*`` and ``head.*``.
        backbone: config of the backbone.
        head: config of the head; None if the file has none.
        weights: ``raw`` or ``averaged``.
        classes: the class names; numbers as text if the file has no names.
        multi_label: whether an image may have several labels.
        pipeline: configs of the transforms that prepare an image.
        entry: the entry of the catalogue; None if the file is not public.
        inexact: number of norm weights without an exact equivalent, see :class:`Translated`.
        unused: names in the file that the network does not have.
        named: whether the class names are known.
        described: config of the classifier, if the file is a checkpoint with a description.
        name: name of the backbone, if there is a description.
        thresholds: threshold of each class, if the file is from a shared folder with thresholds.
    """

    path: Path
    style: str
    state_dict: dict[str, Tensor]
    backbone: dict[str, Any]
    head: dict[str, Any] | None
    weights: str = "raw"
    classes: tuple[str, ...] = ()
    multi_label: bool = True
    pipeline: tuple[dict[str, Any], ...] = ()
    entry: PublicWeight | None = None
    inexact: int = 0
    unused: tuple[str, ...] = ()
    named: bool = False
    described: dict[str, Any] | None = None
    name: str = ""
    thresholds: dict[str, float | None] | None = None

    @property
    def variant(self) -> str:
        """The name of the backbone; ``custom`` for a TResNet of an unpublished size."""
        if self.described is not None:
            return self.name
        result: str = self.backbone["model"] if self.backbone["type"] == "TimmNetwork" else self.backbone["variant"]
        return result

    @property
    def input_size(self) -> int:
        """Height of prepared images, in pixels."""
        return input_size(self.pipeline)

    @property
    def classifier(self) -> dict[str, Any]:
        """Config of the classifier."""
        backbone = dict(self.backbone)
        if backbone.get("variant") == "custom":
            backbone["variant"] = "m"
        parts = {"backbone": backbone, "head": self.head, "multi_label": self.multi_label}
        return {"type": "ImageClassifier", **(self.described or {}), **parts}

    def layout(self) -> ImageClassifier:
        """The network on the ``meta`` device, with names and shapes but without values.

        A network with a user's components has values, because these may compute buffers that are not in files.
        """
        if _is_of_package(self.classifier):
            with torch.device("meta"), NoNumbers():
                classifier = self._built()
        else:
            classifier = self._built()
        classifier.classes, classifier.pipeline = self.classes, self.pipeline
        classifier.input_size, classifier.thresholds = self.input_size, self.thresholds
        result: ImageClassifier = classifier.eval()
        return result

    def _built(self) -> ImageClassifier:
        try:
            with few_modules(self.path):
                return build_classifier(self.classifier)
        except UserError:
            raise
        except Exception as error:
            if self.described is None:
                raise
            # A component may raise errors of any type for the arguments in the file.
            reason = " ".join(str(error).split())[:120]
            raise UserError(f"{self.path}: describes a model that cannot be built ({reason})") from error


def _is_of_package(config: object) -> bool:
    """Whether all components of a checked config are of this package."""
    if isinstance(config, Mapping):
        kind = MODELS.get(config["type"]) if "type" in config else None
        own = kind is None or kind.__module__.startswith(f"{SCOPE}.")
        return own and all(_is_of_package(value) for value in config.values())
    return not isinstance(config, list | tuple) or all(_is_of_package(item) for item in config)


def not_finite(state_dict: Mapping[str, Tensor]) -> list[str]:
    """Names of tensors with values that are NaN or infinite, or with a negative variance, which causes NaN."""
    return [
        name
        for name, tensor in state_dict.items()
        if not is_finite(tensor) or (name.endswith(".running_var") and (tensor < 0).any())
    ]


def describe(file: WeightFile) -> str:
    """A description of a weight file in about ten lines."""
    layout = file.layout()
    variant = getattr(layout.backbone, "variant", None)
    slopes = "{:g}, {:g}".format(*variant.slopes) if isinstance(variant, Variant) else ""
    note = "" if file.entry or file.described else " (not known from the file; `slopes` sets others)"
    resize = {"SquashResize": "squashed", "ResizeAndCrop": "short side / 0.875, centre cropped"}
    how = ", then ".join(resize.get(step["type"], step["type"]) for step in file.pipeline)
    shown = ", ".join(file.classes[:4]) + (", ..." if len(file.classes) > 4 else "")
    head = file.head or {"type": "none: returns pooled features", "num_classes": 0}
    output = "a probability for each class" if file.multi_label else "one class of all"
    names = f": {shown}" if file.named else ", not named in the file" if file.head else ""
    groups = f", {head['num_groups']} groups" if head.get("num_groups") else ""
    bad = not_finite(file.state_dict)
    rows = {
        "file": f"{file.path} ({file.path.stat().st_size / 1e6:.0f} MB)",
        **({"detector": "only its backbone is described"} if has_boxes(file.unused) else {}),
        "release": f"{STYLES[file.style]}, {file.weights} weights",
        "variant": file.variant + ("" if file.variant != "custom" else f" {file.backbone}"),
        **({"slopes": slopes + note} if slopes else {}),
        "head": f"{head['type']}{groups}",
        "classes": f"{head['num_classes']}{names}",
        "parameters": f"{sum(parameter.numel() for parameter in layout.parameters()):,}",
        "input": f"{file.input_size} x {file.input_size}, {how}",
        "output": output if file.head else "pooled features",
        "values": f"not finite in {first_of(bad)}" if bad else "all finite",
    }
    if file.inexact:
        rows["norms"] = f"{file.inexact} weights below 1e-5 are set to 1e-5, since they have no exact equivalent"
    if file.unused:
        rows["unused"] = ", ".join(file.unused[:4]) + (
            f" and {len(file.unused) - 4} more" if len(file.unused) > 4 else ""
        )
    return "\n".join(f"{name:<11} {value}" for name, value in rows.items())
