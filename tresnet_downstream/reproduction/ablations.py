"""Variants of TResNet without squeeze-and-excite or without blur pools, for ablation studies."""

from typing import Any

from mmengine.registry import MODELS

from tresnet_downstream.backbones import TResNet
from tresnet_downstream.backbones.tresnet import BasicBlock, Bottleneck


@MODELS.register_module()
class TResNetWithoutSqueezeExcite(TResNet):
    """TResNet without squeeze-and-excite. The arguments, inputs and outputs are those of :class:`TResNet`.

    Examples:
        >>> import torch
        >>> network = TResNetWithoutSqueezeExcite(layers=(1, 1, 1, 1), width=0.25)
        >>> [stage.shape[1] for stage in network(torch.rand(2, 3, 64, 64))]
        [16, 32, 256, 512]
        >>> [name for name, _ in network.named_modules() if name.endswith(".se")]
        []
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for block in _blocks(self):
            block.se = None


@MODELS.register_module()
class TResNetWithoutBlur(TResNet):
    """TResNet without blur pools: convolutions of stride 2 reduce height and width.

    Each blur pool is removed, and the convolution before it gets stride 2. The average pools of the shortcuts are kept,
    as in ResNet-D. The arguments, inputs and outputs are those of :class:`TResNet`.

    Examples:
        >>> import torch
        >>> network = TResNetWithoutBlur(layers=(1, 1, 1, 1), width=0.25)
        >>> [stage.shape[-1] for stage in network(torch.rand(2, 3, 64, 64))]
        [16, 8, 4, 2]
        >>> [name for name, module in network.named_modules() if type(module).__name__ == "BlurPool"]
        []
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for block in _blocks(self):
            if block.blur is not None:
                convolution = block.conv1 if isinstance(block, BasicBlock) else block.conv2
                convolution.stride = (2, 2)
                block.blur = None


def _blocks(network: TResNet) -> list[BasicBlock | Bottleneck]:
    """The blocks of all stages."""
    return [block for block in network.modules() if isinstance(block, BasicBlock | Bottleneck)]
