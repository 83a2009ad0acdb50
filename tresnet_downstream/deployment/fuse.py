"""TResNet for inference alone: norms folded into convolutions, activations and sums done with them."""

import copy
import warnings
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tresnet_downstream.backbones import ActivatedBatchNorm, TResNet, arguments, variant_name
from tresnet_downstream.backbones.downsampling import BlurPool
from tresnet_downstream.backbones.lean import foreign_part, has_hooks
from tresnet_downstream.backbones.tresnet import BasicBlock, Bottleneck, Shortcut
from tresnet_downstream.classification.classifier import ImageClassifier
from tresnet_downstream.deployment.fused_layers import FusedBlur, FusedConvolution, FusedGate, FusedShortcut
from tresnet_downstream.errors import UserError

Network = TypeVar("Network", TResNet, ImageClassifier)


def fuse(model: Network) -> Network:
    """A network of the same interface and outputs that computes faster and cannot be trained.

    A backbone, of a detector too, becomes a :class:`FusedTResNet`; a classifier becomes one whose backbone is that.
    Outputs differ by rounding alone. Weights have the type and device of the model's and may be moved as usual. On a
    CPU each convolution keeps a second copy of its weights, in the layout that is fast there, from its first use.

    Args:
        model: in evaluation mode; stays as it is and shares no memory with the result.

    Raises:
        UserError: for a model in training mode, of another kind, or with blocks that are none of TResNet's.
    """
    if isinstance(model, ImageClassifier) and isinstance(model.backbone, TResNet):
        # The copy finds its backbone made already.
        fused = copy.deepcopy(model, {id(model.backbone): fuse(model.backbone)})
        fused.loss = None
        fused.requires_grad_(False)
        return fused
    if not isinstance(model, TResNet):
        inside = getattr(model, "backbone", None)
        what = type(model).__name__ + (f" on {type(inside).__name__}" if inside is not None else "")
        raise UserError(f"fuse takes a TResNet or an ImageClassifier on one, got {what}")
    if any(module.training for module in model.modules()):
        raise UserError("fuse takes a model in evaluation mode: call model.eval() first")
    if (attachment := foreign_part(model)) is not None:
        raise UserError(f"fuse would lose what is attached to the network: {attachment}; merge or remove it first")
    # Of another class, and of the same use.
    return cast(Network, FusedTResNet(model))


class FusedTResNet(nn.Module):
    """What :func:`fuse` makes of a :class:`TResNet`; takes and gives the same.

    Bfloat16 on a processor without instructions for it is computed in float32 and rounded at the end: that takes a
    quarter of the time of emulating it, and is closer to the float32 network.

    Args:
        backbone: in evaluation mode.

    Attributes:
        variant, out_indices, feature_info, name: as of the backbone.
    """

    def __init__(self, backbone: TResNet) -> None:
        super().__init__()
        self.variant, self.out_indices = backbone.variant, backbone.out_indices
        self.feature_info = copy.deepcopy(backbone.feature_info)
        weight, bias = folded(backbone.stem.conv, backbone.stem.norm)
        # From the published order (row, column, colour) to that of pixel_unshuffle (colour, row, column).
        weight = weight.unflatten(1, (16, 3)).transpose(1, 2).flatten(1, 2)
        self.stem = FusedConvolution(weight, bias, backbone.stem.norm.slope)
        for info, stage in zip(self.feature_info, backbone.stages, strict=True):
            self.add_module(info["name"], FusedStage(*(_fused_block(block) for block in stage)))
        super().train(False)

    @property
    def name(self) -> str:
        """The variant's name, whatever its slopes; ``custom`` if the sizes are those of none."""
        return variant_name(self.variant)

    @property
    def stages(self) -> list[nn.Module]:
        """The four stages, in order."""
        return [getattr(self, info["name"]) for info in self.feature_info]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of the stages in ``out_indices`` for N x 3 x H x W pictures in [0, 1]."""
        arguments.check_sides(x)
        given = x.dtype
        x = _computable(x)
        x = self.stem(F.pixel_unshuffle(x, 4))
        features = []
        for index, stage in enumerate(self.stages[: max(self.out_indices) + 1]):
            x = stage(x)
            if index in self.out_indices:
                features.append(x.to(given))
        return tuple(features)

    def train(self, mode: bool = True) -> "FusedTResNet":
        """Stays in evaluation mode, and warns of it: tracers switch modes, but nothing here can be trained."""
        if mode:
            warnings.warn("a fused network only predicts, and stays in evaluation mode", stacklevel=2)
        return self


class FusedStage(nn.Sequential):
    """Blocks in order. A block's output becomes the next one's in place, unless a hook may have kept it."""

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W to N x C' x H/stride x W/stride."""
        overwrite = False  # the stage's input is also the caller's
        for block in self:
            x = block(x, overwrite)
            overwrite = not has_hooks(block)
        return x


class FusedBasicBlock(nn.Module):
    """Two 3x3 convolutions, the gate after the second."""

    def __init__(self, block: BasicBlock) -> None:
        super().__init__()
        self.conv1 = _convolution(block.conv1, block.norm1)
        self.blur = _blur(block.blur)
        self.conv2 = _convolution(block.conv2, block.norm2)
        self.gate = None if block.se is None else FusedGate(block.se)
        self.shortcut = _shortcut(block.downsample)

    def forward(self, x: Tensor, overwrite: bool = False) -> Tensor:
        """N x C x H x W to N x planes x H/stride x W/stride; may overwrite ``x`` if told so."""
        out = self.blur(self.conv1(x))
        if self.gate is None:
            result: Tensor = self.conv2(out, self.shortcut(x), _replaceable(self.shortcut, overwrite))
            return result
        out = self.conv2(out)
        return F.relu(torch.addcmul(self.shortcut(x), out, self.gate(out)), inplace=True)


class FusedBottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution, the gate before the last."""

    def __init__(self, block: Bottleneck) -> None:
        super().__init__()
        self.conv1 = _convolution(block.conv1, block.norm1)
        self.conv2 = _convolution(block.conv2, block.norm2)
        self.blur = _blur(block.blur)
        self.gate = None if block.se is None else FusedGate(block.se)
        self.conv3 = _convolution(block.conv3, block.norm3)
        self.shortcut = _shortcut(block.downsample)

    def forward(self, x: Tensor, overwrite: bool = False) -> Tensor:
        """N x C x H x W to N x 4 planes x H/stride x W/stride; may overwrite ``x`` if told so."""
        out = self.blur(self.conv2(self.conv1(x)))
        if self.gate is not None:
            out = out * self.gate(out)
        result: Tensor = self.conv3(out, self.shortcut(x), _replaceable(self.shortcut, overwrite))
        return result


@torch.no_grad()
def folded(conv: nn.Conv2d, norm: ActivatedBatchNorm) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one convolution that ``conv`` and ``norm``, without its activation, come to.

    The norm's scale is ``|weight| + eps``. Folded in float64, so that one rounding is all that it costs.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    numbers = (norm.weight, norm.bias, norm.running_mean, norm.running_var, conv.weight)
    weight, bias, mean, var, kernel = (tensor.detach().cpu().double() for tensor in numbers)
    scale = (weight.abs() + norm.eps) * torch.rsqrt(var + norm.eps)
    return (kernel * scale[:, None, None, None]).to(conv.weight), (bias - mean * scale).to(conv.weight)


@torch.fx.wrap
def _computable(x: Tensor) -> Tensor:
    """``x`` in a type that its device multiplies by itself."""
    emulated = x.dtype == torch.bfloat16 and x.device.type == "cpu" and not has_bfloat16()
    return x.float() if emulated else x


def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 by itself; where torch cannot tell, it is taken to."""
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    instructions = ("avx512_bf16", "amx_bf16", "avx_ne_convert")
    return known.get("architecture") != "x86_64" or any(known.get(name) for name in instructions)


def _convolution(conv: nn.Conv2d, norm: ActivatedBatchNorm) -> FusedConvolution:
    return FusedConvolution(*folded(conv, norm), norm.slope)


def _blur(blur: BlurPool | None) -> nn.Module:
    return nn.Identity() if blur is None else FusedBlur(blur.filter)


def _shortcut(shortcut: Shortcut | None) -> nn.Module:
    if shortcut is None:
        return nn.Identity()
    return FusedShortcut(_convolution(shortcut.conv, shortcut.norm), shortcut.stride)


def _replaceable(shortcut: nn.Module, overwrite: bool) -> bool:
    """Whether the block's output may take the memory of its shortcut's output: that of layers is the block's own."""
    return not has_hooks(shortcut) if isinstance(shortcut, FusedShortcut) else overwrite


def _fused_block(block: nn.Module) -> nn.Module:
    if isinstance(block, BasicBlock):
        return FusedBasicBlock(block)
    if isinstance(block, Bottleneck):
        return FusedBottleneck(block)
    raise UserError(f"fuse knows the blocks of TResNet, not {type(block).__name__}")
