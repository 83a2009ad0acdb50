"""Image transforms: those of the published multi-label recipes, and those of Albumentations by name.

The recipes train with `SquashResize`, `Cutout` and `RandAugment` and score with `SquashResize` alone, without
normalisation. Functions of uint8 arrays of shape (height, width, 3) in RGB change the pixels; classes have the settings
and draw random values. All draws come from the generators of the transform (``py_random``, ``random_generator``), which
the caller seeds, and not from global ones.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
import torch

from tresnet_downstream.classification import pixel_operations, rand_augment
from tresnet_downstream.errors import UserError
from tresnet_downstream.prediction import resizing
from tresnet_downstream.registry import TRANSFORMS

# Otherwise Albumentations looks for a newer version on the internet when it is imported.
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


class ImageParams(TypedDict):
    """What Albumentations passes to ``get_params_dependent_on_data``.

    Attributes:
        shape: height, width and channels of the image.
    """

    shape: tuple[int, int, int]


def squash_resize(image: np.ndarray, height: int, width: int, interpolation: str = "bilinear") -> np.ndarray:
    """Resizes to ``height`` x ``width`` without keeping the aspect ratio, with antialiasing.

    The pixels equal those of :func:`prediction.resizing.resize`, which is several times slower. They differ by at most
    1 from torchvision's ``Resize((height, width))`` of a Pillow image.

    Args:
        image: uint8 of shape (height, width, 3).
        height: new height in pixels.
        width: new width in pixels.
        interpolation: ``bilinear`` or ``bicubic``.
    """
    # For uint8 in channels-last layout, torch has a kernel that is four times as fast as Pillow's.
    batch = torch.from_numpy(np.require(image, requirements=["C", "W"]))[None].permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(batch, (height, width), mode=interpolation, antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def cut_out(image: np.ndarray, factor: float, centre: tuple[int, int], colour: tuple[int, int, int]) -> np.ndarray:
    """Paints a rectangle of ``factor`` times each side, as in the ASL release.

    Let ``size`` be ``factor`` times a side, rounded half up. Along this side, the rectangle covers the pixels from
    ``centre - size // 2`` to ``centre + size // 2`` inclusive, clipped to the image.

    Args:
        image: uint8 of shape (height, width, 3), which is not changed.
        factor: size of the rectangle relative to the image, 0 to 1.
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
    """Resizes to a fixed size without keeping the aspect ratio; see `squash_resize`.

    Args:
        size: height and width in pixels, as one number if they are equal.
        p: probability of applying the transform, 0 to 1.
    """

    def __init__(self, size: int | Sequence[int], p: float = 1.0) -> None:
        super().__init__(p=p)
        self.size = resizing.sides_of(size)

    def apply(self, img: np.ndarray, **_: object) -> np.ndarray:
        """Resizes the image."""
        return squash_resize(img, *self.size)


@TRANSFORMS.register_module()
class ResizeAndCrop(albumentations.ImageOnlyTransform):
    """Resizes the short side, keeping the aspect ratio, and crops the centre; see `resizing.resize_and_crop`.

    This is the preprocessing of the releases and timm for scoring on ImageNet at 224.

    Args:
        size: height and width of the crop in pixels.
        fraction: ratio of the crop to the resized short side, above 0 and at most 1.
        interpolation: ``bilinear`` or ``bicubic``.
        p: probability of applying the transform, 0 to 1.
    """

    def __init__(self, size: int, fraction: float = 0.875, interpolation: str = "bilinear", p: float = 1.0) -> None:
        super().__init__(p=p)
        resizing.require_crop(size, fraction, interpolation)
        self.size, self.fraction, self.interpolation = size, fraction, interpolation

    def apply(self, img: np.ndarray, **_: object) -> np.ndarray:
        """Resizes the image."""
        return resizing.resize_and_crop(img, self.size, self.fraction, self.interpolation, squash_resize)


@TRANSFORMS.register_module()
class RandomCropAndResize(albumentations.ImageOnlyTransform):
    """Crops a random part of the image and resizes it to a square, as in the training of the Inception networks.

    The distribution is that of torchvision's ``RandomResizedCrop``: up to ten draws of an area and an aspect ratio that
    fit into the image, otherwise the centre. Unlike Albumentations' class of that name, it resizes with antialiasing.

    Args:
        size: height and width of the result in pixels.
        scale: smallest and largest area of the crop relative to the image.
        ratio: smallest and largest ratio of width to height.
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

    def get_params_dependent_on_data(self, params: ImageParams, data: object) -> dict[str, tuple[int, int, int, int]]:
        """Draws the crop: top, left, height and width in pixels."""
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

    def apply(self, img: np.ndarray, part: tuple[int, int, int, int], **_: object) -> np.ndarray:
        """Crops and resizes the image."""
        top, left, height, width = part
        return squash_resize(img[top : top + height, left : left + width], self.size, self.size, self.interpolation)


@TRANSFORMS.register_module()
class Cutout(albumentations.ImageOnlyTransform):
    """Paints a rectangle in one random colour around a random point of the image; see `cut_out`.

    The centre is uniformly distributed over the image, so that the rectangle is often clipped.

    Args:
        factor: size of the rectangle relative to the image, above 0 and at most 1.
        p: probability of applying the transform, 0 to 1.
    """

    def __init__(self, factor: float = 0.5, p: float = 1.0) -> None:
        super().__init__(p=p)
        if not 0 < factor <= 1:
            raise ValueError(f"factor is {factor}, not above 0 and at most 1")
        self.factor = factor

    def get_params_dependent_on_data(self, params: ImageParams, data: object) -> dict[str, tuple[int, ...]]:
        """Draws the centre and the colour of the rectangle."""
        height, width = params["shape"][:2]
        return {
            "centre": (self.py_random.randrange(height), self.py_random.randrange(width)),
            "colour": tuple(self.py_random.randrange(256) for _ in range(3)),
        }

    def apply(self, img: np.ndarray, centre: tuple[int, int], colour: tuple[int, int, int], **_: object) -> np.ndarray:
        """Paints the rectangle."""
        return cut_out(img, self.factor, centre, colour)


@TRANSFORMS.register_module()
class RandAugment(albumentations.ImageOnlyTransform):
    """Applies two random operations of fifteen, each with probability 0.5; see `rand_augment`.

    Args:
        p: probability of applying the transform, 0 to 1.
    """

    def __init__(self, p: float = 1.0) -> None:
        super().__init__(p=p)

    def get_params_dependent_on_data(self, params: ImageParams, data: object) -> dict[str, list[rand_augment.Step]]:
        """Draws the operations."""
        return {"steps": rand_augment.draw_steps(self.py_random, params["shape"])}

    def apply(self, img: np.ndarray, steps: list[rand_augment.Step], **_: object) -> np.ndarray:
        """Applies the operations."""
        for step in steps:
            img = rand_augment.apply_operation(img, *step)
        return img


def build_pipeline(transforms: Sequence[Mapping[str, Any]]) -> albumentations.Compose:
    """Builds the transforms of a config.

    Args:
        transforms: for each transform, in order, a dictionary of its ``type`` and its arguments. The type is a name in
            the registry of this toolkit, or else of a transform of Albumentations. Compositions such as ``OneOf`` have
            their ``transforms`` in the same form.

    Returns:
        A pipeline, which is called as ``pipeline(image=array)["image"]``.

    Raises:
        UserError: if an entry has no type or an unknown one, or if the arguments are not those of the transform.

    Examples:
        >>> pipeline = build_pipeline([{"type": "SquashResize", "size": 16}, {"type": "HorizontalFlip", "p": 1.0}])
        >>> pipeline(image=np.zeros((40, 60, 3), np.uint8))["image"].shape
        (16, 16, 3)
    """
    return albumentations.Compose([_build(entry) for entry in transforms])


def enough_pixels(pipeline: albumentations.Compose) -> tuple[int, int] | None:
    """Height and width to which a pipeline squashes images first, so that larger images may be decoded at this size.

    None if the pipeline begins with another transform.
    """
    first = pipeline.transforms[0] if pipeline.transforms else None
    return first.size if isinstance(first, SquashResize) and first.p == 1 else None


def names_for_checkpoints() -> set[str]:
    """Names of Albumentations' transforms that are allowed in checkpoints: all that take no file or function."""
    families = (albumentations.BasicTransform, albumentations.BaseCompose)
    kinds = {name: kind for name, kind in vars(albumentations).items() if isinstance(kind, type)}
    return {name for name, kind in kinds.items() if issubclass(kind, families)} - _OF_FILES


def _build(entry: Mapping[str, Any]) -> albumentations.BasicTransform | albumentations.BaseCompose:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("type"), str):
        raise UserError(f"pipeline: {entry!r} is not a transform; an entry is dict(type='NAME', ...)")
    arguments = {key: value for key, value in entry.items() if key != "type"}
    name = entry["type"]
    # Not `TRANSFORMS.get`, which would also search the transforms of other OpenMMLab packages.
    kind = TRANSFORMS.module_dict.get(name, getattr(albumentations, name, None))
    families = (albumentations.BasicTransform, albumentations.BaseCompose)
    if not isinstance(kind, type) or not issubclass(kind, families):
        known = ", ".join(sorted(TRANSFORMS.module_dict))
        raise UserError(f"pipeline: no transform '{name}'; there are {known} and Albumentations' own")
    if hasattr(getattr(kind, "__init__", None), "__signature__"):
        # With `strict`, Albumentations raises an error for unknown arguments, instead of a warning.
        arguments["strict"] = True
    try:
        if issubclass(kind, albumentations.BaseCompose) and "transforms" in arguments:
            arguments["transforms"] = [_build(child) for child in arguments["transforms"]]
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        reason = " ".join(line.strip() for line in str(error).splitlines() if "errors.pydantic.dev" not in line)
        raise UserError(f"pipeline: {name} does not take its arguments: {reason}") from error
