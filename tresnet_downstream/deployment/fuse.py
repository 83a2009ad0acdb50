"""TResNet for inference: norms are folded into convolutions, which also compute activations and additions."""

import copy
import warnings
from typing import TypeVar, cast

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
    """Returns a faster network for inference, with the same interface and outputs. It cannot be trained.

    A backbone is converted to a :class:`FusedTResNet`; for a classifier, the backbone of a copy is converted. Outputs
    differ only by rounding. Weights keep their type and device and can be moved as usual. On a CPU, each convolution
    stores a second copy of its weights, in a faster layout, at its first use.

    Args:
        model: a network in evaluation mode; it is not modified and shares no memory with the result.

    Raises:
        UserError: if the model is in training mode, of another kind, or contains blocks that TResNet does not have.

    Examples:
        >>> network = TResNet(layers=(1, 1, 1, 1), width=0.25).eval()
        >>> images = torch.rand(1, 3, 64, 64)
        >>> with torch.inference_mode():
        ...     difference = (fuse(network)(images)[0] - network(images)[0]).abs().max()
        >>> bool(difference < 1e-3)
        True
    """
    if isinstance(model, ImageClassifier) and isinstance(model.backbone, TResNet):
        # The fused backbone is passed as the already copied one.
        fused = copy.deepcopy(model, {id(model.backbone): fuse(model.backbone)})
        fused.loss = None
        fused.requires_grad_(False)
        return fused
    if not isinstance(model, TResNet):
        inside = getattr(model, "backbone", None)
        what = type(model).__name__ + (f" on {type(inside).__name__}" if inside is not None else "")
        raise UserError(f"fuse takes a TResNet, or an ImageClassifier with one, got {what}")
    if any(module.training for module in model.modules()):
        raise UserError("fuse takes a model in evaluation mode: call model.eval() first")
    if (attachment := foreign_part(model)) is not None:
        raise UserError(f"fuse would lose what is attached to the network: {attachment}; merge or remove it first")
    # The class differs, but the interface is the same.
    return cast(Network, FusedTResNet(model))


class FusedTResNet(nn.Module):
    """The result of :func:`fuse` for a :class:`TResNet`, with the same inputs and outputs.

    On a processor without bfloat16 instructions, bfloat16 is computed in float32 and rounded at the end. That takes a
    quarter of the time of emulated bfloat16, and is closer to the float32 network.

    Args:
        backbone: a network in evaluation mode.

    Attributes:
        variant, out_indices, feature_info, name: those of the backbone.
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
        """The name of the variant, independent of its slopes; ``custom`` for other sizes."""
        return variant_name(self.variant)

    @property
    def stages(self) -> list[nn.Module]:
        """The four stages, in order."""
        return [getattr(self, info["name"]) for info in self.feature_info]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of the stages in ``out_indices``, for N x 3 x H x W images in [0, 1]."""
        arguments.check_sides(x)
        dtype = x.dtype
        x = _computable(x)
        x = self.stem(F.pixel_unshuffle(x, 4))
        features = []
        for index, stage in enumerate(self.stages[: max(self.out_indices) + 1]):
            x = stage(x)
            if index in self.out_indices:
                features.append(x.to(dtype))
        return tuple(features)

    def train(self, mode: bool = True) -> "FusedTResNet":
        """Stays in evaluation mode and warns; tracers call this although the network cannot be trained."""
        if mode:
            warnings.warn("a fused network only predicts, and stays in evaluation mode", stacklevel=2)
        return self


class FusedStage(nn.Sequential):
    """A sequence of blocks. A block overwrites the previous output, unless a hook may have stored that."""

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W to N x C' x H/stride x W/stride."""
        overwrite = False  # the caller may still use the stage's input
        for block in self:
            x = block(x, overwrite)
            overwrite = not has_hooks(block)
        return x


class FusedBasicBlock(nn.Module):
    """Two 3x3 convolutions, with squeeze-and-excite after the second."""

    def __init__(self, block: BasicBlock) -> None:
        super().__init__()
        self.conv1 = _convolution(block.conv1, block.norm1)
        self.blur = _blur(block.blur)
        self.conv2 = _convolution(block.conv2, block.norm2)
        self.gate = None if block.se is None else FusedGate(block.se)
        self.shortcut = _shortcut(block.downsample)

    def forward(self, x: Tensor, overwrite: bool = False) -> Tensor:
        """N x C x H x W to N x planes x H/stride x W/stride; with ``overwrite``, ``x`` may be overwritten."""
        out = self.blur(self.conv1(x))
        if self.gate is None:
            result: Tensor = self.conv2(out, self.shortcut(x), _replaceable(self.shortcut, overwrite))
            return result
        out = self.conv2(out)
        return F.relu(torch.addcmul(self.shortcut(x), out, self.gate(out)), inplace=True)


class FusedBottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, with squeeze-and-excite before the last."""

    def __init__(self, block: Bottleneck) -> None:
        super().__init__()
        self.conv1 = _convolution(block.conv1, block.norm1)
        self.conv2 = _convolution(block.conv2, block.norm2)
        self.blur = _blur(block.blur)
        self.gate = None if block.se is None else FusedGate(block.se)
        self.conv3 = _convolution(block.conv3, block.norm3)
        self.shortcut = _shortcut(block.downsample)

    def forward(self, x: Tensor, overwrite: bool = False) -> Tensor:
        """N x C x H x W to N x 4 planes x H/stride x W/stride; with ``overwrite``, ``x`` may be overwritten."""
        out = self.blur(self.conv2(self.conv1(x)))
        if self.gate is not None:
            out = out * self.gate(out)
        result: Tensor = self.conv3(out, self.shortcut(x), _replaceable(self.shortcut, overwrite))
        return result


@torch.no_grad()
def folded(conv: nn.Conv2d, norm: ActivatedBatchNorm) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that equals ``conv`` followed by ``norm`` without its activation.

    The norm's scale is ``|weight| + eps``. They are computed in float64, so each value is rounded once.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    numbers = (norm.weight, norm.bias, norm.running_mean, norm.running_var, conv.weight)
    weight, bias, mean, var, kernel = (tensor.detach().cpu().double() for tensor in numbers)
    scale = (weight.abs() + norm.eps) * torch.rsqrt(var + norm.eps)
    return (kernel * scale[:, None, None, None]).to(conv.weight), (bias - mean * scale).to(conv.weight)


@torch.fx.wrap
def _computable(x: Tensor) -> Tensor:
    """``x`` in a type for which its device has instructions."""
    emulated = x.dtype == torch.bfloat16 and x.device.type == "cpu" and not has_bfloat16()
    return x.float() if emulated else x


def has_bfloat16() -> bool:
    """Whether this processor has instructions for bfloat16; True if torch does not know."""
    known: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
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
    """Whether the block's output may overwrite its shortcut's output, which a layer has allocated for the block."""
    return not has_hooks(shortcut) if isinstance(shortcut, FusedShortcut) else overwrite


def _fused_block(block: nn.Module) -> nn.Module:
    if isinstance(block, BasicBlock):
        return FusedBasicBlock(block)
    if isinstance(block, Bottleneck):
        return FusedBottleneck(block)
    raise UserError(f"fuse supports only the blocks of TResNet, not {type(block).__name__}")
