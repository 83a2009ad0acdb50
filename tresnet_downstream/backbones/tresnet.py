"""TResNet: High Performance GPU-Dedicated Architecture (Ridnik et al., 2020, arXiv:2003.13630).

This module defines the network: variants, blocks, initialisation. In evaluation, the ``forward`` methods of this module
run. In training, ``lean.run_blocks`` computes the same outputs and gradients and saves less for the backward pass. The
blocks for which it cannot, which :meth:`TResNet.plain_blocks` lists, run their ``forward`` in training too.
"""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

from tresnet_downstream.backbones import arguments, lean
from tresnet_downstream.backbones.activated_batch_norm import ActivatedBatchNorm
from tresnet_downstream.backbones.arguments import Variant
from tresnet_downstream.backbones.backbone import Backbone
from tresnet_downstream.backbones.branch_scaling import SqueezeExcite, drop_path
from tresnet_downstream.backbones.downsampling import BlurPool, SpaceToDepth
from tresnet_downstream.errors import UserError

IDENTITY = 1.0  # a leaky ReLU with this slope is the identity: the norm has no activation

# m, l and xl are the variants of the paper. v2_l is called TResNet-L in the ImageNet-21K and ML-Decoder releases, and
# v2_xl is called TResNet-XL in the ML-Decoder release. The V2-L that the TResNet release trained on Stanford Cars is
# v2_l with slopes=(1e-6, 1e-6).
VARIANTS = {
    "m": Variant((3, 4, 11, 3)),
    "l": Variant((4, 5, 18, 3), width=1.2),
    "xl": Variant((4, 5, 24, 3), width=1.3),
    "v2_l": Variant((3, 4, 23, 3), blocks=("bottleneck",) * 4),
    "v2_xl": Variant((3, 8, 34, 5), blocks=("bottleneck",) * 4),
}


class Stem(nn.Module):
    """Space-to-depth and one 3x3 convolution: N x 3 x H x W to N x C x H/4 x W/4."""

    def __init__(self, channels: int, slope: float, norm: str) -> None:
        super().__init__()
        self.space_to_depth = SpaceToDepth()
        self.conv = nn.Conv2d(3 * 4 * 4, channels, 3, padding=1, bias=False)
        self.norm = ActivatedBatchNorm(channels, slope, norm)

    def forward(self, x: Tensor) -> Tensor:
        """N x 3 x H x W images to N x C x H/4 x W/4, the input of the first stage."""
        x = self.space_to_depth(x)  # N x 48 x H/4 x W/4
        result: Tensor = self.norm(self.conv(x))  # N x C x H/4 x W/4
        return result


class Shortcut(nn.Module):
    """Average pooling if the stride is 2, then a 1x1 convolution and a norm without activation."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: str) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = ActivatedBatchNorm(out_channels, IDENTITY, norm)

    def forward(self, x: Tensor) -> Tensor:
        """The block's input N x C x H x W to the shape of its output."""
        if self.stride == 2:
            # Odd sides are rounded up, as in the blur pool.
            x = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
        result: Tensor = self.norm(self.conv(x))
        return result


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; squeeze-and-excite after the second norm.

    All convolutions have stride 1. In a block of stride 2, a blur pool halves the sides (anti-aliased downsampling).
    """

    expansion = 1  # output channels / planes
    last_norm = "norm2"

    def __init__(
        self, in_channels: int, planes: int, stride: int, slope: float, use_se: bool, norm: str, drop_path_rate: float
    ) -> None:
        super().__init__()
        self.drop_path_rate = drop_path_rate
        self.conv1 = nn.Conv2d(in_channels, planes, 3, padding=1, bias=False)
        self.norm1 = ActivatedBatchNorm(planes, slope, norm)
        self.blur = BlurPool(planes) if stride == 2 else None
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.norm2 = ActivatedBatchNorm(planes, IDENTITY, norm)
        self.se = SqueezeExcite(planes, max(planes // 4, 64)) if use_se else None
        self.downsample = _shortcut(in_channels, planes, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W to N x planes x H/stride x W/stride, sides rounded up."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.norm1(self.conv1(x))  # N x planes x H x W
        if self.blur is not None:
            out = self.blur(out)  # N x planes x H/2 x W/2
        out = self.norm2(self.conv2(out))
        if self.se is not None:
            out = out * self.se(out)  # gates, N x planes x 1 x 1
        return F.relu(drop_path(out, self.drop_path_rate, self.training) + shortcut, inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution; squeeze-and-excite before the last one.

    All convolutions have stride 1. In a block of stride 2, a blur pool halves the sides (anti-aliased downsampling).
    """

    expansion = 4
    last_norm = "norm3"

    def __init__(
        self, in_channels: int, planes: int, stride: int, slope: float, use_se: bool, norm: str, drop_path_rate: float
    ) -> None:
        super().__init__()
        self.drop_path_rate = drop_path_rate
        self.conv1 = nn.Conv2d(in_channels, planes, 1, bias=False)
        self.norm1 = ActivatedBatchNorm(planes, slope, norm)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.norm2 = ActivatedBatchNorm(planes, slope, norm)
        self.blur = BlurPool(planes) if stride == 2 else None
        # The published reduction by 8 refers to the block's output channels. The gated map has a quarter of them.
        self.se = SqueezeExcite(planes, max(planes * self.expansion // 8, 64)) if use_se else None
        self.conv3 = nn.Conv2d(planes, planes * self.expansion, 1, bias=False)
        self.norm3 = ActivatedBatchNorm(planes * self.expansion, IDENTITY, norm)
        self.downsample = _shortcut(in_channels, planes * self.expansion, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W to N x 4 planes x H/stride x W/stride, sides rounded up."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.norm1(self.conv1(x))  # N x planes x H x W
        out = self.norm2(self.conv2(out))
        if self.blur is not None:
            out = self.blur(out)  # N x planes x H/2 x W/2
        if self.se is not None:
            out = out * self.se(out)
        out = self.norm3(self.conv3(out))  # N x 4 planes x H/stride x W/stride
        return F.relu(drop_path(out, self.drop_path_rate, self.training) + shortcut, inplace=True)


def _shortcut(in_channels: int, out_channels: int, stride: int, norm: str) -> Shortcut | None:
    """The layers of the shortcut; None if the block's output has the shape of its input."""
    keeps_shape = stride == 1 and in_channels == out_channels
    return None if keeps_shape else Shortcut(in_channels, out_channels, stride, norm)


BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


class Stage(nn.Sequential):
    """Blocks in order.

    Attributes:
        checkpointed: number of blocks that are recomputed together in the backward pass; 0 to recompute none.
    """

    checkpointed = 0

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W to N x C' x H/stride x W/stride: each block in turn."""
        return lean.run_blocks(list(self), x, self.checkpointed if self.training else 0)


@MODELS.register_module()
class TResNet(Backbone):
    """The TResNet backbone for classification and detection.

    The input is N x 3 x H x W images in RGB, [0, 1], without further normalisation. H and W must be divisible by 4 and
    at least 20, because the blur pools reflect the borders. The output is a tuple of feature maps, one for each stage
    in ``out_indices``. The stages of ``m``:

    ======= ========== ============= ======== ==================
    stage   blocks     sides         channels squeeze-and-excite
    ======= ========== ============= ======== ==================
    0       basic      H/4 x W/4     64       yes
    1       basic      H/8 x W/8     128      yes
    2       bottleneck H/16 x W/16   1024     yes
    3       bottleneck H/32 x W/32   2048     no
    ======= ========== ============= ======== ==================

    The initialisation is the published one: Kaiming's normal distribution over the fan-out for convolutions, 0 for the
    weight of the last norm of each block, 1 for the weights of all other norms. Norms scale by ``|weight| + eps``, so
    that the norm can be inverted at a weight of 0.

    Args:
        variant: ``m``, ``l``, ``xl``, ``v2_l`` or ``v2_xl``, with the sizes of :data:`VARIANTS`.
        layers: number of blocks in each stage; None for the variant's.
        width: the base width is ``int(64 * width)`` channels; None for the variant's.
        blocks: ``basic`` or ``bottleneck`` for each stage; None for the variant's.
        slopes: negative slopes of the leaky ReLU in the stem and in the blocks; None for the variant's.
        out_indices: stages to return, counted from 0, or from the end by negative numbers. They are returned in the
            order of the network.
        frozen_stages: -1 freezes nothing, 0 the stem, ``k`` the stem and the first ``k`` stages. Frozen parts get no
            gradients, and their norms stay in evaluation mode.
        norm_eval: keeps every norm in evaluation mode: running statistics are used and not updated.
        drop_path_rate: rate of stochastic depth in the last block. The rate increases linearly from 0 in the first
            block. The paper has none.
        with_cp: activation checkpointing, which needs less memory and more time and has the same results. ``k`` splits
            each stage into segments of ``k`` blocks, saves the input of each segment and recomputes the rest in the
            backward pass. Four numbers give ``k`` for each stage, 0 for no checkpointing. True stands for
            ``(layers[0], layers[1], 1, 0)``. Running statistics are updated once.
        norm: ``inplace``, ``sync``, ``batchnorm`` or ``inplace_abn``, see :class:`ActivatedBatchNorm`.
        init_cfg: MMEngine's, such as ``dict(type='Pretrained', checkpoint='tresnet://l_in1k_448')``. The checkpoint may
            also be a path or a URL. Names of every published style are translated, as in ``load_state_dict``.

    Attributes:
        feature_info: for each of the four stages a dict of ``name``, ``channels`` and ``stride``.

    Raises:
        UserError: for an unknown variant, block, norm or stage, and for images whose sides are not divisible by 4 or
            below 20.

    Examples:
        >>> import torch
        >>> network = TResNet(layers=(1, 1, 1, 1), width=0.25, out_indices=(1, 3))
        >>> [tuple(features.shape) for features in network(torch.rand(2, 3, 32, 32))]
        [(2, 32, 4, 4), (2, 512, 1, 1)]
    """

    stem: Stem

    def __init__(
        self,
        variant: str = "m",
        layers: Sequence[int] | None = None,
        width: float | None = None,
        blocks: Sequence[str] | None = None,
        slopes: Sequence[float] | None = None,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        drop_path_rate: float = 0.0,
        with_cp: bool | int | Sequence[int] = False,
        norm: str = "inplace",
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if variant not in VARIANTS:
            raise UserError(f"variant={variant!r} is unknown: choose one of {', '.join(VARIANTS)}")
        sizes = VARIANTS[variant].changed(layers=layers, width=width, blocks=blocks, slopes=slopes)
        self.variant, self.out_indices = sizes, arguments.checked_stages(out_indices)
        self.frozen_stages, self.norm_eval = arguments.checked_frozen_stages(frozen_stages), norm_eval
        checkpointed = arguments.checkpointed_blocks(with_cp, sizes.layers)

        base = int(64 * sizes.width)
        stem_slope, block_slope = sizes.slopes
        self.stem = Stem(base, stem_slope, norm)
        self.feature_info = []
        channels, block_number, last_number = base, 0, sum(sizes.layers) - 1
        for index, (depth, kind) in enumerate(zip(sizes.layers, sizes.blocks, strict=True)):
            block, planes, stage = BLOCKS[kind], base * 2**index, Stage()
            stage.checkpointed = checkpointed[index]
            for position in range(depth):
                stride = 2 if index > 0 and position == 0 else 1
                use_se, rate = index < 3, drop_path_rate * block_number / last_number
                stage.append(block(channels, planes, stride, block_slope, use_se, norm, rate))
                channels, block_number = planes * block.expansion, block_number + 1
            self.add_module(f"layer{index + 1}", stage)
            self.feature_info.append({"name": f"layer{index + 1}", "channels": channels, "stride": 4 * 2**index})

        self._initialise()
        self.freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of the stages in ``out_indices`` for N x 3 x H x W images in [0, 1]."""
        arguments.check_sides(x)
        x = lean.run_blocks([self.stem], x)
        features = []
        for index, stage in enumerate(self.stages[: max(self.out_indices) + 1]):
            x = stage(x)
            if index in self.out_indices:
                features.append(x)
        return tuple(features)

    @property
    def name(self) -> str:
        """The name of the variant, see :func:`variant_name`."""
        return variant_name(self.variant)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="leaky_relu")
            elif isinstance(module, BasicBlock | Bottleneck):
                # With a last norm of 0, a residual block is the identity at the start of training.
                nn.init.zeros_(getattr(module, module.last_norm).weight)


def variant_name(variant: Variant) -> str:
    """The name in :data:`VARIANTS` of these sizes, with any slopes; ``custom`` if no variant has these sizes.

    Examples:
        >>> variant_name(VARIANTS["l"].changed(slopes=(0.1, 0.1)))
        'l'
        >>> variant_name(VARIANTS["l"].changed(width=2.0))
        'custom'
    """
    names = (name for name, known in VARIANTS.items() if known.changed(slopes=variant.slopes) == variant)
    return next(names, "custom")
