"""TResNet: High Performance GPU-Dedicated Architecture (Ridnik et al., 2020, arXiv:2003.13630)."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, count
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

from tresnet_downstream.backbones.acceleration import kernels_for
from tresnet_downstream.backbones.activated_batch_norm import (
    ActivatedBatchNorm,
    measured_together,
    uses_plain_operators,
)
from tresnet_downstream.backbones.gated_norm import gated_norm
from tresnet_downstream.backbones.layers import BlurPool, SpaceToDepth, SqueezeExcite, lean_stem_conv
from tresnet_downstream.backbones.pointwise_branch import Ending, pointwise_branch
from tresnet_downstream.backbones.pointwise_conv import pointwise_conv
from tresnet_downstream.backbones.recomputation import checkpointed, is_recomputing
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


def takes_lean_steps(norm: ActivatedBatchNorm) -> bool:
    """Whether a pass through this norm's block takes the steps that keep less for the backward pass."""
    return norm.norm in ("inplace", "sync") and torch.is_grad_enabled() and not uses_plain_operators()


class Stem(nn.Module):
    """Space-to-depth and one 3x3 convolution: N x 3 x H x W to N x C x H/4 x W/4."""

    def __init__(self, channels: int, slope: float, norm: str) -> None:
        super().__init__()
        self.space_to_depth = SpaceToDepth()
        self.conv = nn.Conv2d(3 * 16, channels, 3, padding=1, bias=False)
        self.norm = ActivatedBatchNorm(channels, slope, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Gives the first stage's input."""
        if takes_lean_steps(self.norm):
            return self.norm(lean_stem_conv(x, self.space_to_depth, self.conv.weight))
        return self.norm(self.conv(self.space_to_depth(x)))


class Shortcut(nn.Module):
    """Average pooling where the block halves the sides, then a 1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: str) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = ActivatedBatchNorm(out_channels, IDENTITY, norm)

    def forward(self, x: Tensor, lean: bool, read: bool) -> Tensor:
        """Brings the block's input to the shape of its output; see :meth:`Block.parts`."""
        if lean:
            return pointwise_branch(x, self.conv.weight, Ending(self.norm, self.stride == 2, read))
        if self.stride == 2:
            x = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
        return self.norm(self.conv(x))


class Block(nn.Module, ABC):
    """What both residual blocks share: the shortcut, stochastic depth and the end of the branch."""

    expansion: int

    def __init__(self, in_channels: int, planes: int, stride: int, norm: str, drop_path_rate: float) -> None:
        super().__init__()
        out_channels = planes * self.expansion
        self.norm = norm
        self.drop_path_rate = drop_path_rate
        changes_shape = stride == 2 or in_channels != out_channels
        self.downsample = Shortcut(in_channels, out_channels, stride, norm) if changes_shape else None
        self.blur = BlurPool(planes) if stride == 2 else None

    @property
    @abstractmethod
    def last_norm(self) -> ActivatedBatchNorm:
        """The norm whose weight starts at 0, so that a fresh block passes its input on."""

    @property
    def lean(self) -> bool:
        """Whether this pass takes the steps that keep less for the backward pass."""
        return takes_lean_steps(self.last_norm)

    @abstractmethod
    def branch(self, x: Tensor, read: bool, shortcut: Tensor | None = None) -> Tensor:
        """What is added to the shortcut; for a lean pass with a shortcut, the block's result."""

    def shortcut(self, x: Tensor, read: bool) -> Tensor:
        """The block's input in the shape of its output."""
        return x if self.downsample is None else self.downsample(x, self.lean, read)

    def parts(self, x: Tensor, read: bool = True) -> tuple[Tensor, Tensor]:
        """Branch and shortcut of N x C x H x W, both N x planes * expansion x H/stride x W/stride.

        With ``read=False`` nobody reads their numbers, and what only makes them is left out.
        """
        return self.branch(x, read), self.shortcut(x, read)

    def join(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        """``relu(branch + shortcut)``; the lean branch is nobody else's."""
        return F.relu(branch.add_(shortcut) if self.lean else branch + shortcut, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W to N x planes * expansion x H/stride x W/stride."""
        if self.lean and kernels_for(x) is not None:
            return self.branch(x, True, self.shortcut(x, True))
        return self.join(*self.parts(x))

    def blurred(self, norm: ActivatedBatchNorm, x: Tensor) -> Tensor:
        """``norm(x)`` at the block's stride."""
        if self.blur is None:
            return norm(x)
        if self.lean and kernels_for(x) is not None:
            return norm(x, blurred=True)
        return self.blur.lean(norm(x)) if self.lean else self.blur(norm(x))

    def branch_scale(self, x: Tensor) -> Tensor | None:
        """N factors for stochastic depth (Huang et al., 2016): 0, or 1 / (1 - rate) to keep the mean."""
        if not self.training or self.drop_path_rate == 0:
            return None
        kept = 1 - self.drop_path_rate
        return torch.empty(x.shape[0], device=x.device).bernoulli_(kept) / kept


class BasicBlock(Block):
    """Two 3x3 convolutions; the gate stands after the second norm."""

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        planes: int,
        stride: int,
        slope: float,
        use_se: bool,
        norm: str,
        drop_path_rate: float,
    ) -> None:
        super().__init__(in_channels, planes, stride, norm, drop_path_rate)
        self.conv1 = nn.Conv2d(in_channels, planes, 3, padding=1, bias=False)
        self.norm1 = ActivatedBatchNorm(planes, slope, norm)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.norm2 = ActivatedBatchNorm(planes, IDENTITY, norm)
        self.se = SqueezeExcite(planes, max(planes // 4, 64)) if use_se else None

    @property
    def last_norm(self) -> ActivatedBatchNorm:
        """The second."""
        return self.norm2

    def branch(self, x: Tensor, read: bool, shortcut: Tensor | None = None) -> Tensor:
        """What is added to the shortcut, or the block's result."""
        out = self.conv2(self.blurred(self.norm1, self.conv1(x)))
        scale = self.branch_scale(x)
        if self.lean:
            return gated_norm(out, self.norm2, self.se, scale, read, shortcut)
        out = self.norm2(out)
        return scaled(out if self.se is None else out * self.se(out), scale)


class Bottleneck(Block):
    """1x1, 3x3 and 1x1 convolution; the gate stands before the last."""

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        planes: int,
        stride: int,
        slope: float,
        use_se: bool,
        norm: str,
        drop_path_rate: float,
    ) -> None:
        super().__init__(in_channels, planes, stride, norm, drop_path_rate)
        self.conv1 = nn.Conv2d(in_channels, planes, 1, bias=False)
        self.norm1 = ActivatedBatchNorm(planes, slope, norm)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.norm2 = ActivatedBatchNorm(planes, slope, norm)
        self.se = SqueezeExcite(planes, max(planes * 4 // 8, 64)) if use_se else None
        self.conv3 = nn.Conv2d(planes, planes * 4, 1, bias=False)
        self.norm3 = ActivatedBatchNorm(planes * 4, IDENTITY, norm)

    @property
    def last_norm(self) -> ActivatedBatchNorm:
        """The third."""
        return self.norm3

    def branch(self, x: Tensor, read: bool, shortcut: Tensor | None = None) -> Tensor:
        """What is added to the shortcut, or the block's result."""
        out = pointwise_conv(x, self.conv1.weight.flatten(1)) if self.lean else self.conv1(x)
        out = self.blurred(self.norm2, self.conv2(self.norm1(out)))
        gate = None if self.se is None else self.se(out)
        scale = self.branch_scale(x)
        if self.lean:
            return pointwise_branch(out, self.conv3.weight, Ending(self.norm3, read=read), gate, scale, shortcut)
        return scaled(self.norm3(self.conv3(out if gate is None else out * gate)), scale)


def scaled(branch: Tensor, scale: Tensor | None) -> Tensor:
    """The branch with its factors of stochastic depth."""
    return branch if scale is None else branch * scale.to(branch.dtype)[:, None, None, None]


BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


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
        self.recomputed = _recomputed_blocks(with_cp, self.variant.layers)

        base = int(64 * self.variant.width)
        stem_slope, block_slope = self.variant.slopes
        self.stem = Stem(base, stem_slope, norm)
        self.feature_info: list[dict[str, Any]] = []
        last = max(sum(self.variant.layers) - 1, 1)
        drop_path_rates = (drop_path_rate * index / last for index in count())
        channels = base
        for stage, (depth, kind) in enumerate(zip(self.variant.layers, self.variant.blocks, strict=True)):
            block, planes = BLOCKS[kind], base * 2**stage
            members = []
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                rate = next(drop_path_rates)
                members.append(block(channels, planes, stride, block_slope, stage < 3, norm, rate))
                channels = planes * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*members))
            self.feature_info.append({"name": f"layer{stage + 1}", "channels": channels, "stride": 4 * 2**stage})

        self._initialise()
        self._freeze()

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
    def stages(self) -> list[nn.Sequential]:
        """The four stages, in order."""
        return [getattr(self, info["name"]) for info in self.feature_info]

    def norms(self) -> list[ActivatedBatchNorm]:
        """Every norm of the network."""
        return [module for module in self.modules() if isinstance(module, ActivatedBatchNorm)]

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

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of the stages in ``out_indices`` for N x 3 x H x W pictures in [0, 1]."""
        check_sides(x)
        with self._norms_measured():
            x = self.stem(x)
            features = []
            for index, stage in enumerate(self.stages[: max(self.out_indices) + 1]):
                x = self._run(stage, self.recomputed[index], x)
                if index in self.out_indices:
                    features.append(x)
        return tuple(features)

    def _run(self, stage: nn.Sequential, recomputed: int, x: Tensor) -> Tensor:
        if not (recomputed and self.training and torch.is_grad_enabled()) or uses_plain_operators():
            return stage(x)
        blocks: list[Any] = list(stage)
        for start in range(0, len(blocks), recomputed):
            segment = blocks[start : start + recomputed]
            # The last block's result is the next one's input, kept anyway: it is made outside.
            x = segment[-1].join(*checkpointed(partial(_parts_of_last, segment), x))
        return x

    def _norms_measured(self) -> AbstractContextManager[None]:
        # Each look at a weight waits for a GPU, and costs some operators: one look for all that may be inverted.
        if torch.is_grad_enabled() and not uses_plain_operators():
            return measured_together([norm for norm in self.norms() if norm.slope != IDENTITY])
        return nullcontext()

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
            elif isinstance(module, Block):
                nn.init.zeros_(module.last_norm.weight)


def _recomputed_blocks(with_cp: bool | int | Sequence[int], layers: tuple[int, ...]) -> tuple[int, ...]:
    """For each stage how many blocks are recomputed together; 0 for none."""
    if with_cp is True:
        return (layers[0], layers[1], 1, 0)
    lengths = (int(with_cp),) * 4 if isinstance(with_cp, int) else tuple(with_cp)
    if len(lengths) != 4 or not all(isinstance(length, int) and length >= 0 for length in lengths):
        raise UserError(f"with_cp={with_cp}: give True, False, a number of blocks, or one for each of the four stages")
    return lengths


def _parts_of_last(blocks: Sequence[Block], x: Tensor) -> tuple[Tensor, Tensor]:
    """Branch and shortcut of the last of several blocks; when computed again, nobody reads them."""
    for block in blocks[:-1]:
        x = block(x)
    return blocks[-1].parts(x, read=not is_recomputing())


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


def check_sides(x: Tensor) -> None:
    """Raises UserError for N x 3 x H x W pictures whose sides TResNet does not take."""
    height, width = x.shape[-2:]
    if height % 4 or width % 4 or height < 20 or width < 20:
        raise UserError(
            f"TResNet takes pictures whose sides are divisible by 4 and at least 20, got {height} x {width}"
        )
