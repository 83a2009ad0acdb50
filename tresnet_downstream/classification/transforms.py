"""Picture transforms: Albumentations' by name, and those of the published multi-label recipes.

The recipes train on `SquashResize`, `Cutout`, `RandAugment` and score on `SquashResize` alone, without
normalisation. What changes pixels stands in functions over uint8 arrays of shape (height, width, 3) in RGB;
the classes hold settings and draw. Every draw comes from the generators that Albumentations hands to a
transform (``py_random``, ``random_generator``), never from a global one: whoever sets those decides all.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from tresnet_downstream.classification import pixel_operations, rand_augment
from tresnet_downstream.errors import UserError
from tresnet_downstream.prediction import resizing
from tresnet_downstream.registry import TRANSFORMS

# Else Albumentations asks the network for a newer version of itself as it is imported.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations

# Albumentations' transforms that open files or call functions named in their arguments.
_OF_FILES = {
    "FDA",
    "HistogramMatching",
    "Lambda",
    "PixelDistributionAdaptation",
    "TemplateTransform",
    "TextImage",
}


def squash_resize(image: np.ndarray, height: int, width: int, interpolation: str = "bilinear") -> np.ndarray:
    """Resize to ``height`` x ``width`` whatever the proportions, ``bilinear`` or ``bicubic``, with antialiasing.

    The pixels are those of :func:`prediction.resizing.resize`, at several times its speed, and within 1 of those of
    torchvision's ``Resize((height, width))`` on a Pillow image.
    """
    # Torch has one kernel for uint8 with the colours side by side, four times as fast as Pillow's.
    batch = torch.from_numpy(np.require(image, requirements=["C", "W"]))[None].permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(batch, (height, width), mode=interpolation, antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def cut_out(image: np.ndarray, factor: float, centre: tuple[int, int], colour: tuple[int, int, int]) -> np.ndarray:
    """Paint a rectangle of ``factor`` times each side, as the ASL release does.

    Per axis it reaches from ``centre - size // 2`` to ``centre + size // 2``, both ends painted, as far as
    the picture goes, where ``size`` is ``factor`` times the side, rounded half up.

    Args:
        image: uint8 of shape (height, width, 3), left as it is.
        factor: size of the rectangle as a part of the picture's, 0 to 1.
        centre: row and column.
        colour: red, green and blue, 0 to 255.

    Returns:
        uint8 of the same shape.
    """
    halves = [int(factor * side + 0.5) // 2 for side in image.shape[:2]]
    rows, columns = (slice(max(place - half, 0), place + half + 1) for place, half in zip(centre, halves, strict=True))
    return pixel_operations.paint(image, rows, columns, colour)


@TRANSFORMS.register_module()
class SquashResize(albumentations.ImageOnlyTransform):
    """Resize to a fixed size whatever the proportions; see `squash_resize`.

    Args:
        size: side in pixels, or height and width.
        p: probability of applying the transform, 0 to 1.
    """

    def __init__(self, size: int | Sequence[int], p: float = 1.0) -> None:
        super().__init__(p=p)
        self.size = resizing.sides_of(size)

    def apply(self, img: np.ndarray, **_: Any) -> np.ndarray:
        """Give the picture at the size wanted."""
        return squash_resize(img, *self.size)


@TRANSFORMS.register_module()
class ResizeAndCrop(albumentations.ImageOnlyTransform):
    """Resize the short side, keeping the proportions, and cut the centre out; see `resizing.resize_and_crop`.

    How the releases and timm score on ImageNet at 224.

    Args:
        size: side in pixels.
        fraction: part of the short side that is kept, above 0 and at most 1.
        interpolation: ``bilinear`` or ``bicubic``.
        p: probability of applying the transform, 0 to 1.
    """

    def __init__(self, size: int, fraction: float = 0.875, interpolation: str = "bilinear", p: float = 1.0) -> None:
        super().__init__(p=p)
        resizing.require_crop(size, fraction, interpolation)
        self.size, self.fraction, self.interpolation = size, fraction, interpolation

    def apply(self, img: np.ndarray, **_: Any) -> np.ndarray:
        """Give the picture at the size wanted."""
        return resizing.resize_and_crop(img, self.size, self.fraction, self.interpolation, squash_resize)


@TRANSFORMS.register_module()
class RandomCropAndResize(albumentations.ImageOnlyTransform):
    """Cut a random part of the picture out and resize it to a square, as the Inception networks were trained.

    The draws are torchvision's ``RandomResizedCrop``'s: ten tries for an area and proportions that fit, then the
    centre. Unlike Albumentations' transform of that name, this resizes with antialiasing.

    Args:
        size: side in pixels.
        scale: least and greatest part of the picture's area.
        ratio: least and greatest width over height.
        interpolation: ``bilinear`` or ``bicubic``.
        p: probability of applying the transform, 0 to 1.
    """

    def __init__(
        self,
        size: int,
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        interpolation: str = "bilinear",
        p: float = 1.0,
    ) -> None:
        super().__init__(p=p)
        resizing.require_interpolation(interpolation)
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"size is {size}, not a positive whole number")
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"scale is {scale}, not two numbers above 0 and at most 1, the smaller first")
        if len(ratio) != 2 or not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f"ratio is {ratio}, not two numbers above 0, the smaller first")
        self.size, self.interpolation = size, interpolation
        self.scale, self.ratio = (float(scale[0]), float(scale[1])), (float(ratio[0]), float(ratio[1]))

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the part: top, left, height and width in pixels."""
        height, width = params["shape"][:2]
        for _ in range(10):
            area = height * width * self.py_random.uniform(*self.scale)
            proportion = math.exp(self.py_random.uniform(*map(math.log, self.ratio)))
            cut = round(math.sqrt(area / proportion)), round(math.sqrt(area * proportion))
            if 0 < cut[0] <= height and 0 < cut[1] <= width:
                top, left = (
                    self.py_random.randint(0, side - part) for side, part in zip((height, width), cut, strict=True)
                )
                return {"part": (top, left, *cut)}
        proportion = min(max(width / height, self.ratio[0]), self.ratio[1])
        cut = min(height, round(width / proportion)), min(width, round(height * proportion))
        return {"part": ((height - cut[0]) // 2, (width - cut[1]) // 2, *cut)}

    def apply(self, img: np.ndarray, part: tuple[int, int, int, int], **_: Any) -> np.ndarray:
        """Give the part that was drawn, at the size wanted."""
        top, left, height, width = part
        return squash_resize(img[top : top + height, left : left + width], self.size, self.size, self.interpolation)


@TRANSFORMS.register_module()
class Cutout(albumentations.ImageOnlyTransform):
    """Paint a rectangle of one random colour around a random point of the picture; see `cut_out`.

    The centre is uniform over the picture, so that the rectangle is often clipped by the border.

    Args:
        factor: size of the rectangle as a part of the picture's, above 0 and at most 1.
        p: probability of applying the transform, 0 to 1.
    """

    def __init__(self, factor: float = 0.5, p: float = 1.0) -> None:
        super().__init__(p=p)
        if not 0 < factor <= 1:
            raise ValueError(f"factor is {factor}, not above 0 and at most 1")
        self.factor = factor

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the rectangle's centre and colour."""
        height, width = params["shape"][:2]
        return {
            "centre": (self.py_random.randrange(height), self.py_random.randrange(width)),
            "colour": tuple(self.py_random.randrange(256) for _ in range(3)),
        }

    def apply(self, img: np.ndarray, centre: tuple[int, int], colour: tuple[int, int, int], **_: Any) -> np.ndarray:
        """Give the picture with the rectangle that was drawn."""
        return cut_out(img, self.factor, centre, colour)


@TRANSFORMS.register_module()
class RandAugment(albumentations.ImageOnlyTransform):
    """Two random operations of fifteen, each applied with probability 0.5; see `rand_augment`.

    Args:
        p: probability of applying the transform, 0 to 1.
    """

    def __init__(self, p: float = 1.0) -> None:
        super().__init__(p=p)

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the operations."""
        return {"steps": rand_augment.draw_steps(self.py_random, params["shape"])}

    def apply(self, img: np.ndarray, steps: list[rand_augment.Step], **_: Any) -> np.ndarray:
        """Give the picture after the operations that were drawn."""
        for step in steps:
            img = rand_augment.apply_operation(img, *step)
        return img


def build_pipeline(transforms: Sequence[Mapping[str, Any]]) -> albumentations.Compose:
    """Build the transforms of a config, in order.

    Args:
        transforms: for each transform a dictionary of its ``type`` and its arguments. A type is found in this
            toolkit's registry first, then among Albumentations' transforms. ``OneOf`` and its like take their
            ``transforms`` in the same form.

    Returns:
        A pipeline, called as ``pipeline(image=array)["image"]``.

    Raises:
        UserError: an entry without type, an unknown type, or arguments that do not fit the transform.
    """
    return albumentations.Compose([_build(entry) for entry in transforms])


def enough_pixels(pipeline: albumentations.Compose) -> tuple[int, int] | None:
    """Height and width below which a picture need not fall before the pipeline: the size that it squashes to first.

    None where something else comes first, which may want every pixel.
    """
    first = pipeline.transforms[0] if pipeline.transforms else None
    return first.size if isinstance(first, SquashResize) and first.p == 1 else None


def names_for_checkpoints() -> set[str]:
    """Albumentations' transforms that a checkpoint may name: all but those that take a file or a function."""
    families = (albumentations.BasicTransform, albumentations.BaseCompose)
    kinds = {name: kind for name, kind in vars(albumentations).items() if isinstance(kind, type)}
    return {name for name, kind in kinds.items() if issubclass(kind, families)} - _OF_FILES


def _build(entry: Mapping[str, Any]) -> Any:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("type"), str):
        raise UserError(f"pipeline: {entry!r} is no transform; an entry is dict(type='NAME', ...)")
    arguments = {key: value for key, value in entry.items() if key != "type"}
    name = entry["type"]
    # Not `TRANSFORMS.get`, which would go on to the transforms of other OpenMMLab packages.
    kind: Any = TRANSFORMS.module_dict.get(name, getattr(albumentations, name, None))
    families = (albumentations.BasicTransform, albumentations.BaseCompose)
    if not isinstance(kind, type) or not issubclass(kind, families):
        known = ", ".join(sorted(TRANSFORMS.module_dict))
        raise UserError(f"pipeline: no transform '{name}'; there are {known} and Albumentations' own")
    if hasattr(getattr(kind, "__init__", None), "__signature__"):
        # Albumentations checks this one's arguments, and else warns and goes on without those given.
        arguments["strict"] = True
    try:
        if issubclass(kind, albumentations.BaseCompose) and "transforms" in arguments:
            arguments["transforms"] = [_build(child) for child in arguments["transforms"]]
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        reason = " ".join(line.strip() for line in str(error).splitlines() if "errors.pydantic.dev" not in line)
        raise UserError(f"pipeline: {name} does not take its arguments: {reason}") from error
