"""TResNet: High Performance GPU-Dedicated Architecture (Ridnik et al., 2020, arXiv:2003.13630).

This file is the network: variants, blocks, initialisation. In evaluation each ``forward`` runs as it stands here. In
training ``lean.run_blocks`` computes the same outputs and gradients and saves less for the backward pass; blocks for
which it cannot (:meth:`TResNet.plain_blocks`) run their ``forward`` in training too.
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
from tresnet_downstream.backbones.layers import BlurPool, SpaceToDepth, SqueezeExcite, drop_path
from tresnet_downstream.errors import UserError

IDENTITY = 1.0  # a leaky ReLU of this slope is the identity: a norm without activation

# m, l and xl are the paper's. v2_l is what the ImageNet-21K and ML-Decoder releases call TResNet-L, v2_xl the XL of
# ML-Decoder. The V2-L that the TResNet release trained on Stanford Cars is v2_l with slopes=(1e-6, 1e-6).
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
        """Gives the first stage's input."""
        x = self.space_to_depth(x)  # N x 48 x H/4 x W/4
        return self.norm(self.conv(x))  # N x C x H/4 x W/4


class Shortcut(nn.Module):
    """Average pooling where the block halves the sides, then a 1x1 convolution and a norm without activation."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: str) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = ActivatedBatchNorm(out_channels, IDENTITY, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Brings the block's input to the shape of its output."""
        if self.stride == 2:
            # Odd sides are rounded up, as the blur pool does.
            x = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
        return self.norm(self.conv(x))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; squeeze-and-excite after the second norm.

    No convolution has a stride: where the block halves the sides, a blur pool does (anti-aliased downsampling).
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
    """1x1, 3x3 and 1x1 convolution; squeeze-and-excite before the last. A blur pool halves the sides."""

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
        # The published reduction by 8 is of the block's output channels, so by 2 of the gated map's.
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
    """The shortcut's layers; None where the block keeps the shape of its input."""
    keeps_shape = stride == 1 and in_channels == out_channels
    return None if keeps_shape else Shortcut(in_channels, out_channels, stride, norm)


BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


class Stage(nn.Sequential):
    """Blocks in order.

    Attributes:
        checkpointed: number of blocks that are recomputed together in the backward pass; 0 for none.
    """

    checkpointed = 0

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W to N x C' x H/stride x W/stride: each block in turn."""
        return lean.run_blocks(list(self), x, self.checkpointed if self.training else 0)


@MODELS.register_module()
class TResNet(Backbone):
    """The TResNet backbone, for classification and detection alike.

    Takes N x 3 x H x W pictures in RGB, [0, 1], without further normalisation. H and W must be divisible by 4
    and at least 20, the least that the reflected borders of the blur pools allow. Gives a tuple of feature maps,
    one for each stage in ``out_indices``. The stages of ``m``:

    ======= ========== ============= ======== ==================
    stage   blocks     sides         channels squeeze-and-excite
    ======= ========== ============= ======== ==================
    0       basic      H/4 x W/4     64       yes
    1       basic      H/8 x W/8     128      yes
    2       bottleneck H/16 x W/16   1024     yes
    3       bottleneck H/32 x W/32   2048     no
    ======= ========== ============= ======== ==================

    Initialisation as published: convolutions by Kaiming's normal rule over the fan-out, norm weights at 1, but for
    those of each block's last norm at 0. Norms scale by ``|weight| + eps``, so that 0 can be inverted.

    Args:
        variant: ``m``, ``l``, ``xl``, ``v2_l`` or ``v2_xl``: the sizes of :data:`VARIANTS`.
        layers: blocks per stage, in place of the variant's.
        width: factor on 64 channels, in place of the variant's; the base width is ``int(64 * width)``.
        blocks: ``basic`` or ``bottleneck`` for each stage, in place of the variant's.
        slopes: leaky slopes of the stem and of the blocks, in place of the variant's.
        out_indices: stages to return, counted from 0, or from the end by negative numbers; in the network's order.
        frozen_stages: -1 freezes nothing, 0 the stem, ``k`` the stem and the first ``k`` stages: no gradients,
            and norms in evaluation mode.
        norm_eval: keeps every norm in evaluation mode: its running statistics are used and not moved.
        drop_path_rate: stochastic depth of the last block, not in the paper; it rises linearly from 0 at the first.
        with_cp: activation checkpointing: less memory, the same results, more time. ``k`` splits each stage into runs
            of ``k`` blocks, saves the input of each run and recomputes the rest in the backward pass; four numbers
            give ``k`` for each stage, 0 for none. True stands for ``(layers[0], layers[1], 1, 0)``. Running
            statistics move once.
        norm: ``inplace``, ``sync``, ``batchnorm`` or ``inplace_abn``, see :class:`ActivatedBatchNorm`.
        init_cfg: MMEngine's, such as ``dict(type='Pretrained', checkpoint='tresnet://l_in1k_448')``, a path or
            a URL. Every published style of names is translated, there and in ``load_state_dict``.

    Attributes:
        feature_info: for each of the four stages a dict of ``name``, ``channels`` and ``stride``.

    Raises:
        UserError: for an unknown variant, block, norm or stage, and for a picture whose sides do not fit.
    """

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
        channels, done, last = base, 0, sum(sizes.layers) - 1
        for index, (depth, kind) in enumerate(zip(sizes.layers, sizes.blocks, strict=True)):
            block, planes, stage = BLOCKS[kind], base * 2**index, Stage()
            stage.checkpointed = checkpointed[index]
            for position in range(depth):
                stride = 2 if index > 0 and position == 0 else 1
                use_se, rate = index < 3, drop_path_rate * done / last
                stage.append(block(channels, planes, stride, block_slope, use_se, norm, rate))
                channels, done = planes * block.expansion, done + 1
            self.add_module(f"layer{index + 1}", stage)
            self.feature_info.append({"name": f"layer{index + 1}", "channels": channels, "stride": 4 * 2**index})

        self._initialise()
        self.freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of the stages in ``out_indices`` for N x 3 x H x W pictures in [0, 1]."""
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
        """The variant's name, whatever its slopes; ``custom`` if the sizes are those of none."""
        return variant_name(self.variant)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="leaky_relu")
            elif isinstance(module, BasicBlock | Bottleneck):
                # A fresh block passes its input on.
                nn.init.zeros_(getattr(module, module.last_norm).weight)


def variant_name(variant: Variant) -> str:
    """The name in :data:`VARIANTS` of these sizes, whatever the slopes; ``custom`` if there is none."""
    same = (name for name, known in VARIANTS.items() if known.changed(slopes=variant.slopes) == variant)
    return next(same, "custom")
