"""Transforms of whole training batches: timm's mixup, cutmix and random erasing.

A batch transform takes N x 3 x H x W images in [0, 1] and their targets, and returns both. timm draws from the global
generators of numpy, Python and torch. Training seeds them before each step, so that a resumed run draws the same.
"""

import importlib
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tresnet_downstream.errors import UserError
from tresnet_downstream.registry import MODELS


@MODELS.register_module()
class Mixup(nn.Module):
    """Mixes pairs of images and their labels by mixup (arXiv:1710.09412) or cutmix (arXiv:1905.04899).

    The targets become shares of the classes, which the loss must support. Label smoothing is an argument of the loss.

    Args:
        mixup_alpha: parameter of the beta distribution of mixup's shares; 0 for no mixup.
        cutmix_alpha: parameter of the beta distribution of cutmix's shares; 0 for no cutmix.
        prob: probability that a batch, or an image, is mixed, 0 to 1.
        switch_prob: probability of cutmix instead of mixup if both are used.
        mode: whether one share is drawn for the ``batch``, for each ``pair`` of images, or for each image (``elem``).

    Raises:
        UserError: if timm is not installed, or an argument is out of range.

    Examples:
        >>> images, shares = Mixup(mixup_alpha=0.2)(torch.rand(2, 3, 32, 32), torch.tensor([0, 2]), num_classes=3)
        >>> images.shape, shares.shape
        (torch.Size([2, 3, 32, 32]), torch.Size([2, 3]))
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
        """Mixes N images with N class indices as targets.

        If N is odd, the last image is not mixed.

        Args:
            images: N x 3 x H x W in [0, 1].
            targets: N class indices.
            num_classes: number of classes C.

        Returns:
            The mixed images, and N x C shares of the classes.

        Raises:
            UserError: if the targets are not class indices.
        """
        if targets.dim() != 1:
            raise UserError("model.batch_transforms: Mixup needs one label per image and can be used only once")
        self.mix.num_classes = num_classes
        shares = F.one_hot(targets.long(), num_classes).to(images.dtype)
        even = len(images) // 2 * 2  # timm mixes even numbers of images
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
        prob: probability for each image, 0 to 1.
        mode: content of the rectangle: ``const`` (the mean), ``rand`` (one normal colour) or ``pixel`` (normal noise).
        mean: mean of the network's input in red, green and blue, in [0, 1]. timm erases normalised images, so the
            default, 0, is for networks without normalisation such as TResNet.
        std: standard deviation of the network's input in red, green and blue.

    Raises:
        UserError: if timm is not installed, or an argument is out of range.

    Examples:
        >>> images, targets = RandomErasing(prob=1.0)(torch.rand(2, 3, 32, 32), torch.tensor([0, 2]), num_classes=3)
        >>> images.shape, targets.tolist()
        (torch.Size([2, 3, 32, 32]), [0, 2])
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
        self.erasing_class = _timm("timm.data.random_erasing", "RandomErasing")
        self.prob, self.mode = prob, mode
        self.mean, self.std = ([*map(float, values)] for values in (mean, std))

    def forward(self, images: Tensor, targets: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
        """Erases a rectangle of some of N x 3 x H x W images in [0, 1]. The targets are not changed."""
        mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in (self.mean, self.std))
        erase = self.erasing_class(probability=self.prob, mode=self.mode, device=images.device)
        return erase((images - mean) / std) * std + mean, targets


def _timm(module: str, name: str) -> type:
    try:
        kind: type = getattr(importlib.import_module(module), name)
        return kind
    except ImportError as error:
        raise UserError(f"{name} needs timm: pip install 'tresnet-downstream[timm]'") from error
