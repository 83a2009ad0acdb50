"""What training does to whole batches before the network sees them: timm's mixup, cutmix and random erasing.

A batch transform takes N x 3 x H x W images in [0, 1] and their targets, and gives both. timm's draws come from the
global generators of numpy, Python and torch, which training seeds before each step: a resumed run draws the same.
"""

import importlib
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tresnet_downstream.errors import UserError
from tresnet_downstream.registry import MODELS


@MODELS.register_module()
class Mixup(nn.Module):
    """Mixes images in pairs, and their labels in proportion: mixup (arXiv:1710.09412) and cutmix (arXiv:1905.04899).

    The loss must take shares of the classes as targets; label smoothing is the loss's part.

    Args:
        mixup_alpha: of the beta distribution that mixup's shares are drawn from; 0 for no mixup.
        cutmix_alpha: the same of cutmix.
        prob: share of the batches, or images, that are mixed, 0 to 1.
        switch_prob: share of those that cutmix mixes, if both are on.
        mode: one share for a ``batch``, for each ``pair`` of images or for each image (``elem``).

    Raises:
        UserError: if timm is not installed, or an argument is out of range.
    """

    mixes_labels = True

    def __init__(
        self,
        mixup_alpha: float = 0.0,
        cutmix_alpha: float = 0.0,
        prob: float = 1.0,
        switch_prob: float = 0.5,
        mode: str = "batch",
    ) -> None:
        super().__init__()
        if min(mixup_alpha, cutmix_alpha) < 0 or not mixup_alpha + cutmix_alpha:
            raise UserError(f"Mixup: mixup_alpha={mixup_alpha}, cutmix_alpha={cutmix_alpha}: one must be above 0")
        if not (0 <= prob <= 1 and 0 <= switch_prob <= 1) or mode not in ("batch", "pair", "elem"):
            raise UserError(
                f"Mixup: prob={prob}, switch_prob={switch_prob}, mode={mode!r}: give numbers from 0 to 1, and batch, "
                "pair or elem"
            )
        self.mix = _timm("timm.data", "Mixup")(
            mixup_alpha, cutmix_alpha, prob=prob, switch_prob=switch_prob, mode=mode, label_smoothing=0.0
        )

    def forward(self, images: Tensor, targets: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
        """Mixes N images and N class indices; gives the images and N x C shares.

        Of an odd number of images, the last is left as it is.
        """
        if targets.dim() != 1:
            raise UserError("model.batch_transforms: Mixup is for one label per image, and comes once")
        self.mix.num_classes = num_classes
        shares = F.one_hot(targets.long(), num_classes).to(images.dtype)
        even = len(images) // 2 * 2
        if even:
            mixed = images.clone()
            part, shares[:even] = self.mix(mixed[:even], targets[:even].long())
            mixed[:even] = part
            images = mixed
        return images, shares


@MODELS.register_module()
class RandomErasing(nn.Module):
    """Erases a rectangle of each image with some probability (arXiv:1708.04896), as timm does.

    Args:
        prob: share of the images, 0 to 1.
        mode: what is put in its place: ``const`` (the mean), ``rand`` (one normal colour) or ``pixel`` (normal noise).
        mean: of the network's input, red, green and blue in [0, 1]; timm erases normalised images.
        std: their standard deviation. TResNet takes its images as they are: 0 and 1.

    Raises:
        UserError: if timm is not installed, or an argument is out of range.
    """

    def __init__(
        self,
        prob: float = 0.25,
        mode: str = "pixel",
        mean: Sequence[float] = (0, 0, 0),
        std: Sequence[float] = (1, 1, 1),
    ) -> None:
        super().__init__()
        if not 0 <= prob <= 1 or mode not in ("const", "rand", "pixel"):
            raise UserError(f"RandomErasing: prob={prob}, mode={mode!r}: give 0 to 1, and const, rand or pixel")
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise UserError(f"RandomErasing: mean={mean}, std={std}: give three numbers each, std above 0")
        self.kind = _timm("timm.data.random_erasing", "RandomErasing")
        self.prob, self.mode = prob, mode
        self.mean, self.std = ([*map(float, values)] for values in (mean, std))

    def forward(self, images: Tensor, targets: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
        """Erases parts of N images; the targets stay."""
        mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in (self.mean, self.std))
        erase = self.kind(probability=self.prob, mode=self.mode, device=images.device)
        return erase((images - mean) / std) * std + mean, targets


def _timm(module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise UserError(f"{name} needs timm: pip install 'tresnet-downstream[timm]'") from error
