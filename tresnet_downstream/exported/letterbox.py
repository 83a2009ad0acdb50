"""Resizes and pads an image to the fixed input size of an exported detector, with the pixels of MMDetection."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import cv2
import numpy as np

from tresnet_downstream.errors import UserError

# Steps of a pipeline that do not change pixels.
_OTHER_STEPS = (
    *("LoadAnnotations", "LoadEmptyAnnotations", "LoadImageFromFile", "LoadImageFromNDArray"),
    "PackDetInputs",
)
# The supported arguments of MMDetection's steps, and their supported values; an empty tuple stands for all values.
_RESIZE: Mapping[str, tuple[object, ...]] = {
    "type": (),
    "scale": (),
    "keep_ratio": (),
    "clip_object_border": (),
    "backend": ("cv2",),
    "interpolation": ("bilinear",),
    "scale_factor": (None,),
}
_PAD: Mapping[str, tuple[object, ...]] = {
    "type": (),
    "size": (),
    "size_divisor": (),
    "pad_val": (),
    "padding_mode": ("constant",),
    "pad_to_square": (False,),
}


class LetterboxDescription(TypedDict):
    """The attributes of a :class:`Letterbox` as plain data.

    Attributes:
        height, width, fit_height, fit_width, keep_ratio, pad_divisor, pad_value: see :class:`Letterbox`.
    """

    height: int
    width: int
    fit_height: int
    fit_width: int
    keep_ratio: bool
    pad_divisor: int
    pad_value: Sequence[float]


@dataclass(frozen=True)
class Letterbox:
    """Resizes an image, pads it on the right and at the bottom, and copies it to the top left of the network's input.

    Attributes:
        height, width: size of the network's input.
        fit_height, fit_width: size that the image is resized to.
        keep_ratio: whether the aspect ratio is kept, so that the image fits into this size.
        pad_divisor: the pipeline pads sides to a multiple of this number; 0 stands for the whole input, 1 for no
            padding.
        pad_value: value of the pipeline's padding, in RGB.

    Examples:
        >>> inputs = Letterbox(64, 64, 64, 64)(np.zeros((20, 40, 3), np.uint8))
        >>> inputs["images"].shape, inputs["sizes"].tolist()
        ((64, 64, 3), [32, 64])
    """

    height: int
    width: int
    fit_height: int
    fit_width: int
    keep_ratio: bool = True
    pad_divisor: int = 1
    pad_value: tuple[float, ...] = (0.0, 0.0, 0.0)

    @classmethod
    def of_pipeline(cls, pipeline: Iterable[Any], divisor: int, size: int | None = None) -> "Letterbox":
        """The letterbox for a test pipeline of MMDetection.

        Args:
            pipeline: the steps: ``Resize``, and optionally ``Pad``. Steps that load and pack are ignored.
            divisor: the detector pads sides to a multiple of this number.
            size: height and width that images are resized to, and of the network's input. None takes the size of the
                pipeline; the network's input then has the next multiples of ``divisor``.

        Raises:
            UserError: if the pipeline has other steps or arguments, or if ``size`` is not divisible by ``divisor``.
        """
        steps = [step for step in pipeline if _name_of(step) not in _OTHER_STEPS]
        names = [_name_of(step) for step in steps]
        if names not in (["Resize"], ["Resize", "Pad"]):
            raise UserError(
                f"the detector's test pipeline has {', '.join(names) or 'no step'}: an exported file supports Resize, "
                "or Resize and Pad"
            )
        for step, known in zip(steps, (_RESIZE, _PAD), strict=False):
            _require_known(step, known)
        scale = steps[0].get("scale")
        fit_width, fit_height = (scale, scale) if isinstance(scale, int) else (scale or (0, 0))
        if size is not None:
            if size < 1 or size % divisor:
                lower, higher = size // divisor * divisor, (max(size, 0) // divisor + 1) * divisor
                near = f"{lower} or {higher}" if lower > 0 else str(higher)
                raise UserError(f"`input_size` {size}: the detector takes multiples of {divisor}; give {near}")
            fit_height = fit_width = size
        height, width = (math.ceil(side / divisor) * divisor for side in (fit_height, fit_width))
        if min(height, width) < 1:
            raise UserError(f"the detector's test pipeline resizes to {scale}: give a width and a height")
        if len(steps) == 1:
            return cls(height, width, fit_height, fit_width, bool(steps[0].get("keep_ratio", False)))
        pad = steps[1]
        pad_size = pad.get("size")
        if size is None and pad_size is not None and tuple(pad_size) != (width, height):
            sizes = f"resizes to {width} x {height} and pads to {pad_size[0]} x {pad_size[1]}"
            raise UserError(f"the detector's test pipeline {sizes}: choose one with `input_size`")
        value = pad.get("pad_val", 0)
        value = value.get("img", 0) if isinstance(value, Mapping) else value
        colours = (value,) * 3 if isinstance(value, int | float) else tuple(value)[::-1]
        return cls(
            *(height, width, fit_height, fit_width),
            bool(steps[0].get("keep_ratio", False)),
            int(pad.get("size_divisor") or 0),
            tuple(float(colour) for colour in colours),
        )

    @classmethod
    def of_description(cls, content: LetterboxDescription) -> "Letterbox":
        """The letterbox for a result of :meth:`description`.

        Raises:
            ValueError, KeyError, TypeError: if the content is invalid.
        """
        height, width = int(content["height"]), int(content["width"])
        fit_height, fit_width = int(content["fit_height"]), int(content["fit_width"])
        pad_value = tuple(float(value) for value in content["pad_value"])
        box = cls(
            height, width, fit_height, fit_width, bool(content["keep_ratio"]), int(content["pad_divisor"]), pad_value
        )
        if min(box.fit_height, box.fit_width) < 1 or box.fit_height > box.height or box.fit_width > box.width:
            raise ValueError("the sizes are invalid")
        if len(pad_value) != 3 or box.pad_divisor < 0:
            raise ValueError("the padding is invalid")
        return box

    def description(self) -> LetterboxDescription:
        """The attributes as plain data."""
        return {
            "height": self.height,
            "width": self.width,
            "fit_height": self.fit_height,
            "fit_width": self.fit_width,
            "keep_ratio": self.keep_ratio,
            "pad_divisor": self.pad_divisor,
            "pad_value": self.pad_value,
        }

    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """The inputs of a detector for an image, uint8 of shape (height, width, 3).

        Returns:
            ``images``: H x W x 3, uint8, black outside of the pipeline's padding; ``sizes``: height and width of the
            image with this padding, int64; ``scale_factors``: the factors of width and height.
        """
        height, width = image.shape[:2]
        new_height, new_width = self.fit_height, self.fit_width
        if self.keep_ratio:
            factor = min(self.fit_height / height, self.fit_width / width)
            # The rounding is that of mmcv.
            new_height, new_width = (max(1, int(side * factor + 0.5)) for side in (height, width))
        resized = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
        canvas = np.zeros((self.height, self.width, 3), np.uint8)
        padded = self._padded(new_height, self.height), self._padded(new_width, self.width)
        canvas[: padded[0], : padded[1]] = np.array(self.pad_value, np.uint8)
        canvas[:new_height, :new_width] = resized
        factors = np.array([new_width / width, new_height / height], np.float32)
        return {"images": canvas, "sizes": np.array(padded, np.int64), "scale_factors": factors}

    def _padded(self, side: int, whole: int) -> int:
        return whole if self.pad_divisor == 0 else min(math.ceil(side / self.pad_divisor) * self.pad_divisor, whole)


def _name_of(step: object) -> str:
    return str(step.get("type") if isinstance(step, Mapping) else type(step).__name__).rpartition(".")[2]


def _require_known(step: Mapping[str, object], known: Mapping[str, Sequence[object]]) -> None:
    for name, value in step.items():
        if name not in known or (known[name] and value not in known[name]):
            raise UserError(
                f"the detector's test pipeline has {_name_of(step)} with {name}={value!r}, which an exported file "
                "does not support; leave it out of the config that the detector is loaded with (`config`)"
            )
