"""Runs blocks by their plain modules, or by steps with the same results that save less for the backward pass.

``rules.py`` decides which, for each block in each pass. The other files of this folder define the steps. ``with_cp``
recomputes whole blocks as well, if nothing is attached to them.
"""

from collections.abc import Iterator, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from tresnet_downstream.backbones.branch_scaling import SqueezeExcite, drop_path_factors
from tresnet_downstream.backbones.downsampling import BlurPool, SpaceToDepth
from tresnet_downstream.backbones.lean.acceleration import kernels_for
from tresnet_downstream.backbones.lean.blur import lean_blur
from tresnet_downstream.backbones.lean.gated_norm import gated_norm
from tresnet_downstream.backbones.lean.pointwise_branch import pointwise_branch
from tresnet_downstream.backbones.lean.pointwise_conv import lean_pointwise_conv
from tresnet_downstream.backbones.lean.recomputation import checkpointed, is_recomputing
from tresnet_downstream.backbones.lean.rules import is_conv, lost_activation, reason_against_module, reason_against_pass
from tresnet_downstream.backbones.lean.stem_conv import lean_stem_conv
from tresnet_downstream.errors import UserError

if TYPE_CHECKING:
    from tresnet_downstream.backbones.activated_batch_norm import ActivatedBatchNorm
    from tresnet_downstream.backbones.tresnet import BasicBlock, Bottleneck, Stem


class Reason(NamedTuple):
    """Why a block runs its plain modules.

    Attributes:
        text: the reason, such as ``conv3 has a forward hook``.
        attached: whether the block contains a foreign module or has something attached. It is then not recomputed.
    """

    text: str
    attached: bool


def run_blocks(blocks: Sequence[nn.Module], x: Tensor, recomputed: int = 0) -> Tensor:
    """Runs blocks in order and returns the output of the last one.

    Args:
        blocks: the stem, or blocks of a stage.
        x: N x C x H x W, the input of the first block.
        recomputed: number of blocks that are recomputed together in the backward pass; 0 to recompute none.
    """
    if reason_against_pass(x) is not None:
        for block in blocks:
            x = _plain(block, x)
        return x
    for start in range(0, len(blocks), recomputed or len(blocks)):
        segment = blocks[start : start + (recomputed or len(blocks))]
        reasons = [reason_against_block(block) for block in segment]
        if recomputed and not any(reason is not None and reason.attached for reason in reasons):
            x = _recomputed(segment, x, lean=[reason is None for reason in reasons])
        else:
            for block, reason in zip(segment, reasons, strict=True):
                x = _plain(block, x) if reason else _whole(block, x)
    return x


def plain_blocks(network: nn.Module) -> dict[str, str]:
    """From the names of the stem and blocks that run their plain modules in training to the reasons."""
    return {name: reason.text for name, reason in _reasons(network)}


def foreign_part(network: nn.Module) -> str | None:
    """The first part of the stem and blocks that is of a foreign class or has something attached; None if none is."""
    return next((f"{name}: {reason.text}" for name, reason in _reasons(network) if reason.attached), None)


def _reasons(network: nn.Module) -> Iterator[tuple[str, Reason]]:
    for name, child in network.named_children():
        blocks = child.named_children() if isinstance(child, nn.Sequential) else [("", child)]
        for index, block in blocks:
            if (reason := reason_against_block(block)) is not None:
                yield f"{name}.{index}".rstrip("."), reason


def reason_against_block(block: nn.Module) -> Reason | None:
    """Why a block, or the stem, runs its plain modules; None if its lean steps may run."""
    own = _own_types()
    if (attachment := reason_against_module(block, own.parts)) is not None:
        return Reason(attachment, attached=True)
    convs, norms = _passed_by(block)
    for name, (conv, kernel, bias) in convs.items():
        if not is_conv(conv, kernel, bias):
            return Reason(f"{name} is another kind of convolution", attached=True)
    for name, norm in norms.items():
        if norm.slope != 1:
            return Reason(f"{name} has an activation", attached=True)
    for norm in (part for part in block.modules() if isinstance(part, own.norm)):
        if norm.running_mean is None:
            return Reason("a norm has no running statistics", attached=True)
        if norm.norm not in ("inplace", "sync"):
            return Reason(f"norm={norm.norm!r}", attached=False)
    return None


class _OwnTypes(NamedTuple):
    stem: "type[Stem]"
    basic: "type[BasicBlock]"
    bottleneck: "type[Bottleneck]"
    norm: "type[ActivatedBatchNorm]"
    parts: frozenset[type]


@cache
def _own_types() -> _OwnTypes:
    # Imported here, since these modules import this one.
    from tresnet_downstream.backbones.activated_batch_norm import ActivatedBatchNorm
    from tresnet_downstream.backbones.tresnet import BasicBlock, Bottleneck, Shortcut, Stem

    blocks = Stem, BasicBlock, Bottleneck
    layers = Shortcut, ActivatedBatchNorm, SpaceToDepth, BlurPool, SqueezeExcite
    return _OwnTypes(*blocks, ActivatedBatchNorm, frozenset(blocks + layers))


def _passed_by(block: Any) -> "tuple[dict[str, tuple[nn.Module, int, bool]], dict[str, ActivatedBatchNorm]]":
    """The convolutions (with kernel size and whether they have a bias) and norms whose ``forward`` is not called."""
    own = _own_types()
    if type(block) is own.stem:
        return {"conv": (block.conv, 3, False)}, {}
    convs: dict[str, tuple[nn.Module, int, bool]] = {}
    norms = {block.last_norm: getattr(block, block.last_norm)}
    if type(block) is own.bottleneck:
        convs |= {"conv1": (block.conv1, 1, False), "conv3": (block.conv3, 1, False)}
    if block.se is not None:
        convs |= {"se.fc1": (block.se.fc1, 1, True), "se.fc2": (block.se.fc2, 1, True)}
    if block.downsample is not None:
        convs |= {"downsample.conv": (block.downsample.conv, 1, False)}
        norms |= {"downsample.norm": block.downsample.norm}
    return convs, norms


def _recomputed(segment: Sequence[Any], x: Tensor, lean: Sequence[bool]) -> Tensor:
    draws = any(block.drop_path_rate > 0 for block in segment)
    run = partial(_run_segment, segment, lean)
    if not lean[-1]:
        result: Tensor = checkpointed(run, x, segment, draws)
        return result
    # The output of the last block is saved as the input of the next one, so it is computed outside of the segment.
    return _join(*checkpointed(run, x, segment, draws))


def _run_segment(segment: Sequence[Any], lean: Sequence[bool], x: Tensor) -> Any:
    """The output of several blocks. If the last one runs lean steps, its branch and shortcut instead.

    The second run does not compute the values of that branch and shortcut, which no code reads.
    """
    last = len(segment) - 1
    for index, block in enumerate(segment):
        if not lean[index]:
            x = _plain(block, x)
        elif index < last:
            x = _whole(block, x)
        else:
            read = not is_recomputing()
            return _branch(block, x, read), _shortcut(block, x, read)
    return x


def _plain(block: nn.Module, x: Tensor) -> Tensor:
    """``block(x)``. Raises UserError if a tool for torch's batch norms has replaced a norm that has an activation."""
    if (lost := lost_activation(block)) is not None:
        raise UserError(
            f"{lost}, which removed the activation that TResNet's norms include: to fold norms use "
            "tresnet_downstream.deployment.fuse, to share statistics over processes build the network with "
            "norm='sync', for another norm use nn.Sequential(norm, activation)"
        )
    result: Tensor = block(x)
    return result


def _whole(block: Any, x: Tensor) -> Tensor:
    """``block(x)`` or ``stem(x)`` by lean steps."""
    if type(block) is _own_types().stem:
        result: Tensor = block.norm(lean_stem_conv(x, block.conv.weight))
        return result
    if kernels_for(x) is not None:
        # One kernel computes the end of the branch and adds the shortcut.
        return _branch(block, x, True, _shortcut(block, x, True))
    return _join(_branch(block, x, True), _shortcut(block, x, True))


def _join(branch: Tensor, shortcut: Tensor) -> Tensor:
    """``relu(branch + shortcut)``, computed in place in ``branch``, which no other code uses."""
    return F.relu_(branch.add_(shortcut))


def _shortcut(block: Any, x: Tensor, read: bool) -> Tensor:
    """The value of the shortcut, in the shape of the block's output."""
    layers = block.downsample
    if layers is None:
        return x
    return pointwise_branch(x, layers.conv.weight, layers.norm, pool=layers.stride == 2, read=read)


def _branch(block: Any, x: Tensor, read: bool, shortcut: Tensor | None = None) -> Tensor:
    """The value of the residual branch; the block's output if a shortcut is passed."""
    factors = drop_path_factors(x, block.drop_path_rate, block.training)
    if type(block) is _own_types().basic:
        out = block.conv2(_blurred(block.norm1, block.blur, block.conv1(x)))
        return gated_norm(out, block.norm2.values(out), block.se, factors, read, shortcut)
    out = block.norm1(lean_pointwise_conv(x, block.conv1.weight))
    out = _blurred(block.norm2, block.blur, block.conv2(out))
    gate = None if block.se is None else block.se(out)
    return pointwise_branch(out, block.conv3.weight, block.norm3, gate, factors=factors, read=read, shortcut=shortcut)


def _blurred(norm: "ActivatedBatchNorm", blur: BlurPool | None, x: Tensor) -> Tensor:
    """``blur(norm(x))``."""
    if blur is None:
        result: Tensor = norm(x)
        return result
    return norm(x, blurred=True) if kernels_for(x) is not None else lean_blur(norm(x), blur)
