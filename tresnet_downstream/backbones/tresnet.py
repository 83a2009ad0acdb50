"""TResNet: High Performance GPU-Dedicated Architecture (Ridnik et al., 2020, arXiv:2003.13630).

This file is the network: variants, blocks, initialisation. How a training step of it is executed with less memory, and
with the same results, is in ``lean/``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

from tresnet_downstream.backbones import lean
from tresnet_downstream.backbones.activated_batch_norm import ActivatedBatchNorm
from tresnet_downstream.backbones.layers import BlurPool, SpaceToDepth, SqueezeExcite, drop_path
from tresnet_downstream.errors import UserError
from tresnet_downstream.weights.formats import translate
from tresnet_downstream.weights.pretrained import PretrainedModule

IDENTITY = 1.0  # the slope of a norm without activation


@dataclass(frozen=True)
class Variant:
    """What tells one TResNet from another.

    Attributes:
        layers: number of blocks in each of the four stages.
        width: factor on the base width of 64 channels.
        blocks: ``basic`` or ``bottleneck`` for each stage.
        slopes: negative slopes of the leaky ReLU in the stem and in the blocks.
    """

    layers: tuple[int, ...]
    width: float = 1.0
    blocks: tuple[str, ...] = ("basic", "basic", "bottleneck", "bottleneck")
    slopes: tuple[float, float] = (1e-2, 1e-3)


# Sizes as in the TResNet release; v2_l is the L of the ImageNet-21K and ML-Decoder releases, v2_xl the XL of
# ML-Decoder. The V2-L of the TResNet release, trained on Stanford Cars, has slopes of 1e-6.
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
        self.conv = nn.Conv2d(3 * 16, channels, 3, padding=1, bias=False)
        self.norm = ActivatedBatchNorm(channels, slope, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Gives the first stage's input."""
        x = self.space_to_depth(x)  # N x 48 x H/4 x W/4
        return self.norm(self.conv(x))  # N x C x H/4 x W/4


class Shortcut(nn.Module):
    """Average pooling where the block halves the sides, then a 1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: str) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = ActivatedBatchNorm(out_channels, IDENTITY, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Brings the block's input to the shape of its output."""
        if self.stride == 2:
            x = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
        return self.norm(self.conv(x))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; squeeze-and-excite after the second norm."""

    expansion = 1

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

    @property
    def last_norm(self) -> ActivatedBatchNorm:
        """The norm whose weight starts at 0, so that a fresh block passes its input on."""
        return self.norm2

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W to N x planes x H/stride x W/stride, sides rounded up."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.norm1(self.conv1(x))  # N x planes x H x W
        if self.blur is not None:
            out = self.blur(out)  # N x planes x H/2 x W/2
        out = self.norm2(self.conv2(out))
        if self.se is not None:
            out = out * self.se(out)
        return F.relu(drop_path(out, self.drop_path_rate, self.training) + shortcut, inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution; squeeze-and-excite before the last."""

    expansion = 4

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
        self.se = SqueezeExcite(planes, max(planes * 4 // 8, 64)) if use_se else None
        self.conv3 = nn.Conv2d(planes, planes * 4, 1, bias=False)
        self.norm3 = ActivatedBatchNorm(planes * 4, IDENTITY, norm)
        self.downsample = _shortcut(in_channels, planes * 4, stride, norm)

    @property
    def last_norm(self) -> ActivatedBatchNorm:
        """The norm whose weight starts at 0, so that a fresh block passes its input on."""
        return self.norm3

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
    """Blocks in order. ``recomputed`` of them at a time are computed again in the backward pass; 0 for none."""

    recomputed = 0

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W to N x C' x H/stride x W/stride: each block in turn."""
        return lean.run_blocks(list(self), x, self.recomputed if self.training else 0)


@MODELS.register_module()
class TResNet(PretrainedModule):
    """The TResNet backbone, for classification and detection alike.

    Takes N x 3 x H x W pictures in RGB, [0, 1], without further normalisation. H and W must be divisible by 4
    and at least 20, the least that the reflected borders of the blur pools allow. Gives a tuple of feature maps,
    one for each stage in ``out_indices``; stage ``i`` has stride ``4 * 2**i``, sides rounded up.

    Initialisation as published: convolutions by Kaiming's normal rule over the fan-out, the last norm of each
    block at 0.

    Args:
        variant: ``m``, ``l``, ``xl``, ``v2_l`` or ``v2_xl``: the sizes of :data:`VARIANTS`.
        layers: blocks per stage, in place of the variant's.
        width: factor on 64 channels, in place of the variant's; the base width is ``int(64 * width)``.
        blocks: ``basic`` or ``bottleneck`` for each stage, in place of the variant's.
        slopes: leaky slopes of the stem and of the blocks, in place of the variant's.
        out_indices: stages to return, counted from 0.
        frozen_stages: -1 freezes nothing, 0 the stem, ``k`` the stem and the first ``k`` stages: no gradients,
            and norms in evaluation mode.
        norm_eval: keeps every norm in evaluation mode: its running statistics are used and not moved.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0 at the first.
        with_cp: activation checkpointing: less memory, the same results, more time. True recomputes where a
            byte saved costs least: the first two stages as a whole, the third block by block, the last not at
            all. A number ``k`` keeps the input of every ``k`` blocks alone; four numbers give ``k`` for each
            stage, 0 for none.
        norm: see :class:`ActivatedBatchNorm`.
        init_cfg: MMEngine's, such as ``dict(type='Pretrained', checkpoint='tresnet://l_in1k_448')``, a path or
            a URL. Every published style of names is translated, there and in ``load_state_dict``.

    Attributes:
        feature_info: for each of the four stages a dict of ``name``, ``channels`` and ``stride``.

    Raises:
        UserError: for an unknown variant, block, norm or stage.
        UserError: (a ValueError) for a picture whose sides do not fit.
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
        self.variant = _resolve(variant, layers=layers, width=width, blocks=blocks, slopes=slopes)
        self.out_indices = _checked_stages(out_indices)
        if not -1 <= frozen_stages <= 4:
            raise UserError(f"frozen_stages={frozen_stages}: give -1 for none, 0 for the stem, up to 4 for all")
        self.frozen_stages, self.norm_eval = frozen_stages, norm_eval
        recomputed = _recomputed_blocks(with_cp, self.variant.layers)

        base = int(64 * self.variant.width)
        stem_slope, block_slope = self.variant.slopes
        self.stem = Stem(base, stem_slope, norm)
        self.feature_info: list[dict[str, Any]] = []
        last = max(sum(self.variant.layers) - 1, 1)
        drop_path_rates = (drop_path_rate * index / last for index in count())
        channels = base
        for index, (depth, kind) in enumerate(zip(self.variant.layers, self.variant.blocks, strict=True)):
            block, planes = BLOCKS[kind], base * 2**index
            stage = Stage()
            stage.recomputed = recomputed[index]
            for position in range(depth):
                stride = 2 if index > 0 and position == 0 else 1
                stage.append(block(channels, planes, stride, block_slope, index < 3, norm, next(drop_path_rates)))
                channels = planes * block.expansion
            self.add_module(f"layer{index + 1}", stage)
            self.feature_info.append({"name": f"layer{index + 1}", "channels": channels, "stride": 4 * 2**index})

        self._initialise()
        self._freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of the stages in ``out_indices`` for N x 3 x H x W pictures in [0, 1]."""
        check_sides(x)
        x = lean.run_blocks([self.stem], x)
        features = []
        for index, stage in enumerate(self.stages[: max(self.out_indices) + 1]):
            x = stage(x)
            if index in self.out_indices:
                features.append(x)
        return tuple(features)

    def translated(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of any published style, of a detector or of a classifier, under this backbone's names."""
        found = translate(state_dict)
        if found is None:
            return dict(state_dict)
        others = {name: state_dict[name] for name in found.unused}
        return {name.removeprefix("backbone."): tensor for name, tensor in found.state_dict.items()} | others

    @property
    def name(self) -> str:
        """The variant's name, whatever its slopes; ``custom`` if the sizes are those of none."""
        return variant_name(self.variant)

    @property
    def stages(self) -> list[Stage]:
        """The four stages, in order."""
        return [getattr(self, info["name"]) for info in self.feature_info]

    def norms(self) -> list[ActivatedBatchNorm]:
        """Every norm of the network."""
        return [module for module in self.modules() if isinstance(module, ActivatedBatchNorm)]

    def plain_blocks(self) -> dict[str, str]:
        """The blocks that run their plain modules in training, with the reason; the others keep less memory.

        The results are the same in both forms. ``docs/architecture.md`` has the rule.

        Example:
            >>> TResNet(layers=(1, 1, 1, 1), width=0.25).plain_blocks()
            {}
            >>> network = TResNet(layers=(1, 1, 1, 1), width=0.25)
            >>> handle = network.layer3[0].conv3.register_forward_hook(lambda *_: None)
            >>> network.plain_blocks()
            {'layer3.0': 'conv3 has a forward hook'}
        """
        return lean.plain_blocks(self)

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """Adds a stage; conversions of batch norms, which add every child again, are refused here.

        Raises:
            UserError: if ``name`` is there already.
        """
        if name in self._modules:
            raise UserError(
                "TResNet's norms cannot be converted (sync_bn, convert_sync_batchnorm): build it with norm='sync'"
            )
        super().add_module(name, module)

    def train(self, mode: bool = True) -> "TResNet":
        """Switches modes; frozen stages, and with ``norm_eval`` all norms, stay in evaluation mode."""
        super().train(mode)
        self._freeze()
        if mode and self.norm_eval:
            for norm in self.norms():
                norm.eval()
        return self

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        for module in chain([self.stem], self.stages[: self.frozen_stages]):
            module.eval()
            module.requires_grad_(False)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="leaky_relu")
            elif isinstance(module, BasicBlock | Bottleneck):
                nn.init.zeros_(module.last_norm.weight)


def _recomputed_blocks(with_cp: bool | int | Sequence[int], layers: tuple[int, ...]) -> tuple[int, ...]:
    """For each stage how many blocks are recomputed together; 0 for none."""
    if with_cp is True:
        return (layers[0], layers[1], 1, 0)
    lengths = (int(with_cp),) * 4 if isinstance(with_cp, int) else tuple(with_cp)
    if len(lengths) != 4 or not all(isinstance(length, int) and length >= 0 for length in lengths):
        raise UserError(f"with_cp={with_cp}: give True, False, a number of blocks, or one for each of the four stages")
    return lengths


def variant_name(variant: Variant) -> str:
    """The name in :data:`VARIANTS` of these sizes, whatever the slopes; ``custom`` if there is none."""
    same = (name for name, known in VARIANTS.items() if replace(known, slopes=variant.slopes) == variant)
    return next(same, "custom")


def _resolve(name: str, **given: Any) -> Variant:
    if name not in VARIANTS:
        raise UserError(f"variant={name!r} is unknown: choose one of {', '.join(VARIANTS)}")
    changes: dict[str, Any] = {
        key: value if key == "width" else tuple(value) for key, value in given.items() if value is not None
    }
    variant = replace(VARIANTS[name], **changes)
    if len(variant.layers) != 4 or len(variant.blocks) != 4 or len(variant.slopes) != 2:
        raise UserError("TResNet has four stages and two slopes: give layers and blocks 4 values each, slopes 2")
    if unknown := set(variant.blocks) - set(BLOCKS):
        raise UserError(f"blocks={sorted(unknown)} is unknown: choose among {', '.join(BLOCKS)}")
    if min(variant.layers) < 1 or int(64 * variant.width) < 1:
        raise UserError(f"layers={variant.layers}, width={variant.width}: each stage needs a block and a channel")
    return variant


def _checked_stages(out_indices: Sequence[int]) -> tuple[int, ...]:
    stages = tuple(out_indices)
    if not stages or not set(stages) <= {0, 1, 2, 3}:
        raise UserError(f"out_indices={stages}: give one or more of 0, 1, 2 and 3")
    return stages


@torch.fx.wrap
def check_sides(x: Tensor) -> None:
    """Raises UserError for N x 3 x H x W pictures whose sides TResNet does not take."""
    height, width = x.shape[-2:]
    if height % 4 or width % 4 or height < 20 or width < 20:
        raise UserError(
            f"TResNet takes pictures whose sides are divisible by 4 and at least 20, got {height} x {width}"
        )
