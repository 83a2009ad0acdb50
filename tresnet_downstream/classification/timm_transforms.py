"""Transforms of timm for pipelines, whose random draws come from the generators of the sample."""

import itertools
import random
from collections.abc import Sequence

import albumentations
import numpy as np
from PIL import Image, ImageOps

from tresnet_downstream.errors import UserError
from tresnet_downstream.registry import TRANSFORMS


def posterize(image: Image.Image, bits_to_keep: int, **_: object) -> Image.Image:
    """Keeps the most significant bits of each value.

    It replaces timm's function. timm also draws 0 bits, which give a black image, and for which Pillow raises an error
    since version 13.

    Args:
        image: an RGB image.
        bits_to_keep: 0 to 8.
    """
    if bits_to_keep >= 8:
        return image
    if bits_to_keep == 0:
        return Image.new(image.mode, image.size)
    return ImageOps.posterize(image, bits_to_keep)


@TRANSFORMS.register_module()
class TimmAutoAugment(albumentations.ImageOnlyTransform):
    """Timm's automatic augmentation, by a string such as ``rand-m9-mstd0.5-inc1``.

    Args:
        config: timm's string: ``rand-...`` (RandAugment), ``augmix-...`` or the name of a policy of AutoAugment.
        size: height and width of images in pixels, which determine the range of translations.
        fill: red, green and blue, 0 to 255, of pixels outside of the image. timm uses the mean of the network's input,
            which is black for TResNet.
        p: probability of applying the transform, 0 to 1.

    Raises:
        UserError: if timm is not installed.
        ValueError: if the string is not valid for timm.

    Examples:
        >>> augment = TimmAutoAugment("rand-m9-mstd0.5-inc1", size=32)
        >>> augment(image=np.zeros((32, 32, 3), np.uint8))["image"].shape
        (32, 32, 3)
    """

    def __init__(self, config: str, size: int = 224, fill: Sequence[int] = (0, 0, 0), p: float = 1.0) -> None:
        super().__init__(p=p)
        try:
            from timm.data import auto_augment
        except ImportError as error:
            raise UserError("TimmAutoAugment needs timm: pip install 'tresnet-downstream[timm]'") from error
        options = {"translate_const": int(0.45 * size), "img_mean": tuple(fill)}
        kinds = {"rand": auto_augment.rand_augment_transform, "augmix": auto_augment.augment_and_mix_transform}
        make = kinds.get(config.split("-")[0], auto_augment.auto_augment_transform)
        try:
            self.augment = make(config, options)
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"config is {config!r}, which is not valid for timm ({type(error).__name__}: {error})"
            ) from error
        groups = [self.augment.ops] if hasattr(self.augment, "ops") else self.augment.policy
        for operation in itertools.chain.from_iterable(groups):
            if operation.aug_fn is auto_augment.posterize:
                operation.aug_fn = posterize
        self.config, self.size, self.fill = config, size, tuple(fill)

    def get_params_dependent_on_data(self, params: object, data: object) -> dict[str, int]:
        """Draws the seed of timm's random draws."""
        return {"seed": self.py_random.getrandbits(32)}

    def apply(self, img: np.ndarray, seed: int, **_: object) -> np.ndarray:
        """Applies operations that timm draws."""
        # timm draws from the global generators, whose state is restored.
        states = random.getstate(), np.random.get_state()  # noqa: NPY002
        try:
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            return np.asarray(self.augment(Image.fromarray(img)))
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
